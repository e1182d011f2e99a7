"""What an objective is, and its gradient over a batch that is too large to go through the model at once.

An objective is split where the batch is summed up: `forward` treats every row for itself, `reduce` looks across rows (a
mean, a contrast of all pairs). That split is what makes gradient accumulation exact for every objective.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from zoo.errors import UserError

Batch = Mapping[str, jax.Array]


def unchanged(batch: Batch, rng: jax.Array | None = None) -> Batch:
  """The batch as it is: most objectives have nothing to draw before the model sees it."""
  return batch


class Objective(NamedTuple):
  """Pure functions that say what a model should learn. An `rng` means training; without it all is deterministic.

  Attributes:
    init: (rng, batch) -> params.
    forward: (params, batch, rng=None) -> dict of arrays, every one with the leading axis batch.
    reduce: (outputs of forward) -> (loss float32 [], metrics dict of float32 []).
    prepare: (batch, rng=None) -> batch with what is drawn at random per row (BERT's masking). `forward` calls it when
      the batch has not been prepared; accumulation calls it once for the whole batch, so the draw is the big batch's.
  """

  init: Callable[..., Any]
  forward: Callable[..., dict[str, jax.Array]]
  reduce: Callable[[dict[str, jax.Array]], tuple[jax.Array, dict[str, jax.Array]]]
  prepare: Callable[..., Batch] = unchanged

  def loss(self, params: Any, batch: Batch, rng: jax.Array | None = None) -> tuple[jax.Array, dict[str, jax.Array]]:
    """-> (loss float32 [], metrics) of a batch."""
    return self.reduce(self.forward(params, batch, rng))


def apply(model: Any, params: Any, *inputs: Any, rng: jax.Array | None = None, **options: Any) -> Any:
  """The model's outputs; trains (dropout is on) if there is an rng."""
  rngs = {} if rng is None else {"dropout": rng}
  return model.apply({"params": params}, *inputs, train=rng is not None, rngs=rngs, **options)


def present(batch: Batch, *keys: str) -> dict[str, jax.Array]:
  """Those of `keys` that the batch has."""
  return {key: batch[key] for key in keys if key in batch}


def check_batch(batch: Batch, what: str, *keys: str) -> None:
  """Refuses a batch without all of `keys`, which the objective `what` needs."""
  missing = [key for key in keys if key not in batch]
  if missing:
    raise UserError(
      f"{what} needs {' and '.join(missing)} in a batch, the data gives {', '.join(batch)}. Choose other data or "
      f"another objective."
    )


def output(found: Any, name: str, what: str, way_out: str) -> jax.Array:
  """The model's output `name`, float32; refuses a model that has none."""
  if not isinstance(found, Mapping) or name not in found:
    given = ", ".join(found) if isinstance(found, Mapping) else "logits of the next token"
    raise UserError(f"{what} needs a model that gives {name}, this one gives {given}. {way_out}")
  return found[name].astype(jnp.float32)


def row_weight(batch: Batch, rows: int) -> jax.Array:
  """float32 [batch]: `batch["weight"]`, 0 for rows that only fill up a batch; ones where the batch has none."""
  return batch["weight"].astype(jnp.float32) if "weight" in batch else jnp.ones(rows, jnp.float32)


def ratio(total: jax.Array, count: jax.Array) -> jax.Array:
  """sum(total) / sum(count), and 0 if there is nothing to count."""
  count = count.sum()
  return total.sum() / jnp.where(count > 0, count, 1)


def value_and_grad(objective: Objective, accumulate: int = 1) -> Callable:
  """-> f(params, batch, rng=None) -> ((loss, metrics), grads), the batch in `accumulate` parts, one after another.

  The gradient is that of the whole batch, also when `reduce` compares all rows with each other. It takes two passes
  (GradCache, https://arxiv.org/abs/2101.06983): the outputs of all parts, then the gradient of `reduce` with respect to
  them, then part by part the gradient of `forward`, pulled back from there. A loss that is a sum over rows divided by a
  count has a gradient that does not depend on the model's outputs: then nothing of the first pass is used, and XLA
  removes it. Dropout differs from that of the whole batch: every part draws its own, the same in both passes.

  Part i takes the rows i, i + accumulate, ...: of a batch spread over devices every device holds rows of every part, so
  all are busy and no row moves.

  Raises:
    UserError: `accumulate` is below 1 or does not divide the batch.
  """
  if isinstance(accumulate, bool) or not isinstance(accumulate, int) or accumulate < 1:
    raise UserError(
      f"accumulate is {accumulate!r}. It must be a whole number, 1 or more: how many parts a batch is cut into."
    )
  if accumulate == 1:
    return jax.value_and_grad(objective.loss, has_aux=True)

  def whole_batch(params: Any, batch: Batch, rng: jax.Array | None = None) -> tuple:
    parts = split_rows(objective.prepare(batch, rng), accumulate)
    index = jnp.arange(accumulate)

    def forward(params: Any, i: jax.Array, part: Batch) -> tuple[dict, dict]:
      outputs = objective.forward(params, part, None if rng is None else jax.random.fold_in(rng, i))
      floats = {name: x for name, x in outputs.items() if jnp.issubdtype(x.dtype, jnp.floating)}
      return floats, {name: x for name, x in outputs.items() if name not in floats}

    def loss(floats: dict, others: dict) -> tuple:
      return objective.reduce(join_rows({**floats, **others}))

    first = jax.lax.map(lambda part: forward(params, *part), (index, parts))
    cotangents, _ = jax.grad(loss, has_aux=True)(*first)

    def add_part(grads: Any, part: tuple) -> tuple[Any, tuple]:
      i, batch, cotangent = part
      floats, pull, others = jax.vjp(lambda p: forward(p, i, batch), params, has_aux=True)
      return jax.tree.map(jnp.add, grads, pull(cotangent)[0]), (floats, others)

    zeros = jax.tree.map(jnp.zeros_like, params)
    grads, outputs = jax.lax.scan(add_part, zeros, (index, parts, cotangents))
    return loss(*outputs), grads

  return whole_batch


def check_parts(parts: int, rows: int) -> None:
  """Raises a UserError where a batch of so many rows cannot be cut into so many parts of one size."""
  if rows % parts:
    raise UserError(f"accumulate {parts} does not divide the batch of {rows} rows. Change accumulate or batch_size.")


def split_rows(batch: Any, parts: int) -> Any:
  """[batch, ...] -> [parts, batch / parts, ...]: part i holds the rows i, i + parts, i + 2 parts, ..."""

  def split(x: jax.Array) -> jax.Array:
    check_parts(parts, x.shape[0])
    return x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)

  return jax.tree.map(split, batch)


def join_rows(parts: Any) -> Any:
  """The reverse of `split_rows`: [parts, batch / parts, ...] -> [batch, ...]."""
  return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(x.shape[0] * x.shape[1], *x.shape[2:]), parts)
