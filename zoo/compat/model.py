"""What all old models have in common: transformers 4, src/transformers/modeling_flax_utils.py."""

import functools
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from zoo import reference
from zoo.atomic import replacing
from zoo.build import build, sizes_of
from zoo.compat.module import Call, Module
from zoo.compat.outputs import Config, entries_of, merged
from zoo.errors import UserError, shown
from zoo.hub import tables
from zoo.hub.files import CONFIG, open_tensors, read_json
from zoo.hub.ids import folder_of
from zoo.hub.loading import read_params
from zoo.hub.msgpack import flax_rules
from zoo.hub.writing import save_hf
from zoo.options import Options
from zoo.paths import flatten

DEFAULTS = {"output_attentions": False, "output_hidden_states": False, "return_dict": True}
# Of from_pretrained: where files come from, and what changes nothing here.
FETCHING = ("cache_dir", "force_download", "local_files_only", "token")
IDLE = ("from_pt", "resume_download", "trust_remote_code", "use_safetensors", "low_cpu_mem_usage")


class FlaxModel:
  """A model of the zoo under an old name. Subclasses say which, and call it as the old one was called.

  Args:
    config: a dict, a `Config` or a config of transformers.
    input_shape: kept for those who look at it; parameters are of the config's shapes.
    seed: of random parameters.
    dtype: what is computed in; parameters are float32 unless they are loaded or cast (`to_bf16`).
    _do_init: False: the model keeps no parameters, and each call is given them.

  Raises:
    UserError: an option that the zoo does not have.
  """

  FAMILY: ClassVar[str]
  HEAD: ClassVar[str | None] = None
  FRONT: ClassVar[str] = ""  # What old names begin with, where those of torch no longer do.
  WHOLE: ClassVar[tuple[str, str] | None] = None  # A model_type that has this one as a section, and the section.
  WITHIN: ClassVar[tuple[str, ...]] = ()  # How the names of its tensors begin there.
  TOWERS: ClassVar[Mapping[str, str]] = {"": ""}
  LAST_IS_NORMED: ClassVar[bool] = False
  arguments: ClassVar[Callable[..., Call]]
  run: ClassVar[Callable]

  framework = "flax"

  def __init__(
    self,
    config: Any,
    input_shape: Any = None,
    seed: int = 0,
    dtype: Any = jnp.float32,
    _do_init: bool = True,
    gradient_checkpointing: bool = False,
  ):
    self._understand(_section(type(self), entries_of(config), "config"), "config", {})
    self._finish(input_shape, seed, dtype, gradient_checkpointing)
    self._has_params = _do_init
    if _do_init:
      self.params = self.init_weights(self.key, self.input_shape)

  def _understand(self, entries: Mapping[str, Any], where: str, tensors: Any) -> None:
    self._table = tables.of_family(self.FAMILY)
    known = reference.of(entries.get("model_type") or self._table.MODEL_TYPES[0])
    options = Options(entries, where, len(tensors) or None, reference=known, may_ignore=False)
    sizes = self._table.sizes(options, self.HEAD, tensors)
    options.done()
    self._sizes = sizes_of(build(self.FAMILY, **sizes))
    self._config = Config(**merged(merged(DEFAULTS, self._table.config(self._sizes)), entries))

  def _finish(self, input_shape: Any, seed: int, dtype: Any, checkpointing: bool) -> None:
    self.input_shape = (1, 1) if input_shape is None else input_shape
    self.key, self.dtype = jax.random.PRNGKey(seed), jnp.dtype(dtype)
    self._module = self._make("full" if checkpointing else None)

  def _make(self, remat: str | None) -> Module:
    # A loop, for old names count layers: to scan over them would be to copy them all in each call. Old models learned
    # about padding as about any token.
    computing: dict[str, Any] = {"dtype": self.dtype.name, "scan": False, "remat": remat}
    computing |= {"pad": None} if "pad" in self._sizes else {}
    model = build(self.FAMILY, **(self._sizes | computing))
    rules = self._table.rules(self._sizes)
    if self.FRONT and not any(rule.theirs.startswith(self.FRONT) for rule in rules):
      rules = [rule._replace(theirs=self.FRONT + rule.theirs) for rule in rules]
    kind = type(self)
    return Module(model, flax_rules(rules), kind.arguments, kind.run, self.TOWERS, self.LAST_IS_NORMED, self._config)

  @classmethod
  def from_pretrained(
    cls,
    pretrained_model_name_or_path: str | os.PathLike,
    dtype: Any = jnp.float32,
    *,
    config: Any = None,
    subfolder: str = "",
    revision: str | None = None,
    seed: int = 0,
    input_shape: Any = None,
    _do_init: bool = True,
    **kwargs: Any,
  ) -> Any:
    """The model of a folder, or of an id of the hub, in safetensors or as a flax_model.msgpack.

    Args:
      pretrained_model_name_or_path: a folder with a config.json, or an id.
      dtype: what is computed in. Parameters are of the dtype that the files have, the widest if those are several.
      config: instead of the config.json.
      subfolder, revision: of the folder or id.
      _do_init: False: parameters are returned beside the model, which keeps none.
      **kwargs: cache_dir, force_download, local_files_only, token; entries of the config to change. from_pt changes
        nothing: what is there is read, but never a pickle.

    Returns:
      the model, or (model, params) with _do_init=False. A head of which the files have nothing is random, with a
      warning.

    Raises:
      UserError: what `zoo.load` raises; an argument that is none of these.
    """
    hub = {name: kwargs.pop(name) for name in FETCHING if kwargs.get(name) not in (None, False, "")}
    source = os.fspath(pretrained_model_name_or_path)
    if revision not in (None, "main") and not pathlib.Path(source).expanduser().is_dir():
      source = f"{source}@{revision}"
    folder = folder_of(source, subfolder, **hub)
    entries = read_json(folder / CONFIG) if config is None else entries_of(config)
    tensors = open_tensors(folder)
    if cls.WHOLE is not None and entries.get("model_type") == cls.WHOLE[0]:
      tensors = tensors.only(name for name in tensors if name.startswith(cls.WITHIN))
    entries = _section(cls, entries, str(folder / CONFIG))

    model = cls.__new__(cls)
    model._understand(entries, str(folder / CONFIG), tensors)
    changes = {name: value for name, value in kwargs.items() if name not in (*IDLE, *FETCHING)}
    unknown = [name for name in changes if name != "num_labels" and not hasattr(model._config, name)]
    if unknown:
      raise UserError(
        f"{cls.__name__}.from_pretrained: {unknown[0]}={shown(changes[unknown[0]], 40)} is no argument of it and no "
        "entry of the config. Leave it out."
      )
    if changes:
      kept = {name: x for name, x in entries.items() if "num_labels" not in changes or name not in _LABELS}
      model._understand(kept | changes, str(folder / CONFIG), tensors)
    model._finish(input_shape, seed, dtype, False)
    held = functools.partial(read_params, tensors, model._table, model.module.model, str(folder), fresh_head=True)
    params = model.module.old(held(dtype=_widest(tensors), mesh=_default_device()))
    model._has_params = _do_init
    if not _do_init:
      return model, params
    model.params = params
    return model

  def save_pretrained(self, save_directory: str | os.PathLike, params: Any = None, push_to_hub: bool = False, **kwargs):
    """Writes config.json and model.safetensors, which `zoo.load` and torch transformers read.

    Args:
      save_directory: made if it is not there.
      params: in the old names; the model's own if None.
      push_to_hub: is refused.
      **kwargs: how the files were to be cut and sent; there is one.

    Raises:
      UserError: parameters are missing or misshapen, or the folder cannot be written.
    """
    if push_to_hub:
      raise UserError("push_to_hub is True. Save to a folder, and send it with huggingface_hub's upload_folder.")
    folder = pathlib.Path(save_directory)
    ours = jax.jit(self.module.ours)(self.params if params is None else params)
    save_hf(folder, self.module.model, ours)
    # What the zoo writes makes the same model; labels and tokens that have names keep them.
    written = read_json(folder / CONFIG)
    entries = merged(written, self.config.to_dict()) | {"architectures": written["architectures"]}
    entries = {name: x for name, x in entries.items() if name not in (*DEFAULTS, "dtype", "torch_dtype")}
    if jax.process_index() == 0:
      with replacing(folder / CONFIG) as file:
        file.write_text(json.dumps(entries, indent=2, sort_keys=True) + "\n")

  def init_weights(self, rng: jax.Array, input_shape: Any = None, params: Any = None) -> dict[str, Any]:
    """Random parameters in the old names; of `params`, if given, those that are there."""
    fresh = self.module.init(rng)["params"]
    return fresh if params is None else _filled(params, fresh)

  @property
  def config(self) -> Config:
    """The entries of config.json as attributes, with defaults for those that it leaves out."""
    return self._config

  @property
  def module(self) -> Module:
    """What `apply` is called of."""
    return self._module

  @property
  def params(self) -> dict[str, Any]:
    """The parameters, in the old names."""
    if not self._has_params:
      raise UserError("This model keeps no params (_do_init=False). Give them to each call: model(..., params=params).")
    return self._params

  @params.setter
  def params(self, params: Any) -> None:
    if not self._has_params:
      raise UserError("This model keeps no params (_do_init=False). Keep them yourself, and give them to each call.")
    missing = {rule.theirs for rule in self.module.rules} - set(flatten(params))
    if missing:
      raise UserError(f"params lack {len(missing)} of this {self.FAMILY}: {', '.join(sorted(missing)[:3])}.")
    self._params = params

  @property
  def required_params(self) -> set[tuple[str, ...]]:
    """The paths of all parameters, ("text_model", "final_layer_norm", "scale")."""
    return {tuple(rule.theirs.split("/")) for rule in self.module.rules}

  @property
  def params_shape_tree(self) -> Any:
    """Shapes and dtypes in the old names."""
    return jax.eval_shape(self.module.initial, self.key)

  def enable_gradient_checkpointing(self) -> None:
    """From now on the backward pass computes each layer again."""
    self._module = self._make("full")

  def to_bf16(self, params: Any, mask: Any = None) -> Any:
    """`params` as bfloat16, where `mask` (a tree alike, of bools) is True."""
    return _cast(params, jnp.bfloat16, mask)

  def to_fp16(self, params: Any, mask: Any = None) -> Any:
    """`params` as float16, where `mask` (a tree alike, of bools) is True."""
    return _cast(params, jnp.float16, mask)

  def to_fp32(self, params: Any, mask: Any = None) -> Any:
    """`params` as float32, where `mask` (a tree alike, of bools) is True."""
    return _cast(params, jnp.float32, mask)

  def _call(self, call: Call, params: Any, dropout_rng: Any, run: Callable | None = None) -> Any:
    rngs = {} if dropout_rng is None else {"dropout": dropout_rng}
    return self.module.call(self.params if params is None else params, call, rngs, run)


