"""Applies a jitted function to every example of a dataset, on the devices of the parameters."""

import contextlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from zoo.build import check_tokens
from zoo.data.bad_records import BadRecord
from zoo.data.pipeline import Records, eval_batches
from zoo.errors import UserError, family_of, shown
from zoo.evaluate.model_kinds import model_kind
from zoo.layers.positions import TooLong
from zoo.objectives import classify
from zoo.objectives.objective import apply
from zoo.progress import progress
from zoo.sharding import mesh_of, put_replicated
from zoo.train.model_data import records_for

Batch = dict[str, np.ndarray]


def records_of(data: Any, model: Any = None, where: str = "data", *fields: str) -> Any:
  """Opens the records of a `data` section for a model (`zoo.train.model_data`); records pass through.

  Bad records are dropped if they are to be skipped.

  Args:
    data: a section, or records.
    model: from the zoo.
    where: name of the evaluator's section in messages.
    fields: what its examples need to have; "image or tokens" is either.

  Raises:
    UserError: the examples lack some of `fields`.
  """
  if not isinstance(data, Mapping | Records):
    raise UserError(f"data is {shown(data)}. It must be a mapping, like {{'split': 'test'}}.")
  records = records_for(model, data, where=where)
  _check_fields(records, where, fields)
  if (opened := _opened.get()) is not None:
    opened.append(records)
  return records


def _check_fields(records: Any, where: str, fields: Sequence[str]) -> None:
  """UserError unless the first example has `fields`; others are checked when they are read."""
  if not fields or not len(records):
    return
  try:
    has = records[0]
  except BadRecord:
    return
  missing = [name for name in fields if not has.keys() & set(name.split(" or "))]
  if missing:
    raise UserError(
      f"{where} needs data with {' and '.join(missing)}; these have {', '.join(has)}. Choose another data.name, or "
      "another evaluator."
    )


_opened: ContextVar[list[Any] | None] = ContextVar("opened", default=None)


@contextlib.contextmanager
def opening() -> Generator[list[Any]]:
  """Collects the records that `records_of` returns in this context, and in contexts nested in it."""
  around = _opened.get()
  before = _opened.set(opened := [])
  try:
    yield opened
  finally:
    _opened.reset(before)
    if around is not None:
      around.extend(opened)


def needs(model: Any, what: str, *methods: str) -> None:
  """UserError unless the model has the methods that the evaluator `what` calls."""
  missing = [name for name in methods if not hasattr(model, name)]
  if missing:
    raise UserError(
      f"{what} needs a model with {' and '.join(missing)}; {family_of(model)} has none. Choose e.g. clip."
    )


# Which kinds of models (`zoo.evaluate.model_kinds`) are known to have an output: others are asked.
_HAVE = {
  "logits": ("classify", "score", "classify_tokens", "multiple_choice"),
  "mlm": ("masked_token",),
  "pooled": ("encode",),
}


def needs_output(model: Any, key: str, what: str) -> None:
  """UserError unless the model, of the zoo, returns the output `key` that the evaluator `what` scores."""
  if not getattr(model, "spec", None) or model_kind(model).does in _HAVE[key]:
    return
  outputs, _ = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), *model.example()))
  _entry(outputs, key, what)


def options_of(model: Any, batch: Batch) -> dict[str, Any]:
  """Keyword inputs with the tokens of a batch: `valid`, and `segments` if the model has segment embeddings."""
  return classify.options(batch, model)


def model_output(model: Any, params: Any, batch: Batch, key: str, what: str) -> jax.Array:
  """The output `key` of an image or token model, float32. UserError if it has no such output."""
  outputs = apply(model, params, *classify.inputs(batch, model), **options_of(model, batch))
  return _entry(outputs, key, what).astype(jnp.float32)


def _entry(outputs: Any, key: str, what: str) -> Any:
  if isinstance(outputs, Mapping) and key in outputs:
    return outputs[key]
  names = ", ".join(outputs) if isinstance(outputs, Mapping) else "logits of the next token"
  raise UserError(
    f"{what} needs a model with the output {key}; this one returns {names}. Choose another model or evaluator."
  )


