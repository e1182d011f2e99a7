"""Key-value caches of attention: all tokens or a ring buffer of the last ones, in full precision or quantized.

A cache is a pure function: it takes a dict of arrays and returns a new dict. `zoo.generate.grow`
lengthens the arrays of a `FullCache`, which it knows by name, and leaves those of a `RingCache` as long as they
are.

Keys and values are [batch, heads, length, head_dim]: a head's keys are contiguous, as its product with the query needs
them; [batch, length, heads, head_dim] would be copied into that order for every token.
"""

import dataclasses

import jax
import jax.numpy as jnp


def packed(name, array, dtype):
  """{name: array [..., head_dim] in dtype}; for "int8" also the scale of each vector: {f"{name}_scales": [...]}"""
  if dtype != "int8":
    return {name: array if dtype is None else array.astype(dtype)}
  scales = jnp.maximum(abs(array.astype(jnp.float32)).max(axis=-1), 1e-30) / 127
  rounded = jnp.round(array.astype(jnp.float32) / scales[..., None]).astype(jnp.int8)
  return {name: rounded, f"{name}_scales": scales}


def unpacked(name, cache, dtype):
  """Inverse of `packed`, in `dtype`."""
  array = cache[name]
  if f"{name}_scales" in cache:
    return (array.astype(jnp.float32) * cache[f"{name}_scales"][..., None]).astype(dtype)
  return array.astype(dtype)


@dataclasses.dataclass(frozen=True)
class FullCache:
  """Keys and values of all tokens, in order of arrival.

  Args:
    dtype: storage dtype, "bfloat16", "int8" (with a scale per vector), or None: the computation dtype.
  """

  dtype: str | None = None

  def add(self, cache, key, value, positions, valid):
    """Appends keys and values -> the updated cache, and the keys and values to attend to.

    Args:
      cache: dict of arrays from the previous call; None at first.
      key, value: [batch, length, heads, head_dim]
      positions: int32 [batch, length]
      valid: bool [batch, length], True = a real token, or None: all are.

    Returns:
      dict of arrays; keys, values [batch, cached, heads, head_dim], positions int32 [batch, cached] and valid bool
      [batch, cached]
    """
    new = packed("keys", key.swapaxes(1, 2), self.dtype) | packed("values", value.swapaxes(1, 2), self.dtype)
    new["positions"] = positions if valid is None else jnp.where(valid, positions, -1)
    index = jnp.zeros((), jnp.int32)
    if cache is not None:
      index = cache["index"]
      for name, array in new.items():
        start = (0, index) if name == "positions" else (0, 0, index) + (0,) * (array.ndim - 3)
        new[name] = jax.lax.dynamic_update_slice(cache[name], array, start)
      # Otherwise XLA fuses the update with its readers, and can no longer write in place.
      new = jax.lax.optimization_barrier(new)
    new["index"] = index + key.shape[1]
    keys, values = (unpacked(name, new, key.dtype).swapaxes(1, 2) for name in ("keys", "values"))
    return new, keys, values, new["positions"], new["positions"] >= 0


@dataclasses.dataclass(frozen=True)
class RingCache:
  """Ring buffer of `size` keys and values: a token's slot is its position modulo size.

  For layers whose window is at most `size` tokens; or for whole sequences of at most `size` tokens in speculative
  decoding, where writing to a position again overwrites the rejected token.

  Args:
    size: number of slots.
    dtype: as of `FullCache`.
  """

  size: int
  dtype: str | None = None

  def add(self, cache, key, value, positions, valid):
    """As `FullCache.add`."""
    batch, length = key.shape[:2]
    real = jnp.ones((batch, length), bool) if valid is None else valid
    new = packed("ring_keys", key, self.dtype) | packed("ring_values", value, self.dtype)
    new["ring_positions"] = jnp.where(real, positions, -1)
    last = new["ring_positions"].max(axis=1, keepdims=True)
    # Only the last `size` real tokens are kept; the others get a slot out of range, and are dropped.
    slot = jnp.where(real & (positions > last - self.size), positions % self.size, self.size)
    rows = jnp.arange(batch)[:, None]
    updated = {}
    for name, array in new.items():
      blank = -1 if name == "ring_positions" else 0
      shape = (batch, *array.shape[2:3], self.size, *array.shape[3:])
      old = jnp.full(shape, blank, array.dtype) if cache is None else cache[name]
      target = old.at[rows, slot] if name == "ring_positions" else old.at[rows, :, slot]
      updated[name] = target.set(array, mode="drop")
      new[name] = array if name == "ring_positions" else array.swapaxes(1, 2)
    if length == 1 and cache is not None:
      visible = updated
    elif cache is None:
      visible = new
    else:
      # The first new tokens may attend to tokens that the last of them overwrite, so old and new are concatenated.
      first = jnp.where(real, positions, jnp.iinfo(jnp.int32).max).min(axis=1, keepdims=True)
      before = cache | {"ring_positions": jnp.where(cache["ring_positions"] < first, cache["ring_positions"], -1)}
      axis = lambda name: 1 if name == "ring_positions" else 2
      visible = {name: jnp.concatenate([before[name], array], axis=axis(name)) for name, array in new.items()}
    keys, values = (unpacked(name, visible, key.dtype).swapaxes(1, 2) for name in ("ring_keys", "ring_values"))
    return updated, keys, values, visible["ring_positions"], visible["ring_positions"] >= 0
