"""Saves and loads models: `model.json` (how to build it) and `params.safetensors` (path -> array), a portable format.

Layers are stored one by one (`stack/layer_0/...`), for loops and for scans. `load` also reads the
folder of a run that is still training or was interrupted. Pickles are never read, and the name of a tensor is never
used as the name of a file.
"""

import json
import os
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from jax.sharding import Mesh
from safetensors import SafetensorError, safe_open

from zoo.build import build, by_layer, merged, split, weights_of
from zoo.checkpoints.retention import best_step
from zoo.config.loading import differences
from zoo.errors import UserError, shown
from zoo.hub.tensors import is_finite, to_host, warn_not_finite, write_tensors
from zoo.json_files import read_json
from zoo.layers.compute import Compute
from zoo.layers.stack import stack_layers
from zoo.progress import progress
from zoo.sharding import make_mesh, shardings
from zoo.storage import as_path, check_folder, is_remote, local_copy, make_folder, replacing
from zoo.tree import flatten, mismatch, unflatten, variables

MODEL, PARAMS, CONFIG = "model.json", "params.safetensors", "config.json"
FORMAT = 1
# Options of computing: they do not change the model.
COMPUTING = tuple(Compute.__annotations__)


def save(folder: str | os.PathLike, model: Any, params: Any, *, overwrite: bool = False) -> None:
  """Writes `model` and `params` to `folder`, each file atomically. Every process of a run must call it.

  Args:
    folder: created if missing; other files in it are left alone.
    model: from `zoo.build`.
    params: its parameters; may be sharded.
    overwrite: also replace another model's files.

  Raises:
    UserError: `folder` holds another model, `params` do not fit the model, or the disk is full.

  >>> import zoo
  >>> model = zoo.build("gpt", vocab_size=7, max_length=8, dim=8, depth=1, num_heads=2)
  >>> params = model.init(jax.random.key(0), jnp.zeros((1, 8), int))["params"]
  >>> zoo.save("tiny", model, params)
  >>> sorted(file.name for file in pathlib.Path("tiny").iterdir())
  ['model.json', 'params.safetensors']
  """
  folder = as_path(folder)
  if not model.spec:
    raise UserError(
      f"{type(model).__name__} does not record how it was built. Build models to be saved with zoo.build."
    )
  holds = check_target(folder, model, overwrite)
  flat = flatten(by_layer(jax.tree.map(to_host, params)))
  _check({name: array.shape for name, array in flat.items()}, model, "The parameters do not fit this model")
  if jax.process_index() != 0:
    return
  make_folder(folder)
  # In this order: the new parameters are in place before the new model.json, and after the old one is gone.
  with replacing(folder / MODEL) as model_file, replacing(folder / PARAMS) as params_file:
    content = {"format": FORMAT, "model": model.spec}
    content |= {"preprocessing": model.preprocessing} if model.preprocessing else {}
    model_file.write_text(json.dumps(content, indent=2) + "\n")
    write_tensors(params_file, flat)
    if holds is None:
      (folder / MODEL).unlink(missing_ok=True)


def check_target(folder: epath.Path, model: Any, overwrite: bool = False) -> dict[str, Any] | None:
  """The spec of the model in a folder, None if it is to be replaced; UserError if `save` would refuse."""
  check_folder(folder, "Name a folder to save the model in.")
  if (folder / PARAMS).is_dir():
    raise UserError(f"{folder / PARAMS} is a folder, where the parameters are to be written. Move it away.")
  holds = None if overwrite else _spec_in(folder)
  if holds is not None and _essence(holds) != _essence(model.spec):
    changes = "; ".join(differences(_essence(holds), _essence(model.spec)))
    raise UserError(f"{folder} holds another model: {changes}. Choose another folder, or save with overwrite=True.")
  return holds


