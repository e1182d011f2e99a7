"""Old modules: Linen modules with the old parameter trees that wrap models of the zoo."""

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from zoo.build import build, sizes_of
from zoo.compat.config import DEFAULTS, entries_of
from zoo.compat.core import Core, Tower, core_of
from zoo.compat.outputs import Output
from zoo.convert.rules import reference
from zoo.convert.rules.options import Options
from zoo.errors import UserError, shown
from zoo.hub import tables
from zoo.layers.functional import Functional


class Call(NamedTuple):
  """A parsed call of an old module: the model's inputs, requested outputs, and optionally another function to run."""

  inputs: dict[str, jax.Array | None]
  deterministic: bool = True
  output_attentions: bool | None = False
  output_hidden_states: bool | None = False
  return_dict: bool | None = True
  run: Callable | None = None
  towers: tuple[Tower, ...] | None = None


class OldModule(Functional):
  """A model of the zoo as an old Linen module: `apply`, `init`, `bind`, or a submodule of your own module.

  Subclasses define the model and parse the old module's arguments. A call is compiled.

  Args:
    config: a dict, a `Config` or a config of transformers.
    dtype: computation dtype.
    gradient_checkpointing: whether to rematerialise each layer in the backward pass.
    add_pooling_layer: False: without pooler.
    sizes_json: sizes of the zoo's model, if they depend on the weights; "": those of the config.

  Raises:
    UserError: an unsupported option, or parameters that are missing or misshapen.
  """

  config: Any = None
  dtype: Any = jnp.float32
  gradient_checkpointing: bool = False
  add_pooling_layer: bool = True
  sizes_json: str = ""

  FAMILY: ClassVar[str]
  HEAD: ClassVar[str | None] = None
  NAMES: ClassVar[tuple[tuple[str, str], ...]] = ()  # Torch's names -> old ones, if they differ.
  UNUSED: ClassVar[tuple[str, ...]] = ()  # Old names of arrays that only the zoo's model has.
  POOLER: ClassVar[str | None] = None  # The old name of the pooler, for `add_pooling_layer`.
  WHOLE: ClassVar[tuple[str, str] | None] = None  # A model_type with this one as a section, and the section's name.
  WITHIN: ClassVar[tuple[str, ...]] = ()  # The prefix of its tensors there.
  TRUNK: ClassVar[bool] = False  # Whether it returns hidden states instead of the zoo's logits.
  LEARNS_PAD: ClassVar[bool] = True  # False: positions are counted without padding tokens.
  TYPES: ClassVar[tuple[str, ...]] = ()  # The model_types that it reads, the first by default; (): the table's.
  SILENT: ClassVar[tuple[str, ...]] = ()  # Entries that every config of transformers 4 has, without meaning here.
  QUIET: ClassVar[tuple[str, ...]] = ()  # Torch's names of arrays that files may lack without a warning.
  TOWERS: ClassVar[tuple[Tower, ...]] = (Tower(),)
  arguments: ClassVar[Callable[..., Call]]
  run: ClassVar[Callable]

  @property
  def core(self) -> Core:
    """The model of the zoo and its functions on trees with old names."""
    kind = type(self)
    no_pooler = not self.add_pooling_layer and kind.POOLER is not None
    unused = kind.UNUSED + ((f"{kind.POOLER}/",) if no_pooler else ())
    sizes = json.dumps(self.sizes)
    remat = "full" if self.gradient_checkpointing else None
    return core_of(kind.parts, sizes, unused, jnp.dtype(self.dtype).name, remat)

  @property
  def sizes(self) -> dict[str, Any]:
    """The sizes for `parts`."""
    return json.loads(self.sizes_json) if self.sizes_json else type(self).described(entries_of(self.config))

  @property
  def towers(self) -> tuple[Tower, ...]:
    """The towers, the sources of hidden states and attentions."""
    return type(self).TOWERS

  @property
  def running(self) -> Callable:
    """The function to run: (the zoo's model, inputs, train) -> outputs under old names."""
    return type(self).run

  @classmethod
  def described(cls, entries: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes in a config, for `parts`."""
    return understood(cls, section(cls, entries, "config"), "config")

  @classmethod
  def parts(cls, sizes: Mapping[str, Any], computing: Mapping[str, Any]) -> tuple[Any, Any, tuple]:
    """The zoo's model of these sizes, its conversion table, and the mapping from torch's names to old ones."""
    # Old models trained the embedding of the padding token too.
    pad = {"pad": None} if "pad" in sizes and cls.LEARNS_PAD else {}
    model = build(cls.FAMILY, **{**sizes, **computing, **pad})
    return model.trunk() if cls.TRUNK else model, tables.of_family(cls.FAMILY), cls.NAMES

  @classmethod
  def adjusted(cls, sizes: dict[str, Any], entries: Mapping[str, Any]) -> dict[str, Any]:
    """Adjusts the sizes for parts of an old module that depend on the files."""
    return sizes

  def names(self):
    return list(dict.fromkeys(rule.theirs.partition("/")[0] for rule in self.core.rules))

  def initial(self, rng):
    return self.core.initial(rng)

  def compute(self, params, cache, rngs, args, kwargs):
    call = args[0] if args and isinstance(args[0], Call) else type(self).arguments(*args, **kwargs)
    attentions, hidden, as_output = (
      getattr(self.config, name, default) if flag is None else flag
      for (name, default), flag in zip(DEFAULTS.items(), call[2:5])
    )
    flags: dict[str, Any] = dict(train=not call.deterministic, attentions=bool(attentions), hidden=bool(hidden))
    flags |= dict(run=call.run or self.running, towers=call.towers or self.towers)
    out, cache = self.core.compiled(_plain(params), _plain(cache), rngs, call.inputs, **flags)
    if not self.add_pooling_layer and isinstance(out, Output):
      out.pop("pooler_output", None)
    return (out if as_output or not isinstance(out, Output) else out.to_tuple()), cache


def understood(
  cls: type[OldModule], entries: Mapping[str, Any], where: str, tensors: Any = None, *, may_ignore: bool = False
) -> dict[str, Any]:
  """Parses a config -> sizes of the zoo's model; `tensors` of the files for sizes that a config does not have.

  may_ignore: whether the user can pass `ignore`, so that messages may suggest it.
  """
  table = tables.of_family(cls.FAMILY)
  defaults = reference.of(entries.get("model_type") or table.MODEL_TYPES[0])
  options = Options(
    _spoken(entries, cls.SILENT), where, len(tensors) if tensors else None, reference=defaults, may_ignore=may_ignore
  )
  sizes = table.sizes(options, cls.HEAD, tensors or {})
  options.done()
  return cls.adjusted(sizes_of(build(cls.FAMILY, **sizes)), entries)


def _spoken(entries: Mapping[str, Any], silent: Collection[str]) -> dict[str, Any]:
  """The entries, including sections, without the defaults of transformers 4 for all models."""
  return {
    name: _spoken(value, silent) if isinstance(value, Mapping) and name.endswith("_config") else value
    for name, value in entries.items()
    if name not in silent and (name, value) != ("tie_encoder_decoder", False)
  }


def section(cls: type[OldModule], entries: Mapping[str, Any], where: str, who: str = "") -> dict[str, Any]:
  """The section of a config for a model of this class, which may be part of a larger model.

  Raises:
    UserError: it has another model_type.
  """
  kinds = cls.TYPES or tables.of_family(cls.FAMILY).MODEL_TYPES
  kind = entries.get("model_type") or kinds[0]
  if cls.WHOLE is not None and kind == cls.WHOLE[0]:
    projection = {"projection_dim": entries["projection_dim"]} if "projection_dim" in entries else {}
    return {**entries.get(cls.WHOLE[1], {}), **projection, "model_type": kinds[0]}
  if kind not in kinds:
    raise UserError(f"{where}: model_type is {shown(kind)}. {who or cls.__name__} reads: {', '.join(kinds)}.")
  return {**entries, "model_type": kind}


def token_inputs(input_ids: Any, attention_mask: Any, position_ids: Any) -> dict[str, jax.Array | None]:
  """Converts old text inputs to the zoo's: int32 tokens, bool valid, int32 positions."""
  tokens = jnp.asarray(input_ids, jnp.int32)
  valid = None if attention_mask is None else jnp.asarray(attention_mask) > 0
  positions = None if position_ids is None else jnp.atleast_2d(jnp.asarray(position_ids, jnp.int32))
  return {"tokens": tokens, "valid": valid, "positions": positions}


def refuse(**arguments: Any) -> None:
  """UserError for old arguments that are set but not supported."""
  for name, value in arguments.items():
    if value is not None and value is not False:
      raise UserError(f"{name} is {shown(value, 40)}, which the zoo's models do not have. Leave it out.")


def _plain(tree: Any) -> Any:
  """Converts nested mappings of any type to dicts."""
  return {name: _plain(branch) for name, branch in tree.items()} if isinstance(tree, Mapping) else tree
