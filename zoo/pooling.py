"""Pooling of token states to one vector, as in sentence-transformers: https://sbert.net."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp


def pool(modes: Sequence[str], hidden: jax.Array, valid: jax.Array, pooled: jax.Array) -> jax.Array:
  """Pools token states by each of `modes` and concatenates the results in order.

  Args:
    modes: names of POOLS.
    hidden: float [batch, length, dim]
    valid: bool [batch, length], False on padding.
    pooled: bool [batch, length], the tokens to pool: `valid`, or without those of a prompt.

  Returns:
    [batch, len(modes) * dim]

  >>> hidden = jnp.array([[[1.0], [3.0], [7.0]]])
  >>> valid = jnp.array([[True, True, False]])
  >>> pool(["max", "mean"], hidden, valid, valid).tolist()
  [[3.0, 2.0]]
  """
  return jnp.concatenate([POOLS[mode](hidden, valid, pooled) for mode in modes], axis=-1)


def _cls(hidden, valid, pooled):
  return _at(hidden, jnp.argmax(pooled, axis=1))


def _max(hidden, valid, pooled):
  return jnp.where(pooled[..., None], hidden, -jnp.inf).max(1)


def _mean(hidden, valid, pooled):
  return _weighted(hidden, pooled.astype(hidden.dtype))


def _mean_sqrt_len(hidden, valid, pooled):
  count = jnp.maximum(pooled.sum(1), 1e-9)[:, None]
  return (hidden * pooled[..., None]).sum(1) / jnp.sqrt(count)


def _weightedmean(hidden, valid, pooled):
  # 1, 2, 3 ... from the first real token, also with left padding.
  positions = 1 + jnp.arange(hidden.shape[1])[None] - jnp.argmax(valid, axis=1)[:, None]
  return _weighted(hidden, (pooled * positions).astype(hidden.dtype))


def _lasttoken(hidden, valid, pooled):
  last = pooled.shape[1] - 1 - jnp.argmax(pooled[:, ::-1], axis=1)
  return _at(hidden, last) * pooled.any(1)[:, None]


def _weighted(hidden, weight):
  return (hidden * weight[..., None]).sum(1) / jnp.maximum(weight.sum(1), 1e-9)[:, None]


def _at(hidden, position):
  return jnp.take_along_axis(hidden, position[:, None, None], axis=1)[:, 0]


# (hidden [batch, length, dim], valid, pooled bool [batch, length]) -> [batch, dim]
POOLS: dict[str, Callable[[jax.Array, jax.Array, jax.Array], jax.Array]] = {
  "cls": _cls,
  "max": _max,
  "mean": _mean,
  "mean_sqrt_len_tokens": _mean_sqrt_len,
  "weightedmean": _weightedmean,
  "lasttoken": _lasttoken,
}
ALIASES = {"mean_sqrt_len": "mean_sqrt_len_tokens"}  # Alternative names.
