"""Builds models by family name. By convention `zoo/models/gpt.py` has `gpt(**sizes)`, VARIANTS, PARAMETERS and PAPER.

If variants have their own papers it also has PAPERS: prefix of the variants' names -> paper.
"""

import fnmatch
import functools
import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax

from zoo.config import families, registry
from zoo.config.registry import check_options, lookup, names, parameters_of
from zoo.errors import MISTAKES, UserError, did_you_mean, shown
from zoo.layers.compute import Compute
from zoo.layers.stack import unstack_layers
from zoo.preprocessing import check as check_preprocessing
from zoo.tree import variables

DEEPEST = 10_000  # Of a model.


def build(family: str, variant: str | None = None, *, preprocessing: Mapping[str, Any] | None = None, **sizes: Any):
  """Builds a model of a family, with the sizes of a published variant, with your own, or with both.

  Args:
    family: a file of zoo/models, e.g. "gpt".
    variant: a key of its VARIANTS, e.g. "gpt2".
    preprocessing: how images, sounds and texts become its inputs, see `zoo.preprocessing`; computes nothing.
    **sizes: arguments of the family's function; they override the variant's. One that is a model is a mapping with its
      family, variant and sizes; it is computed as the whole is, unless it says otherwise.

  Returns:
    a Flax module; its `spec` is {"family", "variant", **sizes} as given here, and it carries `preprocessing`.

  >>> import jax.numpy as jnp
  >>> import zoo
  >>> model = zoo.build("gpt", "gpt2", depth=2)  # GPT-2 with two layers
  >>> model.spec
  {'family': 'gpt', 'variant': 'gpt2', 'depth': 2}
  >>> tiny = zoo.build("gpt", vocab_size=7, max_length=8, dim=8, depth=1, num_heads=2)
  >>> params = tiny.init(jax.random.key(0), jnp.zeros((1, 8), int))["params"]
  >>> tiny.apply({"params": params}, jnp.array([[1, 2, 3]])).shape
  (1, 3, 7)
  """
  factory = lookup("models", family)
  variants = families.variants(family)
  if variant is not None and (not isinstance(variant, str) or variant not in variants):
    near = did_you_mean(str(variant), variants)
    raise UserError(f"{family} has no variant {shown(str(variant))}.{near} It has: {', '.join(variants)}.")
  all_sizes = {**variants.get(variant, {}), **sizes}
  check_options(factory, all_sizes, family)
  _check_sizes(factory, all_sizes, family)
  try:
    model = factory(**all_sizes | families.parts(family, factory, all_sizes, Compute.__annotations__, build))
  except UserError:
    raise
  except MISTAKES as error:
    raise UserError(f"{family}: {error}") from error
  if not hasattr(model, "spec_json"):
    what = f"zoo/models/{family}.py: {family} returned {shown(type(model).__name__)}"
    raise UserError(f"{what}. It must return a Model of zoo/models/model.py.")
  spec = {"family": family, "variant": variant, **sizes}
  return model.clone(
    spec_json=json.dumps(spec), preprocessing_json=json.dumps(check_preprocessing(preprocessing or {}))
  )


def build_objective(name: str, model: Any, *, frozen: Mapping[str, Any] | None = None, **options: Any) -> Any:
  """Builds an objective by name, as from a config's section `{"name": name, **options}`, for your own training loop.

  >>> model = build("gpt", vocab_size=11, max_length=8, dim=6, depth=1, num_heads=2)
  >>> objective = build_objective("causal_lm", model)
  >>> batch = {"tokens": jax.numpy.zeros((2, 8), "int32")}
  >>> loss, metrics = objective.loss(objective.init(jax.random.key(0), batch), batch)
  >>> loss.shape
  ()

  Args:
    name: a file of zoo/objectives, e.g. "causal_lm".
    model: from `build` or `zoo.load`.
    frozen: models that are not trained, by name, for objectives with some: {"teacher": model} of `distill`. Their
      parameters are passed to its loss: `zoo.objectives.objective.Context(frozen={"teacher": params})`.
    **options: arguments of the objective's function.

  Returns:
    an `Objective`, whose `loss(params, batch, rng=None)` is a float32 scalar and a dict of metrics.

  Raises:
    UserError: there is no such objective, it takes no such option, or the model cannot be trained with it.
  """
  return registry.build("objectives", {"name": name, **options}, model, offers={"frozen": dict(frozen or {})})