_LABELS = ("id2label", "label2id", "num_labels")


def _section(cls: type[FlaxModel], entries: Mapping[str, Any], where: str) -> dict[str, Any]:
  """What a config says about a model of this class, which may be a part of what it describes."""
  known = tables.of_family(cls.FAMILY).MODEL_TYPES
  kind = entries.get("model_type", known[0])
  if cls.WHOLE is not None and kind == cls.WHOLE[0]:
    projection = {"projection_dim": entries["projection_dim"]} if "projection_dim" in entries else {}
    return {**entries.get(cls.WHOLE[1], {}), **projection, "model_type": known[0]}
  if kind not in known:
    raise UserError(f"{where}: model_type is {shown(kind)}. {cls.__name__} reads: {', '.join(known)}.")
  return dict(entries)


def _widest(tensors: Any) -> Any:
  floats = [dtype for dtype in tensors.dtypes.values() if jnp.issubdtype(dtype, jnp.floating)]
  widest = functools.reduce(jnp.promote_types, floats, floats[0]) if floats else jnp.float32
  return jax.dtypes.canonicalize_dtype(widest)


def _default_device() -> Mesh | None:
  """Where arrays go by default, if that is not the first device: `with jax.default_device(cpu)` is for large models."""
  (device,) = jnp.zeros(()).devices()
  return None if device == jax.devices()[0] else Mesh(np.array([device]), ("data",))


def _filled(params: Any, fresh: Any) -> Any:
  if not isinstance(fresh, Mapping):
    return params
  return {**params, **{name: _filled(params[name], x) if name in params else x for name, x in fresh.items()}}


def _cast(params: Any, dtype: Any, mask: Any) -> Any:
  def cast(x, wanted):
    return x.astype(dtype) if wanted and jnp.issubdtype(x.dtype, jnp.floating) else x

  return jax.tree.map(cast, params, jax.tree.map(lambda x: True, params) if mask is None else mask)
