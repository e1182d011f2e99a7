"""Compares loss, gradients and updates of a config on a mesh with those of one device.

XLA's partitioner silently computes wrong results for some valid placements (docs/sharding.md, "Wrong numbers of the
compiler"). So the configured model, reduced to sizes that divide alike (`zoo.verify.reduced_config`), runs with the
configured objective on the mesh and on one device, with random parameters, in float32. So does its optimiser, with
equal random gradients: if an optimiser divides by small numbers, rounding of different gradients would look
like an error.

Everything is float32, including gradients summed over devices (`optimizer.reduce_dtype`): precision has no influence
on partitioning, and errors stand out from float32's rounding.
"""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from zoo.errors import UserError
from zoo.layers.returned import intercept_outputs
from zoo.train.experiment import Experiment
from zoo.train.xla_options import compiler_options
from zoo.tree import path_names
from zoo.verify.reduced_config import Reduced
from zoo.verify.reduced_program import Program, program, reduce, update

# A difference counts above this fraction of the largest entry, and above so many times the effect of rounding.
RELATIVE, ROUNDING = 1e-4, 20.0
PERTURBATION = 2.0**-21  # Perturbation of parameters to measure the effect of rounding on gradients.
QUICKLY = {"xla_backend_optimization_level": 0}
NOTHING_BUT = 1e-3  # A gradient that rounding changes by this fraction is zero up to rounding, such as a key bias's.
UPDATE, CARRIED = "the update of ", "what is carried in "  # Prefix of their names.
NEGLIGIBLE = 1e-7  # Relative to the largest gradient of all: smaller ones are rounding.


class Verdict(NamedTuple):
  """The result of a comparison.

  Attributes:
    wrong: name ("loss", CARRIED and the path of a carried array, the path of a parameter for its gradient,
      UPDATE and the path for its update) -> largest difference relative to the largest entry; of those that differ, in
      the order of a step: the loss, carried arrays, gradients from the last module to the first, updates.
    module: the first module whose output differs, "" if none or unknown.
    parameters: number of compared parameters.
    largest: the largest relative difference among those that agree.
    reduced: description of what was reduced.
    seconds: duration.
  """

  wrong: dict[str, float]
  module: str
  parameters: int
  largest: float
  reduced: str
  seconds: float

  def line(self) -> str:
    """Human-readable text."""
    if self.wrong:
      name, error = next(iter(self.wrong.items()))
      what = "the loss" if name == "loss" else name if name.startswith((UPDATE, CARRIED)) else f"the gradient of {name}"
      kind = "updates" if name.startswith(UPDATE) else "gradients"
      others = [path for path in self.wrong if not path.startswith(CARRIED)]
      alike = sum(path.startswith(UPDATE) == name.startswith(UPDATE) for path in others) if name in others else 1
      more = f", and so do {alike - 1} others of {self.parameters} {kind}" if alike > 1 else ""
      where = f"; the first module whose output differs is {self.module}" if self.module else ""
      return f"{what} differs from one device's by {error:.2g} times its largest entry{more}{where}"
    return (
      f"loss, {self.parameters} gradients and the optimizer's updates equal one device's, within "
      f"{self.largest:.1g} of their largest entries "
      f"(float32; reduced: {self.reduced}; {self.seconds:.1f} s)"
    )


def numbers(shapes: Any, seed: int) -> dict[str, np.ndarray]:
  """Random NumPy float32 parameters, also for those initialised as constants, so that no gradient is zero by chance."""
  rng = np.random.default_rng(seed)

  def draw(path: tuple, leaf: Any) -> np.ndarray:
    name = path[-1].key
    if leaf.ndim < 2 or not leaf.size:
      return (rng.standard_normal(leaf.shape) * 0.3 + (name == "scale")).astype(leaf.dtype)
    fan_in = math.prod(leaf.shape[:-1]) if name == "kernel" and leaf.ndim < 5 else leaf.shape[-1]
    return (
      rng.standard_normal(leaf.shape, np.float32) / math.sqrt(min(fan_in, leaf.shape[0] * leaf.shape[-1]))
    ).astype(leaf.dtype)

  return jax.tree_util.tree_map_with_path(draw, shapes)


