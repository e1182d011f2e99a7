"""Log-likelihoods of target tokens summed over rows, optionally in chunks that never hold all logits.

The logits of a batch are its largest array: 64 rows of 1,024 tokens and a vocabulary of 50,257 take 13 GB, and their
gradient as much. In chunks, a part of every row at a time, they are computed, summed and freed, and recomputed in
the backward pass.

If the vocabulary is sharded over devices, as an embedding table may be, logits stay sharded: XLA fetches no more than
one or two values per token from every device.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from zoo.errors import UserError, family_of
from zoo.objectives.row_sharding import axes_of, num_row_shards

Sums = Callable[[jax.Array, jax.Array, jax.Array], dict[str, jax.Array]]


def likelihood(logits: jax.Array, target: jax.Array, counts: jax.Array) -> dict[str, jax.Array]:
  """-log p(target), and whether the target is the likeliest token, both summed over each row.

  Args:
    logits: [batch, length, vocab_size].
    target: int [batch, length].
    counts: float32 [batch, length], the weight of each token.

  Returns:
    nll, correct: float32 [batch].
  """
  logits = logits.astype(jnp.float32)
  nll = optax.softmax_cross_entropy_with_integer_labels(logits, target)
  correct = logits.argmax(-1) == target
  return {"nll": (nll * counts).sum(-1), "correct": (correct * counts).sum(-1)}


def check_chunk(model: Any, what: str, chunk: int | None) -> None:
  """UserError for a chunk below 1, or a model without a `trunk`."""
  if chunk is None:
    return
  if chunk < 1:
    raise UserError(
      f"{what}.chunk is {chunk}. It must be 1 or more: the number of tokens whose logits exist at a time."
    )
  if getattr(model, "trunk", lambda: None)() is None:
    raise UserError(
      f"{what}.chunk needs a model that predicts tokens, {family_of(model)} does not. Choose another model.head."
    )


def in_chunks(
  sums: Sums,
  model: Any,
  params: Any,
  x: jax.Array,
  target: jax.Array,
  counts: jax.Array,
  chunk: int,
  by_row: NamedSharding | None = None,
) -> dict[str, jax.Array]:
  """`sums` of the logits `model.to_logits(x)`, a part of every row at a time.

  Every device works on its own rows, so all are busy and no row moves; gradients of parameters are summed
  over devices once, at the end.

  Args:
    sums: as `likelihood`.
    x: [batch, length, dim], of `model.trunk()`.
    target, counts: [batch, length].
    chunk: number of tokens, over all devices, whose logits are in memory at a time; at least one per row.
    by_row: sharding of the rows of a batch; None: XLA decides.

  Returns:
    the results of `sums`, [batch].
  """
  rows, length = target.shape
  width = min(max(chunk // rows, 1), length)
  parts = -(-length // width)

  def split(x: jax.Array) -> jax.Array:
    x = jnp.pad(x, [(0, 0), (0, parts * width - length), *[(0, 0)] * (x.ndim - 2)])
    return jnp.moveaxis(x.reshape(len(x), parts, width, *x.shape[2:]), 1, 0)

  def summed(params: Any, *rows: jax.Array) -> dict[str, jax.Array]:
    def part(x: jax.Array, target: jax.Array, counts: jax.Array) -> dict[str, jax.Array]:
      return sums(model.apply({"params": params}, x, method="to_logits"), target, counts)

    def add(total: dict, columns: tuple) -> tuple[dict, None]:
      return jax.tree.map(jnp.add, total, jax.checkpoint(part, prevent_cse=False)(*columns)), None

    columns = jax.tree.map(split, rows)
    first = jax.tree.map(lambda x: x[0], columns)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(part, *first))
    return jax.lax.scan(add, zeros, columns)[0]

  axes, devices = axes_of(by_row), num_row_shards(by_row)
  if by_row is None or devices == 1 or rows % devices:
    return summed(params, x, target, counts)
  specs = P(), P(axes), P(axes), P(axes)
  options = {"in_specs": specs, "out_specs": P(axes), "axis_names": set(axes), "check_vma": False}
  return jax.shard_map(summed, mesh=by_row.mesh, **options)(params, x, target, counts)