def _check_sizes(factory: Any, sizes: Mapping[str, Any], family: str) -> None:
  """UserError for sizes that are too large, which for depths is far below 2**31, not finite, or out of range."""
  for name, number in _numbers(sizes):
    if isinstance(number, float) and not math.isfinite(number):
      raise UserError(f"{family}.{name} is {number}. It must be a finite number.")
    size = name.rpartition(".")[2]
    if size == "epsilon" and number < 0 or size.endswith("theta") and number <= 0:
      raise UserError(f"{family}.{name} is {number}. It must be {'at least' if size == 'epsilon' else 'above'} 0.")
  for name, parameter in parameters_of(factory).items():
    largest = DEEPEST if name.endswith("depth") else 2**31 - 1
    if parameter.annotation in (int, int | None) and isinstance(sizes.get(name), int) and sizes[name] > largest:
      raise UserError(f"{family}.{name} is {shown(sizes[name])}. It must be at most {largest}.")


def _numbers(sizes: Any, name: str = "") -> Iterator[tuple[str, int | float]]:
  """(name, value) of every number in sizes, including lists and sections."""
  if isinstance(sizes, int | float):
    yield name, sizes
  entries = sizes.items() if isinstance(sizes, Mapping) else enumerate(sizes) if isinstance(sizes, list | tuple) else ()
  for key, value in entries:
    yield from _numbers(value, f"{name}.{key}" if name else str(key))


def check_fits(model, info: Mapping[str, Any], *, trained: bool = False) -> None:
  """UserError if data have more tokens or classes than a model: JAX would silently clip them.

  Args:
    model: from `build`.
    info: of the data's records; its entries "vocab_size" and "num_classes" are checked, "class_names" named.
    trained: whether the model starts from trained weights, whose vocabulary cannot be enlarged.
  """
  for size, classes in (("vocab_size", None), ("num_classes", info.get("class_names"))):
    actual, needed = sizes_of(model).get(size, getattr(model, size, None)), info.get(size)
    if actual is not None and needed is not None and needed > actual:
      named = f" classes: {shown(', '.join(map(str, classes)))}" if classes else ""
      way_out = f"Set model.{size} to {needed} or more{', or correct data.class_names' if classes else ''}."
      if trained and size == "vocab_size":
        way_out = "Leave data.tokenizer out: init has its own."
      raise UserError(f"model.{size} is {actual}, the data have {needed}{named}. {way_out}")


def check_tokens(model: Any, batch: Mapping[str, Any], what: str) -> None:
  """UserError if a batch in host memory has tokens outside the model's vocabulary: `apply` would return NaN.

  A model only looks up the embeddings of tokens, and JAX cannot raise there: outside of the table the result is
  NaN. So code that takes tokens from outside checks them first.

  Args:
    model: from `build`, or with a `vocab_size`; others are not checked.
    batch: NumPy arrays, of which `tokens` and those whose names end in it are checked, including padding.
    what: describes the batch in messages.

  >>> import numpy as np
  >>> model = build("gpt", vocab_size=7, max_length=8, dim=8, depth=1, num_heads=2)
  >>> check_tokens(model, {"tokens": np.array([[1, 7]])}, "A row")
  Traceback (most recent call last):
  ...
  zoo.errors.UserError: A row: tokens have 7, the model's are 0 to 6. Is it another model's tokenizer?
  """
  # Tables of vectors, which no family builds, have a size; and so have models that predict tokens, which may be others.
  sizes = sizes_of(model) if "variant" in (getattr(model, "spec", None) or {}) else {}
  predicted = getattr(model, "vocab_size", None) or sizes.get("vocab_size")
  read = getattr(model, "source_vocab_size", None) or predicted
  for name, tokens in batch.items():
    size = read if name == "tokens" else predicted
    if size is None or name.rpartition("_")[2] != "tokens" or not tokens.size or tokens.dtype.kind not in "iu":
      continue
    for token in (tokens.min(), tokens.max()):
      if not 0 <= token < size:
        raise UserError(
          f"{what}: {name} have {token}, the model's are 0 to {size - 1}. Is it another model's tokenizer?"
        )


def unused_classes(model, info: Mapping[str, Any]) -> list[str]:
  """A warning if a model has more classes than the data, the rest of which would never occur; None otherwise."""
  actual, needed = sizes_of(model).get("num_classes"), info.get("num_classes")
  if actual is None or needed is None or actual <= needed:
    return []
  return [f"model.num_classes is {actual}, the data have {needed}: {actual - needed} classes are never trained."]


class Row(NamedTuple):
  """A line of `list_models`."""

  family: str
  variant: str
  parameters: int
  paper: str