def compare(config: Any, experiment: Experiment, mesh: Mesh) -> Verdict:
  """Compares loss and gradients on a mesh with one device's. Every host must call it; all return the same verdict.

  Args:
    config: as in `train.py`.
    experiment: from `zoo.train.experiment.experiment(config, mesh)`.
    mesh: devices to compare on; each host compares its devices' shards with the results of one device alone.

  Raises:
    UserError: one device's results are not finite, or all gradients are zero.
  """
  start = time.monotonic()
  reduced, split, batch = reduce(config, experiment, mesh)
  single_mesh = Mesh(np.array(jax.local_devices(backend=mesh.devices.flat[0].platform)[:1]), ("data",))
  alone = program(config, experiment, reduced, batch, single_mesh, alone=True)
  params = numbers(split.shapes, seed=config.seed % 2**32)
  with jax.default_matmul_precision("highest"):
    on_mesh = jax.tree.leaves(_compiled(split, mesh)(_put(params, split.placed), *_rows_and_frozen(batch, split)))
    run, beside = _compiled(alone, single_mesh), _rows_and_frozen(batch, alone)
    expected, *perturbed = (
      _leaves(run(_put(tree, alone.placed), *beside)) for tree in (params, _perturbed(params, 0), _perturbed(params, 1))
    )
    carried, parameters = [CARRIED + name for name in alone.carried], path_names(alone.shapes)
    gradients = _compared(on_mesh, expected, perturbed, num_separate=(num_separate := 1 + len(carried)))
    if not np.isfinite(gradients.entries).all() or not gradients.entries[num_separate:].any():
      raise UserError("with random parameters one device's loss or gradients are not finite, or all gradients are zero")
    updates = _updates(config, params, (split, mesh), (alone, single_mesh))
    order = [*range(num_separate), *(num_separate + i for i in _backwards(parameters, alone.modules))]
    names = ["loss", *carried, *parameters]
    wrong = {names[i]: gradients.relative[i] for i in order if gradients.bad[i]}
    module = _first_module(config, experiment, reduced, batch, params, mesh, single_mesh) if wrong else ""
    wrong |= {UPDATE + parameters[i]: updates.relative[i] for i in np.flatnonzero(updates.bad)}
  largest = max(gradients.largest, updates.largest)
  return Verdict(wrong, module, len(parameters), largest, reduced.what, time.monotonic() - start)


class _Compared(NamedTuple):
  """Per array: its largest entry, the relative difference, and whether it is wrong.

  Attributes:
    largest: the largest difference that is not wrong.
  """

  entries: np.ndarray
  relative: list[float]
  bad: np.ndarray
  largest: float


def _compared(
  actual: list[jax.Array], expected: list[np.ndarray], perturbed: list[list[np.ndarray]], num_separate: int = 0
) -> _Compared:
  """Compares arrays computed on a mesh with one device's.

  Args:
    perturbed: results for inputs perturbed by about rounding.
    num_separate: number of leading arrays whose scale is unrelated to the others.
  """
  rounding = [
    max(_largest(a - x) for a in perturbed_arrays) for x, *perturbed_arrays in zip(expected, *perturbed, strict=True)
  ]
  errors = [_difference(array, reference) for array, reference in zip(actual, expected, strict=True)]
  errors, rounding, entries = _of_all_hosts([errors, rounding, [_largest(x) for x in expected]])
  floor = NEGLIGIBLE * entries[num_separate:].max(initial=0) * (np.arange(len(entries)) >= num_separate)
  bad = ~(errors <= RELATIVE * entries + ROUNDING * rounding + floor)
  relative = errors / np.where(entries > 0, entries, 1)
  largest = float(relative[~bad & (rounding < NOTHING_BUT * entries)].max(initial=0))
  return _Compared(entries, relative.tolist(), bad, largest)


def _updates(config: Any, params: Any, split: tuple[Program, Mesh], alone: tuple[Program, Mesh]) -> _Compared:
  """The optimiser's updates in a second step, when its state is no longer zero.

  A second step's gradients have the signs of the first's: where momentum and gradient cancel, rounding decides.
  """
  on_mesh_update, single_update = update(config, *split), update(config, *alone, alone=True)
  (program, mesh), (single, single_mesh) = split, alone
  first = numbers(program.shapes, seed=(config.seed + 1) % 2**32)
  rng = np.random.default_rng(config.seed % 2**32)
  second = jax.tree.map(lambda x: (x * rng.uniform(1, 2, x.shape)).astype(x.dtype), first)

  def compiled(update, program, mesh):
    shardings = program.placed, update.placed
    return _jit(update.run, mesh, (*shardings, program.placed), shardings)

  single_params = _put(params, single.placed)
  run = compiled(single_update, single, single_mesh)
  begun = _jit(single_update.begin, single_mesh, (single.placed,), single_update.placed)(single_params)
  state = run(_put(first, single.placed), begun, single_params)[1]
  expected, *perturbed = (
    _leaves(run(_put(tree, single.placed), state, single_params)[0])
    for tree in (second, _perturbed(second, 0), _perturbed(second, 1))
  )
  state = _put(jax.tree.map(np.asarray, state), on_mesh_update.placed)
  run = compiled(on_mesh_update, program, mesh)
  on_mesh = run(_put(second, program.placed), state, _put(params, program.placed))[0]
  return _compared(jax.tree.leaves(on_mesh), expected, perturbed)


