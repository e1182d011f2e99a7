"""The base class of all old models: transformers 4, src/transformers/modeling_flax_utils.py."""

import inspect
import json
import os
import pathlib
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from zoo.compat.config import entries_of, refuse_to_push
from zoo.compat.config_classes import ConfigClass
from zoo.compat.folders import folder_of
from zoo.compat.loading import LEFT_OUT, plain_params, report
from zoo.convert.rules.options import check_ignored, without
from zoo.errors import UserError
from zoo.hub.files import CONFIG, open_tensors, read_json
from zoo.hub.msgpack import to_torch
from zoo.hub.tensors import to_host
from zoo.hub.writing import write_files
from zoo.tree import flatten, unflatten

# Options of from_pretrained: download options, and ignored ones.
FETCHING = ("cache_dir", "force_download", "local_files_only", "token")
IDLE = (
  "from_pt", "resume_download", "trust_remote_code", "use_safetensors", "low_cpu_mem_usage", "proxies",
  "adapter_kwargs", "use_auth_token", "_from_auto", "_from_pipeline", "_commit_hash", "mirror",
)  # fmt: skip


class FlaxPreTrainedModel:
  """Base class of old models: a Linen module with its parameters and config.

  Your own subclass defines `init_weights` and `__call__`, and passes its module to this class, as in
  transformers 4; the module may contain modules of `zoo.compat`.

  Args:
    config: a config of transformers, or a `Config`.
    module: a Linen module.
    input_shape: of the example inputs of `init_weights`.
    seed: of the initialisation.
    dtype: computation dtype; parameters are float32 unless they are loaded or cast (`to_bf16`).
    _do_init: False: the model keeps no parameters, and each call takes them.
  """

  config_class: Any = ConfigClass("")
  base_model_prefix: ClassVar[str] = ""
  main_input_name: ClassVar[str] = "input_ids"
  module_class: ClassVar[Any] = None
  framework = "flax"
  generation_config: Any = None
  _auto_class: Any = None
  _missing_keys: ClassVar[set] = set()

  def __init__(
    self,
    config: Any,
    module: Any,
    input_shape: Any = (1, 1),
    seed: int = 0,
    dtype: Any = jnp.float32,
    _do_init: bool = True,
  ):
    for name, value in (("config", config), ("module", module)):
      if value is None:
        raise UserError(f"{type(self).__name__}: {name} is None.")
    self._config, self._module = config, module
    self.input_shape, self.key, self.dtype = input_shape, jax.random.PRNGKey(seed), jnp.dtype(dtype)
    self._is_initialized = _do_init
    if _do_init:
      self.params = self.init_weights(self.key, input_shape)

  def init_weights(self, rng: jax.Array, input_shape: Any = None, params: Any = None) -> dict[str, Any]:
    """Random float32 parameters from a key, as a tree; entries of `params` replace those of their names.

    Raises:
      NotImplementedError: always. Subclasses define it.
    """
    raise NotImplementedError(f"{type(self).__name__} has no init_weights.")

  @classmethod
  def from_pretrained(
    cls,
    pretrained_model_name_or_path: str | os.PathLike,
    dtype: Any = jnp.float32,
    *model_args: Any,
    config: Any = None,
    subfolder: str = "",
    revision: str | None = None,
    ignore_mismatched_sizes: bool = False,
    _do_init: bool = True,
    ignore: Collection[str] = (),
    **kwargs: Any,
  ) -> Any:
    """Loads the model of a folder or hub id, from safetensors or flax_model.msgpack.

    Args:
      pretrained_model_name_or_path: a folder with a config.json, or an id.
      dtype: computation dtype. Parameters have the dtype of the files, the widest if there are several.
      config: instead of the config.json: an object, a dict or a path.
      subfolder, revision: of the folder or id.
      ignore_mismatched_sizes: whether misshapen arrays are initialised randomly, with a warning.
      _do_init: False: parameters are returned separately from the model; those that the files lack are
        left out.
      ignore: entries of the config to ignore, as in `zoo.load`.
      *model_args, **kwargs: cache_dir, force_download, local_files_only, token; entries of the config to override;
        arguments of the constructor: seed, input_shape. from_pt has no effect: the existing files are read, but never a
        pickle.

    Returns:
      the model, or (model, params) with _do_init=False. Missing arrays are initialised randomly, with a warning.

    Raises:
      UserError: as `zoo.load`; an unknown argument; misshapen arrays.
    """
    hub = {name: kwargs.pop(name) for name in FETCHING if kwargs.get(name) not in (None, False, "")}
    source = os.fspath(pretrained_model_name_or_path)
    if revision not in (None, "main") and not pathlib.Path(source).expanduser().is_dir():
      source = f"{source}@{revision}"
    folder = folder_of(source, subfolder, **hub)
    if isinstance(config, str | os.PathLike):
      file = pathlib.Path(config)
      config = read_json(file if file.is_file() else folder_of(config, "", **hub) / CONFIG)
    kwargs = {name: value for name, value in kwargs.items() if name not in (*IDLE, *FETCHING)}
    options = {name: kwargs.pop(name) for name in inspect.signature(cls.__init__).parameters if name in kwargs}
    options["dtype"] = dtype
    if ignore:
      config = cls._without(config, folder, ignore)
    model, params = cls._read(folder, source, config, kwargs, options, ignore_mismatched_sizes, _do_init)
    if not _do_init:
      return model, params
    model._is_initialized = True
    model.params = params
    return model

  @classmethod
  def _without(cls, config: Any, folder: pathlib.Path, ignore: Collection[str]) -> dict[str, Any]:
    """The config's entries, by default the folder's, without those to ignore."""
    where = str(folder / CONFIG) if config is None else "config"
    entries = read_json(folder / CONFIG) if config is None else entries_of(config)
    names = [cls._front(entries, name) + name for name in ignore]
    check_ignored(names, {where: entries})
    return without(entries, names)

  @classmethod
  def _front(cls, entries: Mapping[str, Any], name: str) -> str:
    """The prefix of entries that messages of this class omit: "text_config." for a part of a larger model."""
    return ""

  @classmethod
  def _read(cls, folder, source, config, changes, options, replace, do_init) -> tuple[Any, Any]:
    """Reads `folder` -> a model without parameters, and the parameters."""
    if config is None or isinstance(config, Mapping):
      entries = {**(read_json(folder / CONFIG) if config is None else config), "_name_or_path": source}
      config = cls.config_class.from_dict(entries)
    changed = {name: value for name, value in changes.items() if hasattr(config, name)}
    for name, value in changed.items():
      setattr(config, name, value)
    try:
      model = cls(config, _do_init=False, **options, **{name: x for name, x in changes.items() if name not in changed})
    except TypeError as error:
      raise UserError(f"{cls.__name__}.from_pretrained: {error}. Leave it out.") from None
    shapes, where = model.params_shape_tree, str(folder)
    params, lacking = plain_params(shapes, cls.base_model_prefix, open_tensors(folder), where, replace=replace)
    if lacking and do_init:
      report(f"{where} has no {', '.join(sorted(lacking)[:8])}: initialised at random. Train before use.")
      fresh = flatten(model.init_weights(model.key, model.input_shape))
      params |= {name: fresh[name] for name in lacking}
    elif lacking:
      report(f"{where} has no {', '.join(sorted(lacking)[:8])}: {LEFT_OUT}")
      cls._missing_keys = {tuple(name.split("/")) for name in lacking}
    return model, unflatten(params)

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
    """Writes config.json and model.safetensors, with torch's names and layouts.

    Args:
      save_directory: created if missing.
      params: under the old names; the model's own if None. Missing entries are missing in the file.
      push_to_hub: refused.
      max_shard_size, token, safe_serialization, **kwargs: ignored; a single file is written.

    Raises:
      UserError: the folder cannot be written, or parameters have the wrong shape.
    """
    refuse_to_push(push_to_hub)
    tensors = dict(to_torch(path.split("/"), array) for path, array in flatten(self._to_save(params)).items())
    entries = entries_of(self.config) | {"architectures": [type(self).__name__.removeprefix("Flax")]}
    write_files(pathlib.Path(save_directory), json.loads(json.dumps(entries, default=str)), tensors)

  def _to_save(self, params: Any) -> Any:
    return jax.tree.map(to_host, self.params if params is None else _plain(params))

  @classmethod
  def _from_config(cls, config: Any, **kwargs: Any) -> Any:
    return cls(config, **kwargs)

  @classmethod
  def can_generate(cls) -> bool:
    """Whether the model has `generate`."""
    return hasattr(cls, "generate")

  @property
  def config(self) -> Any:
    """The config, with entries as attributes and defaults for missing ones."""
    return self._config

  @property
  def name_or_path(self) -> str:
    """The folder or id that it was loaded from."""
    return getattr(self.config, "name_or_path", "")

  @property
  def module(self) -> Any:
    """The Linen module."""
    return self._module

  @property
  def params(self) -> dict[str, Any]:
    """The parameters, under the old names."""
    if not self._is_initialized:
      raise UserError("This model keeps no params (_do_init=False). Give them to each call: model(..., params=params).")
    return self._params

  @params.setter
  def params(self, params: Any) -> None:
    if not self._is_initialized:
      raise UserError("This model keeps no params (_do_init=False). Keep them yourself, and give them to each call.")
    params = _plain(params)
    missing = {"/".join(path) for path in self.required_params} - set(flatten(params))
    if missing:
      raise UserError(f"params lack {len(missing)} of {type(self).__name__}: {', '.join(sorted(missing)[:3])}.")
    self._params = params

  @property
  def required_params(self) -> set[tuple[str, ...]]:
    """The paths of all parameters, ("text_model", "final_layer_norm", "scale")."""
    return {tuple(path.split("/")) for path in flatten(self.params_shape_tree)}

  @property
  def params_shape_tree(self) -> Any:
    """Shapes and dtypes, under the old names."""
    return jax.eval_shape(lambda rng: self.init_weights(rng, self.input_shape), self.key)

  def to_bf16(self, params: Any, mask: Any = None) -> Any:
    """`params` as bfloat16, where `mask` (a tree of bools like it) is True."""
    return _cast(params, jnp.bfloat16, mask)

  def to_fp16(self, params: Any, mask: Any = None) -> Any:
    """`params` as float16, where `mask` (a tree of bools like it) is True."""
    return _cast(params, jnp.float16, mask)

  def to_fp32(self, params: Any, mask: Any = None) -> Any:
    """`params` as float32, where `mask` (a tree of bools like it) is True."""
    return _cast(params, jnp.float32, mask)

  def enable_gradient_checkpointing(self) -> None:
    """Turns on rematerialisation of layers from now on; not supported by every model."""
    raise NotImplementedError(f"{type(self).__name__} has no gradient checkpointing.")

  def push_to_hub(self, *args: Any, **kwargs: Any) -> None:
    """Not supported: raises UserError."""
    refuse_to_push(True)


def filled(params: Any, fresh: Any) -> Any:
  """`params` completed with entries of `fresh`."""
  if not isinstance(fresh, Mapping):
    return params
  return {**params, **{name: filled(params[name], x) if name in params else x for name, x in fresh.items()}}


def _plain(tree: Any) -> Any:
  """Converts nested mappings of any type to dicts."""
  return {name: _plain(branch) for name, branch in tree.items()} if isinstance(tree, Mapping) else tree


def _cast(params: Any, dtype: Any, mask: Any) -> Any:
  def cast(x, selected):
    return x.astype(dtype) if selected and jnp.issubdtype(x.dtype, jnp.floating) else x

  return jax.tree.map(cast, params, jax.tree.map(lambda x: True, params) if mask is None else mask)
