"""A model in a folder: `model.json` (how to build it) and `params.safetensors` (path -> array), which anyone can read.

Layers are stored one by one (`stack/layer_0/...`) whether the model loops or scans over them. `load` also reads the
folder of a run that is still going on or was interrupted. Pickles are never read, and the name of a tensor is never
used as the name of a file.
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from zoo.atomic import replacing
from zoo.build import build
from zoo.config import differences
from zoo.errors import UserError
from zoo.layers.stack import stack_layers, unstack_layers
from zoo.mismatch import mismatch
from zoo.paths import flatten, unflatten

MODEL, PARAMS, CONFIG = "model.json", "params.safetensors", "config.json"
FORMAT = 1
# Ways to compute, not what is computed: with others it is the same model.
COMPUTING = ("dtype", "dropout", "drop_path", "scan", "remat")


def save(folder: str | os.PathLike, model: Any, params: Any, *, overwrite: bool = False) -> None:
  """Writes `model` and `params` to `folder`, each file at once or not at all. Every process of a run must call it.

  Args:
    folder: made if it is not there; other files in it are left alone.
    model: from `zoo.build`.
    params: its parameters; may be sharded.
    overwrite: also replace another model's files.

  Raises:
    UserError: `folder` holds another model, `params` are not this model's, the disk is full.
  """
  folder = pathlib.Path(folder)
  if not model.spec:
    raise UserError(f"{type(model).__name__} does not know how it was built. Make models to be saved with zoo.build.")
  if folder.exists() and not folder.is_dir():
    raise UserError(f"{folder} is a file. Name a folder to save a model in.")
  holds = None if overwrite else _spec_in(folder)
  if holds is not None and _essence(holds) != _essence(model.spec):
    found = "; ".join(differences(_essence(holds), _essence(model.spec)))
    raise UserError(f"{folder} holds another model: {found}. Choose another folder, or save with overwrite=True.")
  flat = flatten(unstack_layers(jax.tree.map(_to_host, params)))
  _check({name: array.shape for name, array in flat.items()}, model, "The parameters are not this model's")
  if jax.process_index() != 0:
    return
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UserError(f"{folder} cannot be made: {error.strerror}.") from error
  # Left in this order: the new parameters come before the new model.json, and after the old one is gone.
  with replacing(folder / MODEL) as model_file, replacing(folder / PARAMS) as params_file:
    model_file.write_text(json.dumps({"format": FORMAT, "model": model.spec}, indent=2) + "\n")
    try:
      save_file(flat, params_file)
    except SafetensorError as error:
      raise OSError(str(error)) from error
    if holds is None:
      (folder / MODEL).unlink(missing_ok=True)


def load(folder: str | os.PathLike, *, step: int | None = None, best: bool = False) -> tuple[Any, Any]:
  """The model in `folder` and its parameters, on the first device.

  Args:
    folder: of a finished run, or anything that `save` wrote; or of an unfinished run, whose newest checkpoint is taken.
    step: take the checkpoint of this step.
    best: take the best checkpoint, by the metric that the run's config names as `checkpoint.best`.

  Returns:
    model, params. Of a run with an averaged copy of the parameters (`ema`), that copy.
  """
  folder = pathlib.Path(folder)
  if not folder.is_dir():
    raise UserError(f"{folder} is {'a file, not a folder' if folder.exists() else 'not there'}. Name a run's folder.")
  if (folder / MODEL).exists() and step is None and not best:
    model = _model_in(folder)
    return model, _read_params(folder / PARAMS, model)
  if (folder / CONFIG).exists():
    model = _model_in(folder)
    return model, _read_checkpoint(folder / "checkpoints", model, step, best)
  held = ", ".join(sorted(path.name for path in folder.iterdir())[:5]) or "nothing"
  raise UserError(
    f"{folder} holds no model of the zoo. Expected {MODEL} and {PARAMS}, or a run's {CONFIG} and checkpoints; it holds "
    f"{held}. Pickled weights (.bin, .pt, .pkl) are never read."
  )


def load_into(folder: str | os.PathLike, state: Mapping[str, Any]) -> dict[str, Any]:
  """`state` with the parameters in `folder` for `params` (and `ema`), placed like those they replace."""
  _, params = load(folder)
  params = unstack_layers(params)
  each = jax.eval_shape(unstack_layers, state["params"])
  found, wanted = ({name: leaf.shape for name, leaf in flatten(tree).items()} for tree in (params, each))
  if found != wanted:
    raise UserError(f"{folder} holds another model than the one to train: {mismatch(found, wanted)}.")
  params = params if jax.tree.structure(params) == jax.tree.structure(state["params"]) else stack_layers(params)

  def place(new, old):
    # A copy for each: a training step that donates its state may not be handed the same buffer twice.
    return jax.device_put(np.array(new, old.dtype), old.sharding)

  loaded = {name: jax.tree.map(place, params, state[name]) for name in ("params", "ema") if name in state}
  return {**state, **loaded}


def _spec_in(folder: pathlib.Path) -> dict[str, Any] | None:
  """How to build the model in `folder`; None if there is none."""
  path = folder / (MODEL if (folder / MODEL).exists() else CONFIG)
  if not path.exists():
    return None
  try:
    content = json.loads(path.read_text(encoding="utf-8"))
  except (OSError, ValueError) as error:
    raise UserError(f"{path} cannot be read: {error}.") from error
  spec = content.get("model") if isinstance(content, dict) else None
  if not isinstance(spec, dict) or not isinstance(spec.get("family"), str):
    raise UserError(f"{path} does not say which model this is: it needs an entry 'model' with a 'family'.")
  if path.name == MODEL and content.get("format") != FORMAT:
    raise UserError(f"{path} is of format {content.get('format')}; this zoo reads {FORMAT}. Update the zoo.")
  return spec


def _essence(spec: Mapping[str, Any]) -> dict[str, Any]:
  return {name: value for name, value in spec.items() if value is not None and name not in COMPUTING}


def _model_in(folder: pathlib.Path) -> Any:
  spec = _spec_in(folder) or {}
  try:
    return build(**spec)
  except UserError as error:
    raise UserError(f"The model in {folder} cannot be built. {error}") from error


def _read_params(path: pathlib.Path, model: Any) -> Any:
  if not path.exists():
    raise UserError(f"{path} is missing, and pickled weights (.bin, .pt, .pkl) are never read.")
  try:
    with safe_open(path, framework="np") as file:
      # Names and shapes are in the header: nothing is read of a file that does not fit.
      names = list(file.keys())
      _check({name: tuple(file.get_slice(name).get_shape()) for name in names}, model, f"{path} does not fit")
      flat = {name: file.get_tensor(name) for name in names}
  except (SafetensorError, OSError) as error:
    raise UserError(f"{path} cannot be read: {error}. It is truncated or damaged; take another copy.") from error
  params = unflatten(flat)
  layout = jax.tree.structure(_shapes(model))
  return jax.tree.map(jnp.asarray, params if jax.tree.structure(params) == layout else stack_layers(params))


def _read_checkpoint(folder: pathlib.Path, model: Any, step: int | None, best: bool) -> Any:
  from zoo import checkpoints  # Orbax takes most of a second to import, and a finished model does not need it.

  steps = checkpoints.steps(folder)
  if not steps:
    raise UserError(f"{folder} has no finished checkpoint yet.")
  if best:
    step = checkpoints.best_step(checkpoints.scores(folder))
    if step is None:
      raise UserError(f"No checkpoint in {folder} has a score. Name a metric as checkpoint.best in the config.")
  step = steps[-1] if step is None else step
  if step not in steps:
    raise UserError(f"{folder} has no checkpoint of step {step}. It has: {', '.join(map(str, steps))}.")
  part = "ema" if any(name.startswith("ema/") for name in checkpoints.describe(folder / str(step))) else "params"
  return checkpoints.read(folder / str(step), {part: _shapes(model)})[part]


def _shapes(model: Any) -> Any:
  return jax.eval_shape(lambda rng: model.init(rng, *model.example()), jax.random.key(0))["params"]


def _to_host(array: Any) -> np.ndarray:
  if isinstance(array, jax.Array) and not array.is_fully_addressable:
    return multihost_utils.process_allgather(array, tiled=True)
  return np.asarray(array)


def _check(found: Mapping[str, tuple[int, ...]], model: Any, what: str) -> None:
  wanted = {name: leaf.shape for name, leaf in flatten(jax.eval_shape(unstack_layers, _shapes(model))).items()}
  if found != wanted:
    raise UserError(f"{what}: {mismatch(found, wanted)}.")
