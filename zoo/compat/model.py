"""Base class of old models whose modules are the zoo's: loading and saving in the hub's layout."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from zoo.build import sizes_of
from zoo.compat.config import DEFAULTS, Config, entries_of, merged, refuse_to_push
from zoo.compat.core import renamed
from zoo.compat.loading import old_params
from zoo.compat.module import Call, OldModule, section, understood
from zoo.compat.pretrained import FlaxPreTrainedModel, filled
from zoo.convert.rules.options import has_entry
from zoo.errors import UserError, shown
from zoo.hub import tables
from zoo.hub.files import CONFIG, open_tensors, read_json
from zoo.hub.writing import hub_tensors, write_files
from zoo.tree import flatten, unflatten

_LABELS = ("id2label", "label2id", "num_labels")


class FlaxModel(FlaxPreTrainedModel):
  """Base class of a family's old models. Subclasses set `module_class`, from `zoo.compat` or your own.

  Args:
    config: a dict, a `Config` or a config of transformers.
    input_shape: of inputs; has no effect on parameters.
    seed: of the initialisation.
    dtype: computation dtype; parameters are float32 unless they are loaded or cast (`to_bf16`).
    _do_init: False: the model keeps no parameters, and each call takes them.
    gradient_checkpointing: whether to rematerialise each layer in the backward pass.
    **kwargs: options of the module: add_pooling_layer.

  Raises:
    UserError: an unsupported option.
  """

  def __init__(
    self,
    config: Any,
    input_shape: Any = None,
    seed: int = 0,
    dtype: Any = jnp.float32,
    _do_init: bool = True,
    gradient_checkpointing: bool = False,
    **kwargs: Any,
  ):
    kind = self.module_class
    if self._is_ours():
      config, kwargs = self._prepared(config, kwargs)
    if gradient_checkpointing:
      kwargs["gradient_checkpointing"] = True
    module = kind(config=config, dtype=jnp.dtype(dtype), **kwargs)
    super().__init__(
      config, module, self._input_shape(config) if input_shape is None else input_shape, seed, dtype, _do_init
    )

  @classmethod
  def _is_ours(cls) -> bool:
    return issubclass(cls.module_class, OldModule)

  @classmethod
  def _prepared(cls, config: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The complete config, and the module's arguments."""
    kind = cls.module_class
    allowed = {"sizes_json"} | ({"add_pooling_layer"} if kind.POOLER else set())
    unknown = sorted(kwargs.keys() - allowed)
    if unknown:
      raise UserError(f"{cls.__name__}: {unknown[0]}={shown(kwargs[unknown[0]], 40)} is not an argument. Leave it out.")
    if "sizes_json" in kwargs:  # From files: all entries were interpreted.
      return config, kwargs
    entries = entries_of(config)
    if not kind.FAMILY:  # Composed of several models.
      return config, kwargs | {"sizes_json": json.dumps(kind.described(entries))}
    part = section(kind, entries, "config", cls.__name__)
    sizes = understood(kind, part, "config")
    whole = kind.WHOLE is not None and entries.get("model_type") == kind.WHOLE[0]
    config = _described(kind, sizes, part) if whole or isinstance(config, Mapping | Config) else config
    return config, kwargs | {"sizes_json": json.dumps(sizes)}

  @classmethod
  def _has_table(cls) -> bool:
    """Whether the files have a conversion table."""
    return cls._is_ours() and bool(cls.module_class.FAMILY)

  def _input_shape(self, config: Any) -> Any:
    return (1, 1)

  def _example(self, input_shape: Any) -> tuple:
    """Positional example inputs of the module, of zeros and ones."""
    raise NotImplementedError

  @classmethod
  def _front(cls, entries, name):
    whole = cls.module_class.WHOLE if cls._is_ours() else None
    inside = whole is not None and not has_entry(entries, name) and has_entry(entries.get(whole[1]), name)
    return f"{whole[1]}." if whole is not None and inside else ""

  @classmethod
  def _read(cls, folder, source, config, changes, options, replace, do_init):
    if not cls._has_table():
      return super()._read(folder, source, config, changes, options, replace, do_init)
    kind, where, tensors = cls.module_class, str(folder / CONFIG), open_tensors(folder)
    entries = read_json(folder / CONFIG) if config is None else entries_of(config)
    if kind.WHOLE is not None and entries.get("model_type") == kind.WHOLE[0]:
      tensors = tensors.only(name for name in tensors if name.startswith(kind.WITHIN))
    entries = section(kind, entries, where, cls.__name__)
    fields = {field.name for field in dataclasses.fields(kind)}
    options |= {name: changes.pop(name) for name in list(changes) if name in fields}
    sizes = understood(kind, entries, where, tensors, may_ignore=True)
    described = _described(kind, sizes, entries)
    unknown = [name for name in changes if name != "num_labels" and not hasattr(described, name)]
    if unknown:
      raise UserError(
        f"{cls.__name__}.from_pretrained: {unknown[0]}={shown(changes[unknown[0]], 40)} is neither an argument "
        "nor an entry of the config. Leave it out."
      )
    if changes:
      entries = {name: x for name, x in entries.items() if "num_labels" not in changes or name not in _LABELS} | changes
      sizes = understood(kind, entries, where, tensors, may_ignore=True)
      described = _described(kind, sizes, entries)
    described.update({"_name_or_path": source})
    keep = not (config is None or changes or isinstance(config, Mapping) or kind.WHOLE is not None)
    model = cls(config if keep else described, sizes_json=json.dumps(sizes), _do_init=False, **options)
    policy = dict(replace=replace, fill=do_init, quiet=kind.QUIET)
    params = old_params(model.module.core, tensors, str(folder), model.key, **policy)
    return model, params

  def save_pretrained(
    self,
    save_directory: str | os.PathLike,
    params: Any = None,
    push_to_hub: bool = False,
    max_shard_size: Any = None,
    token: Any = None,
    safe_serialization: bool = True,
    **kwargs: Any,
  ) -> None:
    """Writes config.json and model.safetensors, which `zoo.load` and torch transformers read.

    Args:
      save_directory: created if missing.
      params: under the old names; the model's own if None. Missing entries are missing in the file.
      push_to_hub: refused.
      max_shard_size, token, safe_serialization, **kwargs: ignored; a single file is written.

    Raises:
      UserError: parameters are misshapen, or the folder cannot be written.
    """
    if not self._has_table():
      super().save_pretrained(save_directory, params, push_to_hub)
      return self._write_more(pathlib.Path(save_directory))
    refuse_to_push(push_to_hub)
    core = self.module.core
    tree = self.params if params is None else params
    absent = core.old_shapes.keys() - flatten(tree).keys()
    if absent:
      zeros = {path: jnp.zeros(core.old_shapes[path], jnp.float32) for path in absent}
      tree = filled(tree, unflatten(zeros))
    tensors = hub_tensors(core.model, core.to_ours(tree), core.table)
    # Arrays that only the zoo's model has, and missing ones, are not written.
    left_out = {rule.ours for rule in core.rules if rule.theirs in absent} | {rule.ours for rule in core.spare}
    for name in {rule.theirs for rule in core.torch if rule.ours in left_out}:
      tensors.pop(name, None)
    # Old torch versions have the old classes' names, and new ones read both.
    tensors = {renamed(name, self.module_class.NAMES): tensor for name, tensor in tensors.items()}
    sizes, table = sizes_of(core.model), core.table
    names, own_name = table.HEADS[tables.head_of(table, sizes)], type(self).__name__.removeprefix("Flax")
    written = table.config(sizes) | {"architectures": [own_name if own_name in names else names[0]]}
    # The zoo's entries define the same model; named labels and tokens are kept.
    entries = merged(written, entries_of(self.config)) | {"architectures": written["architectures"]}
    idle = {name for name, x in DEFAULTS.items() if entries.get(name) == x} | {"dtype", "torch_dtype"}
    entries = {name: x for name, x in entries.items() if name not in idle}
    write_files(pathlib.Path(save_directory), json.loads(json.dumps(entries, default=str)), tensors)
    if jax.process_index() == 0:
      self._write_more(pathlib.Path(save_directory))

  def _write_more(self, folder: pathlib.Path) -> None:
    """Writes further files of a subclass."""

  def init_weights(
    self, rng: jax.Array, input_shape: Any = None, params: Any = None, eval_only: bool = False
  ) -> dict[str, Any]:
    """Random parameters under the old names; existing entries of `params` are kept. eval_only: their shapes."""
    if eval_only:
      return jax.eval_shape(lambda rng: self.init_weights(rng, input_shape), rng)
    example = () if self._is_ours() else self._example(self.input_shape if input_shape is None else input_shape)
    fresh = self.module.init({"params": rng, "dropout": jax.random.fold_in(rng, 1)}, *example)["params"]
    return fresh if params is None else filled(params, fresh)

  @property
  def required_params(self) -> set[tuple[str, ...]]:
    """The paths of all parameters, ("text_model", "final_layer_norm", "scale")."""
    if not self._is_ours():
      return super().required_params
    return {tuple(path.split("/")) for path in self.module.core.old_shapes}

  def enable_gradient_checkpointing(self) -> None:
    """Turns on rematerialisation of layers from now on."""
    self._module = self.module.clone(gradient_checkpointing=True)

  def _tokens(self, input_ids: Any, attention_mask: Any = None, position_ids: Any = None) -> tuple:
    """The three token inputs for the module: a user's module gets defaults for all, ours only those that are set."""
    if self._is_ours():
      return input_ids, attention_mask, position_ids
    ids = jnp.asarray(input_ids, jnp.int32)
    mask = jnp.ones_like(ids) if attention_mask is None else jnp.asarray(attention_mask, jnp.int32)
    return ids, mask, jnp.broadcast_to(jnp.arange(ids.shape[-1]), ids.shape) if position_ids is None else position_ids

  def _flags(self, *flags: bool | None) -> tuple:
    """output_attentions, output_hidden_states and return_dict, by default from the config."""
    pairs = zip(DEFAULTS.items(), flags, strict=True)
    return tuple(getattr(self.config, name, default) if flag is None else flag for (name, default), flag in pairs)

  def _named(self, flags: tuple, train: bool) -> dict[str, Any]:
    """Keywords of the module from `_flags` and `train`."""
    return dict(zip(DEFAULTS, flags, strict=True), deterministic=not train)

  def _apply(self, params: Any, dropout_rng: Any, *args: Any, **kwargs: Any) -> Any:
    """Applies the module to its arguments."""
    rngs = {} if dropout_rng is None else {"dropout": dropout_rng}
    return self.module.apply({"params": self.params if params is None else params}, *args, rngs=rngs, **kwargs)

  def _in_cache(self, cache: Any, params: Any, dropout_rng: Any, *args: Any, **kwargs: Any) -> Any:
    """Applies the module, with the cache from `init_cache` or a previous call, if any."""
    if not cache:
      return self._apply(params, dropout_rng, *args, **kwargs)
    rngs = {} if dropout_rng is None else {"dropout": dropout_rng}
    variables = {"params": self.params if params is None else params, "cache": cache}
    return self.module.apply(variables, *args, rngs=rngs, mutable=["cache"], **kwargs)[0]

  def _run(self, params: Any, dropout_rng: Any, call: Call, run: Callable) -> Any:
    """Calls `run` with the zoo's model and the inputs of a call."""
    return self._apply(params, dropout_rng, call._replace(run=run))


