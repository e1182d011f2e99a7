"""The interface of objectives, and exact gradient accumulation for all of them.

An objective has two parts: `forward` treats each row separately, `reduce` combines rows (a mean, a contrast of all
pairs). That split makes gradient accumulation exact for every objective.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from zoo.errors import UserError
from zoo.tree import path_name, row_axis, variables

Batch = Mapping[str, jax.Array]
# Linen collections carried across batches: {"shared": ..., "rows": ...}, each only if there is any.
Carry = Mapping[str, Mapping[str, Any]]
SHARED, ROWS = "shared", "rows"
REGIONS = ("regions", "regions_valid", "region_segments", "alignment")  # Entries for `zoo.models.visual_bert`.


class Context(NamedTuple):
  """Inputs of a step besides parameters, batch and key.

  Attributes:
    step: int32 [], the number of completed steps, for losses that change during training.
    frozen: name -> parameters of a frozen model: a teacher, a reference.
    carry: the collections carried over from the previous batch, named by the model's `carries`: "shared" by all rows
      (statistics, a codebook), or of "rows", every array with a batch axis (a memory): its first, or in scanned
      layers its second, see `zoo.tree.row_axis`.
  """

  step: Any = 0
  frozen: Mapping[str, Any] = {}
  carry: Carry = {}


NOTHING = Context()


def nothing_carried(rng: jax.Array, batch: Batch) -> Carry:
  """Returns {} for any key and batch: most models have no mutable collections."""
  return {}


def unchanged(batch: Batch, rng: jax.Array | None = None) -> Batch:
  """Returns the batch, arrays [batch, ...]: most objectives draw nothing at random."""
  return batch


class Objective(NamedTuple):
  """Pure functions that define a training loss. With an `rng` they train; without it they are deterministic.

  Attributes:
    init: (rng, batch) -> params.
    forward: (params, batch, rng=None, context=NOTHING) -> dict of arrays with leading axis batch, and "carry", as in
      `Context`, if the model carries collections on to the next batch.
    reduce: (outputs of forward without "carry") -> (loss float32 [], metrics dict of float32 []).
    prepare: (batch, rng=None) -> batch with random draws per row (BERT's masking). `forward` calls it if the batch has
      not been prepared; accumulation calls it once for the full batch, so that the draws do not depend on it.
    carry: (rng, batch) -> the carry of the first batch, for as many rows.
    penalty: (params, context) -> (loss float32 [], metrics) from the parameters alone, added to that of the batch.
    collect: (params, batch, rng, context) -> the batch to train on: samples from the current model. It is run
      before the step, as a separate program that is not differentiated.
  """

  init: Callable[..., Any]
  forward: Callable[..., dict[str, Any]]
  reduce: Callable[[dict[str, jax.Array]], tuple[jax.Array, dict[str, jax.Array]]]
  prepare: Callable[..., Batch] = unchanged
  carry: Callable[..., Carry] = nothing_carried
  penalty: Callable[..., tuple[jax.Array, dict[str, jax.Array]]] | None = None
  collect: Callable[..., Batch] | None = None

  def loss(
    self, params: Any, batch: Batch, rng: jax.Array | None = None, context: Context = NOTHING
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Loss of a batch -> (loss float32 [], metrics)."""
    loss, (metrics, _) = self.loss_and_carry(params, batch, rng, context)
    return loss, metrics

  def loss_and_carry(
    self, params: Any, batch: Batch, rng: jax.Array | None = None, context: Context = NOTHING
  ) -> tuple[jax.Array, tuple[dict[str, jax.Array], Carry]]:
    """Loss of a batch -> (loss float32 [], (metrics, carry for the next batch))."""
    outputs, carry = without_carry(self.forward(params, batch, rng, context))
    loss, metrics = self.reduce(outputs)
    more, penalties = (0.0, {}) if self.penalty is None else self.penalty(params, context)
    return loss + more, ({**metrics, **penalties}, carry)


def apply(model: Any, params: Any, *inputs: Any, rng: jax.Array | None = None, **options: Any) -> Any:
  """The outputs of the model for arrays [batch, ...]; with an rng, a key, in training mode (dropout is on)."""
  rngs = {} if rng is None else {"dropout": rng}
  return model.apply(variables(params), *inputs, train=rng is not None, rngs=rngs, **options)


def apply_with_carry(
  context: Context,
  model: Any,
  params: Any,
  *inputs: Any,
  rng: jax.Array | None = None,
  sown: Sequence[str] = (),
  **options: Any,
) -> tuple[Any, dict[str, Any], dict[str, Any]]:
  """Applies the model, as `apply`, with its carried collections.

  Args:
    context: its `carry` is passed to the model.
    model: its `carries` names the carried collections, {collection: "shared" or "rows"}; none without the attribute.
    sown: collections that are mutable only in this call.

  Returns:
    outputs; {"carry": the new carry}, or {} if nothing is carried; and the collections `sown`.
  """
  carries = getattr(model, "carries", {})
  mutable = [*carries, *sown]
  if not mutable:
    return apply(model, params, *inputs, rng=rng, **options), {}, {}
  collections_in = variables(params)
  for collections in context.carry.values():
    collections_in |= collections
  outputs, state = apply(model, collections_in, *inputs, rng=rng, mutable=mutable, **options)
  carry = by_kind(carries, state)
  return outputs, {"carry": carry} if carry else {}, {name: state[name] for name in sown if name in state}


def by_kind(carries: Mapping[str, str], collections: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
  """Groups carried collections by kind, as in `Context`: {"shared": {collection: ...}, "rows": ...}."""
  kinds: dict[str, dict[str, Any]] = {}
  for collection, kind in carries.items():
    if collection in collections:
      kinds.setdefault(kind, {})[collection] = collections[collection]
  return kinds


def init_and_carry(model: Any, arguments: Callable[[dict], tuple[list, dict]]) -> tuple[Callable, Callable]:
  """-> `init` and `carry` of an objective.

  Args:
    model: of the zoo.
    arguments: batch -> the model's arguments: inputs, and keywords. UserError for a batch that lacks some.
  """

  def init(rng: jax.Array, batch: Batch) -> Any:
    inputs, options = arguments(jax.tree.map(lambda x: x[:1], dict(batch)))
    return model.init(rng, *inputs, **options)["params"]

  def carry(rng: jax.Array, batch: Batch) -> Carry:
    carries = getattr(model, "carries", {})
    if not carries:
      return {}
    inputs, options = arguments(dict(batch))
    carried = by_kind(carries, model.init(rng, *inputs, **options))
    if ROWS in carried and "tokens" in batch and "continues" not in batch:
      raise UserError(
        f"The model carries {' and '.join(carried[ROWS])} from batch to batch, and rows of these data do not continue. "
        "Use the pipeline contiguous, or build the model without it."
      )
    return carried

  return init, carry


def without_carry(outputs: Mapping[str, Any]) -> tuple[dict[str, jax.Array], Carry]:
  """Splits the outputs of `forward` -> its arrays [batch, ...], and the carry, {} if there is none."""
  return {name: x for name, x in outputs.items() if name != "carry"}, outputs.get("carry", {})


def optional_entries(batch: Batch, *keys: str) -> dict[str, jax.Array]:
  """Those of the entries `keys` that the batch has: name -> array [batch, ...]"""
  return {key: batch[key] for key in keys if key in batch}


def check_batch(batch: Batch, what: str, *keys: str) -> None:
  """UserError for a batch that lacks one of `keys`, which the objective `what` needs."""
  missing = [key for key in keys if key not in batch]
  if missing:
    raise UserError(
      f"{what} needs {' and '.join(missing)} in a batch, the data have {', '.join(batch)}. Choose other data or "
      f"another objective."
    )


def output(outputs: Any, name: str, what: str, way_out: str) -> jax.Array:
  """The model's output `name`, float32; UserError for a model without it."""
  if not isinstance(outputs, Mapping) or name not in outputs:
    names = ", ".join(outputs) if isinstance(outputs, Mapping) else "logits of the next token"
    raise UserError(f"{what} needs a model with the output {name}, this one returns {names}. {way_out}")
  return outputs[name].astype(jnp.float32)


def row_weight(batch: Batch, rows: int) -> jax.Array:
  """Weights of rows, float32 [batch]: `batch["weight"]`, 0 for padding rows; ones by default."""
  return batch["weight"].astype(jnp.float32) if "weight" in batch else jnp.ones(rows, jnp.float32)


def ratio(total: jax.Array, count: jax.Array) -> jax.Array:
  """sum(total) / sum(count), a float32 scalar, or 0 if the count is 0; arrays of any shape."""
  count = count.sum()
  return total.sum() / jnp.where(count > 0, count, 1)


def value_and_grad(objective: Objective, accumulate: int = 1) -> Callable:
  """Loss and gradient of a batch, computed in `accumulate` parts.

  The gradient is that of the full batch, even when `reduce` compares all rows with each other. It takes two passes
  (GradCache, https://arxiv.org/abs/2101.06983): the outputs of all parts, then the gradient of `reduce` with respect to
  them, then part by part the gradient of `forward`, pulled back from there. A loss that is a sum over rows divided by a
  count has a gradient that does not depend on the model's outputs: then the first pass is unused, and XLA
  removes it. Dropout differs from that of the full batch: every part draws its own masks, the same in both passes.

  Part i takes the rows i, i + accumulate, ...: if a batch is sharded, every device holds rows of every part, so
  all are busy and no row moves. Carried rows go with their part; shared carry goes from part to part, the same in both
  passes, and no gradient flows through either from one part, or batch, to another.

  Returns:
    f(params, batch, rng=None, context=NOTHING) -> ((loss, (metrics, carry)), grads)

  Raises:
    UserError: `accumulate` is below 1 or does not divide the batch.
  """
  if isinstance(accumulate, bool) or not isinstance(accumulate, int) or accumulate < 1:
    raise UserError(f"accumulate is {accumulate!r}. It must be an int of at least 1: the number of parts of a batch.")
  if accumulate == 1:
    return jax.value_and_grad(objective.loss_and_carry, has_aux=True)

  def whole_batch(params: Any, batch: Batch, rng: jax.Array | None = None, context: Context = NOTHING) -> tuple:
    parts = split_rows(objective.prepare(batch, rng), accumulate)
    index = jnp.arange(accumulate)
    memory = split_rows(context.carry.get(ROWS, {}), accumulate)

    def forward(params: Any, shared: Any, i: jax.Array, part: Batch, memory: Any) -> tuple[dict, tuple[dict, Any, Any]]:
      carry = {kind: x for kind, x in ((SHARED, shared), (ROWS, memory)) if x}
      key = None if rng is None else jax.random.fold_in(rng, i)
      outputs, carry = without_carry(objective.forward(params, part, key, context._replace(carry=carry)))
      floats = {name: x for name, x in outputs.items() if jnp.issubdtype(x.dtype, jnp.floating)}
      others = {name: x for name, x in outputs.items() if name not in floats}
      return floats, (others, carry.get(SHARED, {}), carry.get(ROWS, {}))

    def loss(floats: dict, others: dict) -> tuple:
      return objective.reduce(join_rows({**floats, **others}))

    def first_pass(shared: Any, part: tuple) -> tuple[Any, tuple]:
      floats, (others, shared, _) = forward(params, shared, *part)
      return shared, (floats, others)

    begin = context.carry.get(SHARED, {})
    _, first = jax.lax.scan(first_pass, begin, (index, parts, memory))
    cotangents, _ = jax.grad(loss, has_aux=True)(*first)

    def add_part(state: tuple, part: tuple) -> tuple[tuple, tuple]:
      (grads, shared), (*inputs, cotangent) = state, part
      floats, pull, (others, shared, memory) = jax.vjp(lambda p: forward(p, shared, *inputs), params, has_aux=True)
      return (jax.tree.map(jnp.add, grads, pull(cotangent)[0]), shared), (floats, others, memory)

    zeros = jax.tree.map(jnp.zeros_like, params)
    (grads, shared), (*outputs, memory) = jax.lax.scan(add_part, (zeros, begin), (index, parts, memory, cotangents))
    value, metrics = loss(*outputs)
    if objective.penalty is not None:
      (more, penalties), penalty_grads = jax.value_and_grad(objective.penalty, has_aux=True)(params, context)
      value, metrics, grads = value + more, {**metrics, **penalties}, jax.tree.map(jnp.add, grads, penalty_grads)
    carry = {kind: x for kind, x in ((SHARED, shared), (ROWS, join_rows(memory))) if x}
    return (value, (metrics, carry)), grads

  return whole_batch


def check_parts(parts: int, rows: int) -> None:
  """UserError if a batch does not divide into so many equal parts."""
  if rows % parts:
    raise UserError(f"accumulate {parts} does not divide the batch of {rows} rows. Change accumulate or batch_size.")


def split_rows(batch: Any, parts: int) -> Any:
  """Splits rows into parts: [batch, ...] -> [parts, batch / parts, ...]; part i has the rows i, i + parts, ...

  For carries of scanned layers: [depth, batch, ...] -> [parts, depth, batch / parts, ...]
  """

  def split(path: tuple, x: jax.Array) -> jax.Array:
    axis = row_axis(path_name(path))
    rows = x.shape[axis]
    check_parts(parts, rows)
    return jnp.moveaxis(x.reshape(*x.shape[:axis], rows // parts, parts, *x.shape[axis + 1 :]), axis + 1, 0)

  return jax.tree_util.tree_map_with_path(split, batch)


def join_rows(parts: Any) -> Any:
  """Inverse of `split_rows`: [parts, batch / parts, ...] -> [batch, ...]."""

  def join(path: tuple, x: jax.Array) -> jax.Array:
    axis = row_axis(path_name(path))
    x = jnp.moveaxis(x, 0, axis + 1)
    return x.reshape(*x.shape[:axis], x.shape[axis] * x.shape[axis + 1], *x.shape[axis + 2 :])

  return jax.tree_util.tree_map_with_path(join, parts)