def outputs(
  function: Callable,
  params: Any,
  records: Any,
  batch_size: int,
  model: Any,
  *,
  trim: bool = False,
  memory: Any = None,
) -> Iterator[tuple[Batch, Batch]]:
  """Applies `function(params, batch)` to batches of all records, each exactly once, in order.

  Args:
    function: jitted; returns a dict of arrays whose leading axis is the batch. Outputs must not mix rows.
    params: the function runs on their devices; on a mesh, examples are sharded over its axis `data`.
    records: the dataset.
    batch_size: examples of every batch; the last one is padded with examples of weight 0.
    model: tokens of every batch are checked against its vocabulary.
    trim: whether columns of tokens that are padding in all rows are dropped; see `trimmed`.
    memory: initial state that is carried from batch to batch: function(params, batch, memory) -> (outputs, memory).

  Yields:
    (outputs, batch) in host memory, of equal length, without the padding of the last batch.

  Raises:
    UserError: a batch has tokens outside the model's vocabulary, or a result is NaN.
  """
  mesh = mesh_of(params)
  name = getattr(records, "name", "data")
  title = name if len(name) <= 60 else f"{name[:57]}..."  # Splits may have many slices.
  with progress(f"evaluating on {title}", len(records), "examples") as advance:
    for batch in eval_batches(records, batch_size):
      batch = trimmed(batch) if trim else batch
      arrays = {key: value for key, value in batch.items() if _numeric(value)}
      check_tokens(model, arrays, name)
      with within_length(name, getattr(records, "info", {}).get("max_length")):
        if memory is None:
          results = function(params, put(arrays, mesh))
        else:
          results, memory = function(params, put(arrays, mesh), memory)
      real = np.flatnonzero(np.asarray(batch["weight"]) > 0) if "weight" in batch else slice(None)
      fetched = {k: fetch(v)[real] for k, v in results.items()}
      check_defined(fetched, name)
      yield fetched, {k: _rows(v, real) for k, v in batch.items()}
      advance(len(real) if isinstance(real, np.ndarray) else batch_size)


def check_defined(results: Batch, what: str) -> None:
  """UserError if results of a model are NaN, of which rankings and predictions would look plausible."""
  for key, values in sorted(results.items()):
    count = int(np.isnan(values).reshape(len(values), -1).any(axis=1).sum()) if values.dtype.kind == "f" else 0
    if count:
      raise UserError(
        f"{what}: the model's {key} is nan for {count} of {len(values)} examples. Its weights are damaged, or "
        "numbers overflow in its dtype: take other weights, or float32."
      )


@contextlib.contextmanager
def within_length(what: str, max_length: int | None) -> Generator[None]:
  """Context that turns a model's `TooLong` into a UserError which says to what to lower the `max_length` of rows.

  >>> from zoo.layers.positions import TooLong
  >>> with within_length("jsonl:my.jsonl", 100):
  ...   raise TooLong("Learned", 99, 16)
  Traceback (most recent call last):
  ...
  zoo.errors.UserError: jsonl:my.jsonl: rows of 99 tokens exceed the model's max_length 16. Lower max_length to 17.
  """
  try:
    yield
  except TooLong as error:
    fits = (max_length or 0) - (error.length - error.max_length)  # Rows of a language model have one token more.
    way_out = f"Lower max_length to {fits}." if fits > 0 else "Lower max_length."
    raise UserError(
      f"{what}: rows of {error.length} tokens exceed the model's max_length {error.max_length}. {way_out}"
    ) from error


def trimmed(batch: Batch) -> Batch:
  """Drops columns of tokens that are padding in every row, down to 16, 32, 64 ... columns.

  So few programs are compiled, and short texts are not computed at the model's full length.

  Args:
    batch: with `valid`, bool [..., length]; arrays of that shape are all trimmed.
  """
  valid = batch.get("valid")
  if valid is None:
    return batch
  real = np.flatnonzero(valid.reshape(-1, valid.shape[-1]).any(axis=0))
  first, last = (int(real[0]), int(real[-1]) + 1) if len(real) else (0, 1)
  width = lambda count: min(max(16, 1 << (count - 1).bit_length()), valid.shape[-1])
  left = first > 0 and last == valid.shape[-1]  # Padding is on the left.
  cut = slice(valid.shape[-1] - width(last - first), None) if left else slice(width(last))
  return {name: x[..., cut] if np.shape(x) == valid.shape else x for name, x in batch.items()}


def _rows(value: Any, real: Any) -> Any:
  return {k: x[real] for k, x in value.items()} if isinstance(value, dict) else np.asarray(value)[real]


def _numeric(value: Any) -> bool:
  """Whether a value can be put on a device: a numeric array, or a dict of them."""
  return all(np.asarray(x).dtype.kind in "biuf" for x in (value.values() if isinstance(value, dict) else [value]))


def put(batch: Batch, mesh: Mesh | None) -> dict[str, Any]:
  """Puts a batch, the same on every host, on the devices: sharded along the batch if it divides, else replicated."""
  return dict(batch) if mesh is None else put_replicated(batch, mesh)


def fetch(array: jax.Array) -> np.ndarray:
  """The full array in this host's memory, shape and dtype kept, gathered from other hosts if they hold parts of it."""
  if isinstance(array, jax.Array) and not array.is_fully_addressable:
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))
  return np.asarray(array)


def gather(function: Callable, params: Any, records: Any, batch_size: int, model: Any) -> Batch:
  """All outputs of `function` over the records, in order: a dict of arrays with leading axis records."""
  parts = [results for results, _ in outputs(function, params, records, batch_size, model)]
  return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
