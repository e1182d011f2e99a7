"""Replay of bad steps: their batches are saved in the run folder, and analysed by `train.py --replay=FILE`."""

import io
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath
from jax.experimental import checkify

from zoo import sharding
from zoo.checkpoints import manager
from zoo.errors import UserError
from zoo.storage import as_path, replacing
from zoo.train.progress import number
from zoo.train.step import context_of
from zoo.tree import path_name

NAME = re.compile(r"step_(\d+)\.(\d+)_of_(\d+)\.npz")


def keep(folder: str | os.PathLike, step: int, batch: Mapping[str, np.ndarray], part: int, parts: int) -> epath.Path:
  """Writes `folder/bad/step_120.0_of_2.npz`, this host's part of batch 120, arrays [rows, ...] -> its path."""
  path = as_path(folder) / "bad" / f"step_{step}.{part}_of_{parts}.npz"
  path.parent.mkdir(parents=True, exist_ok=True)
  arrays: dict[str, Any] = dict(batch)
  with replacing(path) as temporary, open(temporary, "wb") as file:
    np.savez(file, **arrays)
  return path


def batch_of(path: str | os.PathLike) -> tuple[int, dict[str, np.ndarray]]:
  """Reads a saved batch, from the part at `path` and those beside it -> the step, and name -> array [batch, ...].

  Raises:
    UserError: the file is missing or has another name, or a part is missing or unreadable.
  """
  path = as_path(path)
  match = NAME.fullmatch(path.name)
  if match is None:
    raise UserError(f"--replay is {path}. It must be a file FOLDER/bad/step_N.0_of_1.npz of a run.")
  step, parts = int(match[1]), int(match[3])
  read = []
  for i in range(parts):
    part = path.parent / f"step_{step}.{i}_of_{parts}.npz"
    try:
      with np.load(io.BytesIO(part.read_bytes())) as arrays:
        read.append({name: arrays[name] for name in arrays.files})
    except (OSError, ValueError, EOFError) as error:
      raise UserError(f"{part} cannot be read: {error}. Every host writes one part, and all are needed.") from error
  return step, {name: np.concatenate([part[name] for part in read]) for name in read[0]}


def replay(
  path: str | os.PathLike, experiment: Any, mesh: Any, folder: str | os.PathLike, initial: Callable[[], Any]
) -> str:
  """Replays the step of a saved batch -> a report: loss, gradient norm, and the first values that are not finite.

  The state before it is recomputed from the newest checkpoint before it (or from the start, if there is none). If only
  later checkpoints are left, the oldest of them is used.

  Args:
    path: of a file that `keep` wrote.
    experiment: from `zoo.train.experiment`. mesh: its mesh.
    folder: of the checkpoints.
    initial: returns the state of step 0.
  """
  step, batch = batch_of(path)
  saved = manager.steps(folder)
  before = [n for n in saved if n < step]
  start = max(before) if before else min(saved, default=0)
  if saved:
    state = manager.read_state(
      epath.Path(folder) / str(start),
      jax.tree.map(lambda x, s: x.update(sharding=s), experiment.shapes, experiment.placed),
    )
  else:
    state = initial()
  lines = [f"Step {step}, with its own parameters"]
  if start >= step:
    lines = [f"Step {step}, with the parameters of step {start}: no earlier checkpoint is left"]
  run_step, collect = experiment.compiled_step(), experiment.compiled_collect() or (lambda state, batch, *_: batch)
  frozen = experiment.frozen_arguments(experiment.frozen.put())
  for n in range(start, step - 1):
    arrays = collect(state, sharding.put_batch(experiment.batches[n], mesh), *frozen)
    state, _, _ = run_step(state, arrays, *frozen)
  params, where = state["params"], context_of(state, *(frozen or ({},)))._replace(step=jnp.int32(step - 1))
  arrays = collect(state, sharding.put_replicated(batch, mesh), *frozen)
  (loss, metrics), grads = jax.jit(jax.value_and_grad(experiment.loss, has_aux=True))(params, arrays, where)
  metrics_of_step = {"loss": loss, **metrics, "grad_norm": optax.tree.norm(grads)}
  lines += [f"  {name} {number(value)}" for name, value in metrics_of_step.items()]
  lines += ["Not finite:"] + [
    f"  {what}: {_not_finite(tree)}" for what, tree in (("batch", batch), ("parameters", params), ("gradients", grads))
  ]
  error, _ = jax.jit(checkify.checkify(experiment.loss, errors=checkify.nan_checks))(params, arrays, where)
  lines.append(f"First NaN in the forward pass: {_first_line(error.get())}")
  return "\n".join(lines)


def _not_finite(tree: Any) -> str:
  """`3 of 40 arrays: a/b (7 of 12 numbers), ...`, in the order of the tree; "none"."""
  counts = jax.tree.map(lambda x: jnp.sum(~jnp.isfinite(x)) if jnp.issubdtype(x.dtype, jnp.inexact) else 0, tree)
  counts_by_name = [(path_name(path), int(n)) for path, n in jax.tree_util.tree_leaves_with_path(counts) if n]
  sizes = {path_name(path): x.size for path, x in jax.tree_util.tree_leaves_with_path(tree)}
  if not counts_by_name:
    return "none"
  shown = ", ".join(f"{name} ({n:,} of {sizes[name]:,} numbers)" for name, n in counts_by_name[:8])
  return f"{len(counts_by_name)} of {len(sizes)} arrays: {shown}{', ...' if len(counts_by_name) > 8 else ''}"


def _first_line(message: str | None) -> str:
  return " ".join(message.split())[:500] if message else "none"
