"""Sharding verification: `train.py --verify-sharding`, and before the first step of a run.

Results are cached in the run folder (verified.json) and in the cache folder, keyed by everything that determines how a
program is partitioned: mesh, strategy, rules, model, objective, shapes of a batch, and the versions of XLA and the zoo.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jaxlib
from jax.sharding import Mesh

from zoo.config.loading import without
from zoo.config.schema import resolve
from zoo.data.cache import cache_folder
from zoo.errors import UserError
from zoo.hosts.consensus import all_hosts
from zoo.storage import replacing
from zoo.train.experiment import Experiment
from zoo.verify.comparison import compare
from zoo.verify.reduced_program import BY_NAME

FILE = "verified.json"  # In the run folder.
CODE = ("layers", "models", "objectives", "optim", "sharding", "kernels")
WAY_OUT = (
  "XLA computes wrong numbers for this placement. Change sharding, activations or mesh (docs/sharding.md, "
  "'Wrong numbers of the compiler'); --config.verify=never trains regardless."
)


def verified(config: Any, experiment: Experiment, mesh: Mesh) -> str:
  """Verifies for `--verify-sharding`, ignoring cached results -> a line that the mesh computes the same as one device.

  Raises:
    UserError: it does not, or that cannot be verified.
  """
  if mesh.size == 1:
    return "The mesh is one device, so there is no sharding to verify."
  return f"{_place(config, mesh)}: {_checked(config, experiment, mesh)}"


def before_training(
  config: Any, experiment: Experiment, mesh: Mesh, folder: Any, note: Callable[[str], None]
) -> dict | None:
  """Verifies according to the config's `verify`: "always", "never", or "auto": once for each partitioned program.

  Args:
    folder: of the run, an `epath.Path`.
    note: called with the result, or why there is none.

  Returns:
    the record for `folder / FILE`; None if it exists or nothing was verified.

  Raises:
    UserError: results on the mesh differ from those of one device; with "always" also if that cannot be verified.
  """
  if config.verify == "never" or mesh.size == 1:
    return None
  record = {"key": key(config, experiment, mesh), "place": _place(config, mesh), "jax": jax.__version__}
  in_folder, cached = _read(folder / FILE), _read(_cache(record["key"]))
  remembered = cached if in_folder.get("key") != record["key"] else in_folder
  # Caches of hosts may differ, and all hosts have to take part.
  if config.verify == "auto" and all_hosts(remembered.get("key") == record["key"]):
    return None if remembered is in_folder else remembered
  try:
    record["result"] = _checked(config, experiment, mesh)
  except Unknown as error:
    if config.verify == "always":
      raise
    note(f"{error} Training continues without verification.")
    return None
  note(f"Verified on {record['place']}: {record['result']}")
  with contextlib.suppress(OSError, UserError):  # Failing to write a cache must not end a run.
    _cache(record["key"]).parent.mkdir(parents=True, exist_ok=True)
    with replacing(_cache(record["key"])) as path:
      path.write_text(json.dumps(record, indent=2))
  return record


class Unknown(UserError):
  """The sharding cannot be verified."""


def _checked(config: Any, experiment: Experiment, mesh: Mesh) -> str:
  try:
    verdict = compare(config, experiment, mesh)
  except (ValueError, TypeError, jax.errors.JaxRuntimeError, MemoryError) as error:
    first = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
    raise Unknown(f"{_place(config, mesh)} could not be compared with one device: {first}.") from error
  if verdict.wrong:
    raise UserError(f"{_place(config, mesh)}: {verdict.line()}. {WAY_OUT}")
  return verdict.line()


def key(config: Any, experiment: Experiment, mesh: Mesh) -> str:
  """Cache key: a digest of everything that determines how a config's step is partitioned."""
  devices = mesh.devices.flat
  example = experiment.sample(1)
  inputs = {
    "mesh": list(mesh.shape.items()),
    "hosts": [device.process_index for device in devices],
    "kind": devices[0].device_kind,
    **{name: resolve(config[name]) for name in ("model", "objective", "sharding", "activations", "attention")},
    "rows": [config.batch_size, config.optimizer.get("accumulate", 1)],
    "optimizer": without(config.optimizer, *BY_NAME, "learning_rate", "ema"),
    "augment": resolve(config.data.get("augment", [])),
    "frozen": {name: [model.spec, repr(model)] for name, model in experiment.frozen.models.items()},
    "batch": {name: [x.shape[1:], str(x.dtype)] for name, x in sorted(example.items())},
    "versions": [jax.__version__, jaxlib.__version__],
    "options": [os.environ.get(name, "") for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")],
    "partitioner": getattr(jax.config, "jax_use_shardy_partitioner", None),
    "code": _code(),
  }
  return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _code() -> str:
  """Digest of the source files that define computation and sharding."""
  zoo, digest = Path(__file__).parents[1], hashlib.sha256()
  for package in CODE:
    for path in sorted((zoo / package).glob("*.py")):
      digest.update(path.name.encode() + path.read_bytes())
  return digest.hexdigest()


def _place(config: Any, mesh: Mesh) -> str:
  """Describes the mesh and sharding in words."""
  strategy = config.sharding if isinstance(config.sharding, str) else f"{len(config.sharding)} lines"
  rules = f", {len(config.activations)} rules of activations" if config.activations else ""
  return f"mesh {dict(mesh.shape)}, sharding {strategy}{rules}"


def _cache(digest: str) -> Path:
  return cache_folder() / "verified" / f"{digest}.json"


def _read(path: Any) -> dict[str, Any]:
  """Reads a cached record; {} if it is missing or corrupt."""
  try:
    record = json.loads(path.read_text())
  except (OSError, ValueError):
    return {}
  return record if isinstance(record, dict) else {}
