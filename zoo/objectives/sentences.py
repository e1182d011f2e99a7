"""Several texts of a row as one vector each, and losses of their first entries: what objectives of sentences share."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from zoo.errors import UserError, did_you_mean
from zoo.objectives.objective import (
  NOTHING,
  Context,
  apply_with_carry,
  check_batch,
  init_and_carry,
  optional_entries,
  row_weight,
)
from zoo.pooling import POOLS, pool
from zoo.preprocessing import text_options


def text_vectors(model: Any, pooling: Sequence[str], what: str) -> tuple[Callable, Callable, Callable]:
  """-> init, forward, carry of an encoder that makes a vector of each text of a row.

  forward's outputs: vectors float32 [batch, texts, dim], not of unit length; weight [batch]; and of the batch score,
  present and text_ids, where it has them.

  Args:
    model: (tokens, valid=, train=) -> {"hidden" [rows, length, dim]}, or "encoded", as T5's encoder.
    pooling: names of `zoo.pooling.POOLS`, whose results are joined.
    what: the objective, for messages.
  """
  unknown = [mode for mode in pooling if mode not in POOLS]
  if unknown or not pooling:
    near = did_you_mean(str(unknown[0]), POOLS) if unknown else ""
    raise UserError(f"{what}: pooling is {list(pooling)}.{near} It may have: {', '.join(POOLS)}.")

  def arguments(batch: dict) -> tuple[list, dict]:
    check_batch(batch, what, "tokens")
    tokens = batch["tokens"]
    if tokens.ndim != 3:
      raise UserError(f"{what} needs several texts per example, not {tokens.shape}. Use the data compared_texts.")
    flat = {name: x.reshape(-1, x.shape[-1]) for name, x in batch.items() if name in ("tokens", "valid")}
    return [flat.pop("tokens")], text_options(model, flat)

  def forward(params: Any, batch: dict, rng: jax.Array | None = None, context: Context = NOTHING) -> dict:
    inputs, options = arguments(batch)
    outputs, carried, _ = apply_with_carry(context, model, params, *inputs, rng=rng, **options)
    states = next((name for name in ("hidden", "encoded") if isinstance(outputs, dict) and name in outputs), None)
    if states is None:
      raise UserError(f"{what} needs a model that gives hidden states. Use an encoder without a head.")
    rows, texts, length = batch["tokens"].shape
    valid = batch["valid"].reshape(-1, length) if "valid" in batch else jnp.ones(inputs[0].shape, bool)
    vectors = pool(pooling, outputs[states].astype(jnp.float32), valid, valid)
    more = optional_entries(batch, "score", "present", "text_ids")
    return {"vectors": vectors.reshape(rows, texts, -1), "weight": row_weight(batch, rows), **more, **carried}

  init, carry = init_and_carry(model, arguments)
  return init, forward, carry


def unit(x: jax.Array) -> jax.Array:
  """x / max(|x|, 1e-12) along the last axis, float [..., dim] -> [..., dim], with a finite gradient at 0.

  >>> jnp.linalg.norm(unit(jnp.array([[3.0, 4.0], [0.0, 0.0]])), axis=-1).round(3).tolist()
  [1.0, 0.0]
  """
  return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), 1e-24))


def over_dims(
  loss: Callable[[jax.Array], jax.Array], dims: Sequence[int] | None, weights: Sequence[float] | None, what: str
) -> Callable[[jax.Array], jax.Array]:
  """-> f(vectors) = sum of weight * loss(the first entries), so that vectors may be cut (Matryoshka).

  https://arxiv.org/abs/2205.13147, equation 1.

  Args:
    loss: vectors [..., dim] -> float32 [].
    dims: how many first entries; None: all of them alone.
    weights: one for each of `dims`; 1 if None.
    what: the objective, for messages.

  Raises:
    UserError: dims that are no counts of entries, or repeat; as many weights as dims are not there, or one is negative.
  """
  if dims is None:
    if weights is not None:
      raise UserError(f"{what}: dim_weights is {list(weights)}, but there are no dims. Set dims, or leave it out.")
    return loss
  counts = all(isinstance(dim, int) and not isinstance(dim, bool) and dim > 0 for dim in dims)
  if not dims or not counts or len(set(dims)) < len(dims):
    raise UserError(f"{what}: dims is {list(dims)}. It must be different ints of at least 1, e.g. [384, 128, 64].")
  factors = [1.0] * len(dims) if weights is None else list(weights)
  if len(factors) != len(dims) or not all(isinstance(x, int | float) and x >= 0 for x in factors):
    raise UserError(
      f"{what}: dim_weights is {factors}. It must be {len(dims)} numbers of at least 0, one for each dim."
    )

  def total(vectors: jax.Array) -> jax.Array:
    if max(dims) > vectors.shape[-1]:
      raise UserError(f"{what}: dims is {list(dims)}, but vectors have {vectors.shape[-1]} entries. Leave out larger.")
    return jnp.stack([factor * loss(vectors[..., :dim]) for dim, factor in zip(dims, factors, strict=True)]).sum()

  return total