class Table(list):
  """Rows that print as a table, or as one line if no variant matches `pattern`."""

  def __init__(self, rows: Iterable[Row] = (), pattern: str = "*"):
    super().__init__(rows)
    self.pattern = pattern

  def __str__(self):
    if not self:
      by_family = {family: families.variants(family) for family in names("models")}
      near = did_you_mean(self.pattern, [*by_family, *(name for variants in by_family.values() for name in variants)])
      return f"No variant matches {self.pattern!r}.{near} zoo.list_models() shows all."
    lines = [("family", "variant", "parameters", "paper")]
    lines += [(row.family, row.variant, f"{row.parameters:,}", row.paper) for row in self]
    a, b, c = (max(len(line[i]) for line in lines) for i in range(3))
    return "\n".join(f"{x:<{a}}  {y:<{b}}  {n:>{c}}  {paper}" for x, y, n, paper in lines)

  __repr__ = __str__


def list_models(pattern: str = "*") -> Table:
  """The published variants whose family, variant or "family/variant" matches `pattern` (* and ? stand for anything).

  >>> import zoo
  >>> [(row.variant, row.parameters) for row in zoo.list_models("bert/*")]
  [('base', 110106428), ('large', 336226108)]
  """
  rows = Table(pattern=pattern)
  for family in names("models"):
    for variant, parameters, paper in families.published(family):
      if any(fnmatch.fnmatch(name.lower(), pattern.lower()) for name in (family, variant, f"{family}/{variant}")):
        rows.append(Row(family, variant, parameters, paper))
  return rows


def count_parameters(model) -> int:
  """The number of parameters of a model, from shapes alone."""
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes_of(model)))


def shapes_of(model) -> Any:
  """Shapes and dtypes of a model's parameters, a tree of `jax.ShapeDtypeStruct`. Nothing is computed.

  Raises:
    UserError: sizes that do not fit each other.
  """
  return _initial_shapes(model)["params"]


def weights_of(model) -> Any:
  """Shapes of all that `save` writes: parameters, or {"params": ..., collection: ...} with shared collections.

  >>> import zoo
  >>> model = zoo.build("gpt", vocab_size=7, max_length=8, dim=8, depth=1, num_heads=2)
  >>> sorted(weights_of(model))
  ['embed', 'norm', 'positions', 'stack']
  """
  return of_collections(_initial_shapes(model), model)


def of_collections(collections: Mapping[str, Any], model: Any) -> Any:
  """Selects the collections that `save` writes: parameters, or {"params": ..., collection: ...}."""
  shared = {name: collections[name] for name, kind in model.carries.items() if kind == "shared" and name in collections}
  return {"params": collections["params"], **shared} if shared else collections["params"]


def merged(weights: Any) -> dict[str, Any]:
  """Merges saved collections into the parameter tree, with the names that files have."""
  whole = variables(weights)
  return {**whole.pop("params"), **whole}


def by_layer(weights: Any) -> dict[str, Any]:
  """`merged` with scanned layers unstacked, as in files."""
  whole = variables(weights)
  return merged({name: unstack_layers(tree, whole["params"]) for name, tree in whole.items()})


def split(tree: Mapping[str, Any], model: Any) -> Any:
  """Inverse of `merged`: parameters, or {"params": ..., collection: ...} for a model with saved collections."""
  shared = {name: tree[name] for name in variables(weights_of(model)) if name != "params"}
  return {"params": {name: x for name, x in tree.items() if name not in shared}, **shared} if shared else dict(tree)


def part_of(path: str, collections: Collection[str]) -> str:
  """The top-level module of an array in a file: "head" for `head/kernel` and `batch_stats/head/mean`."""
  first, _, rest = path.partition("/")
  return rest.partition("/")[0] if first in collections else first


@functools.lru_cache(maxsize=16)  # Loading calls it several times.
def _initial_shapes(model) -> Any:
  """Shapes of all variable collections that `model.init` returns.

  Raises:
    UserError: sizes that do not fit each other.
  """
  try:
    return jax.eval_shape(lambda rng: model.init(rng, *model.example()), jax.random.key(0))
  except MISTAKES as error:
    raise UserError(f"{model.spec.get('family', type(model).__name__)}: {error}") from error


def sizes_of(model) -> dict[str, Any]:
  """All arguments of the family's function that built this model: variant, overrides and defaults."""
  spec = model.spec
  if not spec:
    raise UserError(f"{type(model).__name__} does not record how it was built. Build it with zoo.build.")
  family, variant = spec.pop("family"), spec.pop("variant")
  parameters = parameters_of(lookup("models", family))
  defaults = {name: p.default for name, p in parameters.items() if p.default is not p.empty}
  return {**defaults, **families.variants(family).get(variant, {}), **spec}