def load(
  source: str | os.PathLike,
  *,
  head: str | None = None,
  dtype: Any = None,
  mesh: Mesh | Mapping[str, int] | None = None,
  strategy: str | list = "replicated",
  step: int | None = None,
  best: bool = False,
  ignore: Collection[str] = (),
) -> tuple[Any, Any]:
  """Loads a model and its parameters from a run, a published model's folder, or a hub id.

  Args:
    source: the folder of a run (finished, or else its newest checkpoint), or anything that `save` wrote; a folder in
      the hub's layout (config.json and safetensors), or in open_clip's (open_clip_config.json), or of
      sentence-transformers, of which it is the encoder alone; or an id, `openai/clip-vit-base-patch32`, which is
      downloaded with huggingface_hub (extra `hub`).
    head: of a published model: another head than that of its architecture, "none" for none. A head without weights
      in the files is randomly initialised, with a warning.
    dtype: of the parameters, bfloat16, float16 or float32; by default float32 for a published model and unchanged for
      a run. Shared collections, such as statistics, keep theirs.
    mesh: devices to shard the parameters over, by `strategy`, also as {"data": -1}; the first device if None.
    strategy: a name or lines of `zoo.sharding`.
    step: of a run: take the checkpoint of this step.
    best: of a run: take the best checkpoint, by the metric that the run's config names as `checkpoint.best`.
    ignore: of a published model: entries of its config.json to ignore, if you know
      that they change nothing; "rope_scaling.factor" for an entry of a section.

  Returns:
    model, params. Of a run with an averaged copy of the parameters (`ema`), that copy.

  Raises:
    UserError: no readable model, a dtype that is not floating, an option or architecture that the zoo does not have,
      tensors that are missing, extra or misshapen.

  Warns:
    of entries of a config.json that were ignored: the reference does not read them, or they have its defaults; and of
    parameters that are not finite.

  >>> import zoo
  >>> model = zoo.build("gpt", vocab_size=7, max_length=8, dim=8, depth=1, num_heads=2)
  >>> zoo.save("tiny_gpt", model, model.init(jax.random.key(0), jnp.zeros((1, 8), int))["params"])
  >>> model, params = zoo.load("tiny_gpt")
  >>> model.apply({"params": params}, jnp.array([[1, 2, 3]])).shape
  (1, 3, 7)
  """
  from zoo.data.tokenizers.open_clip import is_open_clip
  from zoo.hub import files, ids, loading, placing  # Not imported by most runs.
  from zoo.hub.sentence_encoder import encoder_folder

  if isinstance(ignore, str):
    raise UserError(f"ignore is {ignore!r}. It must be a list of names: [{ignore!r}].")
  mesh = make_mesh(mesh) if isinstance(mesh, Mapping) else mesh
  if dtype is not None:
    dtype = placing.parameter_dtype(dtype)

  folder = as_path(source) if is_remote(source) else ids.folder_of(source)
  if isinstance(folder, pathlib.Path) and not (folder / MODEL).exists():
    folder = encoder_folder(folder)
  local = isinstance(folder, pathlib.Path) and not (folder / MODEL).exists()
  other = local and is_open_clip(folder)
  if other or local and files.is_published(folder):
    if step is not None or best:
      raise UserError(f"{folder} is a published model: it has no steps. Leave out step and best.")
    read = loading.load_open_clip if other else loading.load_published
    with progress(f"reading {folder}"):
      return read(folder, head=head, dtype=dtype, mesh=mesh, strategy=strategy, ignore=ignore)
  if ignore:
    raise UserError(f"{folder} is a model of the zoo, where ignore does not apply. Leave it out.")
  if head is not None:
    raise UserError(f"{folder} is a model of the zoo with the head that it was trained with. Leave out head.")
  with progress(f"reading {folder}"):
    model, params = _load_own(folder, step, best)
  if dtype is not None:
    whole = variables(params)
    params = split(merged(whole | {"params": jax.tree.map(lambda array: array.astype(dtype), whole["params"])}), model)
  return model, params if mesh is None else jax.device_put(params, shardings(params, strategy, mesh))


def _load_own(folder: epath.Path | pathlib.Path, step: int | None, best: bool) -> tuple[Any, Any]:
  if (folder / MODEL).exists() and step is None and not best:
    model = _model_in(folder)
    return model, _read_params(folder / PARAMS, model)
  if (folder / CONFIG).exists():
    model = _model_in(folder)
    return model, _read_checkpoint(folder / "checkpoints", model, step, best)
  files = ", ".join(sorted(path.name for path in folder.iterdir())[:5]) or "nothing"
  raise UserError(
    f"{folder} has no model of the zoo. Expected {MODEL} and {PARAMS}, or a run's {CONFIG} and checkpoints; it holds "
    f"{files}. Pickled weights (.bin, .pt, .pkl) are never read."
  )