def _of_all_hosts(numbers: Any) -> np.ndarray:
  """Elementwise maximum over hosts."""
  array = np.array(numbers, np.float32)
  return array if jax.process_count() == 1 else multihost_utils.process_allgather(array).max(0)


def _compiled(program: Program, mesh: Mesh) -> Callable:
  return _jit(program.run, mesh, program.inputs_placed, (None, None, program.placed))


def _jit(run: Callable, mesh: Mesh, in_shardings: Any, out_shardings: Any) -> Callable:
  # Few operations: on CPUs fast compilation matters more than fast code.
  options = QUICKLY if mesh.devices.flat[0].platform == "cpu" else compiler_options(mesh)
  return jax.jit(run, in_shardings=in_shardings, out_shardings=out_shardings, compiler_options=options)


def _put(tree: Any, placed: Any) -> Any:
  return jax.tree.map(
    lambda x, place: jax.make_array_from_callback(x.shape, place, lambda index: x[index]), tree, placed
  )


def _rows_and_frozen(batch: Mapping[str, np.ndarray], program: Program) -> tuple[Any, Any]:
  return _put(dict(batch), dict.fromkeys(batch, program.by_row)), _put(program.frozen, program.frozen_placed)


def _perturbed(params: Any, seed: int) -> Any:
  """Parameters perturbed by about a rounding error."""
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: x * (1 + PERTURBATION * rng.choice(np.array([-1, 1], np.float32), x.shape)).astype(x.dtype), params
  )


def _leaves(tree: Any) -> list[np.ndarray]:
  return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def _largest(array: np.ndarray) -> float:
  return float(np.abs(array).max(initial=0))


def _difference(array: jax.Array, reference: np.ndarray) -> float:
  """Largest absolute difference over this host's shards; infinite for NaN."""
  pieces = [np.abs(np.asarray(shard.data) - reference[shard.index]) for shard in array.addressable_shards]
  return max((float(np.nan_to_num(piece, nan=np.inf, posinf=np.inf).max(initial=0)) for piece in pieces), default=0.0)


def _backwards(names: list[str], modules: list[str]) -> list[int]:
  """Indices of parameters in `names`, in reverse order of their modules' calls."""
  call = {path: i for i, path in enumerate(modules)}

  def when(name: str) -> int:
    parts = name.split("/")
    prefixes = ("/".join(parts[:end]) for end in range(len(parts) - 1, -1, -1))
    return next((call[path] for path in prefixes if path in call), -1)

  return sorted(range(len(names)), key=lambda i: -when(names[i]))


def _first_module(
  config: Any,
  experiment: Experiment,
  reduced: Reduced,
  batch: Mapping[str, np.ndarray],
  params: Any,
  mesh: Mesh,
  single_mesh: Mesh,
) -> str:
  """The first module whose output differs on the mesh; "" if none does, or if outputs cannot leave a loop.

  Returning outputs may change the program so that they are correct: then only the parameter is known.
  """
  plain = reduced._replace(model={**reduced.model, "remat": None})  # Remat hides the outputs of modules.
  outputs = []
  try:
    for meshes in ((mesh,), (single_mesh, True)):
      part = program(config, experiment, plain, batch, *meshes)
      run = jax.jit(_outputs(part.forward), in_shardings=part.inputs_placed)
      outputs.append(dict(run(_put(params, part.placed), *_rows_and_frozen(batch, part))))
  except jax.errors.UnexpectedTracerError:
    return ""
  on_mesh, expected = outputs
  common = [path for path in part.modules if path in on_mesh and path in expected]
  references = [np.asarray(expected[path]) for path in common]
  errors = [_difference(on_mesh[path], reference) for path, reference in zip(common, references, strict=True)]
  errors, entries = _of_all_hosts([errors, [_largest(reference) for reference in references]])
  return next((path for path, error, entry in zip(common, errors, entries) if error > 10 * RELATIVE * entry), "")


def _outputs(forward: Callable) -> Callable:
  """(params, batch, frozen) -> outputs by path of the module, in the order of calls, outside of scans."""

  def run(params, batch, frozen):
    outputs: dict[str, jax.Array] = {}

    def keep(path, array):
      if "layers" not in path.split("/") and jnp.issubdtype(array.dtype, jnp.floating):
        outputs.setdefault(path, array)
      return array

    with intercept_outputs(keep):
      forward(params, batch, frozen)
    return outputs

  return run