def _described(kind: type[OldModule], sizes: dict[str, Any], entries: Mapping[str, Any]) -> Config:
  return Config(**merged(merged(DEFAULTS, tables.of_family(kind.FAMILY).config(sizes)), entries))


def outputs(**names: str) -> Callable:
  """Builds the `run` of a module: calls the model and renames its outputs to the old names."""

  def run(model, inputs, train):
    options = {name: value for name, value in inputs.items() if name != "tokens"}
    out = model(inputs["tokens"], **options, train=train)
    return {theirs: out[ours] for theirs, ours in names.items()}

  return run


def with_head(
  module: type[OldModule], model: type[FlaxModel], name: str, doc: str, *, run: Callable, **attributes: Any
) -> tuple[type[FlaxModel], type[OldModule]]:
  """Builds an old class and its module with another head.

  Args:
    module, model: the family's base classes.
    name: "FlaxBertForMaskedLM".
    doc: docstring with the outputs.
    run: (the zoo's model, inputs, train) -> outputs under old names.
    **attributes: attributes of the module's class: HEAD, arguments.
  """
  static = {key: staticmethod(value) if callable(value) else value for key, value in attributes.items()}
  where = {"__module__": model.__module__}
  module_class = type(f"{name}Module", (module,), where | {"__doc__": doc, "run": staticmethod(run), **static})
  return type(name, (model,), where | {"__doc__": doc, "module_class": module_class}), module_class