def _spec_in(folder: epath.Path | pathlib.Path) -> dict[str, Any] | None:
  """The spec of the model in `folder`; None if there is none."""
  path = folder / (MODEL if (folder / MODEL).exists() else CONFIG)
  if not path.exists():
    return None
  content = read_json(path)
  spec = content.get("model")
  if not isinstance(spec, dict) or not isinstance(spec.get("family"), str):
    raise UserError(f"{path} does not name its model: it needs an entry 'model' with a 'family'.")
  if path.name == MODEL and content.get("format") != FORMAT:
    raise UserError(f"{path} is of format {shown(content.get('format'))}; this zoo reads {FORMAT}. Update the zoo.")
  return {name: value for name, value in spec.items() if name != "preprocessing"}


def _essence(spec: Mapping[str, Any]) -> dict[str, Any]:
  return {name: value for name, value in spec.items() if value is not None and name not in COMPUTING}


def _model_in(folder: epath.Path | pathlib.Path) -> Any:
  from zoo.hub.preprocessing import preprocessing_of_saved

  try:
    return build(**(_spec_in(folder) or {}), preprocessing=preprocessing_of_saved(folder))
  except UserError as error:
    raise UserError(f"The model in {folder} cannot be built. {error}") from error


def _read_params(path: epath.Path | pathlib.Path, model: Any) -> Any:
  if not path.exists():
    raise UserError(f"{path} is missing, and pickled weights (.bin, .pt, .pkl) are never read.")
  try:
    with local_copy(path) as local, safe_open(local, framework="np") as file:
      # Names and shapes are in the header: nothing is read of a file that does not fit.
      names = list(file.keys())
      _check({name: tuple(file.get_slice(name).get_shape()) for name in names}, model, f"{path} does not fit")
      flat = {name: file.get_tensor(name) for name in names}
  except (SafetensorError, OSError) as error:
    raise UserError(f"{path} cannot be read: {error}. It is truncated or damaged; take another copy.") from error
  warn_not_finite(str(path), [name for name, array in flat.items() if not is_finite(array)])
  return split(jax.tree.map(jnp.asarray, stack_layers(unflatten(flat), merged(weights_of(model)))), model)


def _read_checkpoint(folder: epath.Path | pathlib.Path, model: Any, step: int | None, best: bool) -> Any:
  from zoo.checkpoints import manager  # Orbax takes most of a second to import, and a finished model does not need it.

  steps = manager.steps(folder)
  if not steps:
    raise UserError(f"{folder} has no finished checkpoint yet.")
  if best:
    step = best_step(manager.scores(folder))
    if step is None:
      raise UserError(f"No checkpoint in {folder} has a score. Name a metric as checkpoint.best in the config.")
  step = steps[-1] if step is None else step
  if step not in steps:
    raise UserError(f"{folder} has no checkpoint of step {step}. It has: {', '.join(map(str, steps))}.")
  parts = {name.partition("/")[0] for name in manager.describe(folder / str(step))}
  part, beside = (
    averaged if averaged in parts else plain for averaged, plain in (("ema", "params"), ("ema_shared", "shared"))
  )
  shapes = variables(weights_of(model))
  shared = {name: tree for name, tree in shapes.items() if name != "params"}
  expected = {part: shapes["params"], **({beside: shared} if shared else {})}
  state = manager.read_state(folder / str(step), expected)
  return {"params": state[part], **state[beside]} if shared else state[part]


def _check(actual: Mapping[str, tuple[int, ...]], model: Any, what: str) -> None:
  layers = jax.eval_shape(by_layer, weights_of(model))
  expected = {name: leaf.shape for name, leaf in flatten(layers).items()}
  if actual != expected:
    raise UserError(f"{what}: {mismatch(actual, expected)}.")
