"""Search for the mesh, rematerialisation and batch size for given hardware: `train.py --plan=auto:v5e:4x4`."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import jax
from ml_collections import ConfigDict

from zoo.build import build, sizes_of
from zoo.errors import UserError, setting_up
from zoo.plan.chips import devices_of, parse_target
from zoo.plan.compile import Plan, plan
from zoo.plan.compile import show as show_plan
from zoo.sharding.explain import size

DEFAULT = "v5e:4x4"
EFFORT = "jax_exec_time_optimization_effort"  # XLA's effort, from -1 to 1.
BEHIND = 8  # Maximum size of mesh axes other than "data".
LONG = 8192  # Sequence length from which sharding sequences is tried.


@dataclasses.dataclass(frozen=True)
class Try:
  """One candidate and its plan.

  Attributes:
    changes: entries of the config, by their paths, that differ from it.
    outcome: the plan, or the error.
  """

  changes: dict[str, Any]
  outcome: Plan | str

  @property
  def seconds_per_example(self) -> float:
    """Seconds per example without overlap; infinite if it does not fit."""
    fits = isinstance(self.outcome, Plan) and self.outcome.fits
    return sum(self.outcome.times.values()) / self.outcome.rows if fits else float("inf")


def plan_report(config: Any, target: str, note: Callable[[str], None]) -> str:
  """The text of `train.py --plan=TARGET`: a table if that begins with "auto", else the plan.

  Raises:
    UserError: as `search` and `zoo.plan.compile.plan`.
  """
  if target.partition(":")[0] == "auto":
    return show(search(config, target, note))
  return show_plan(plan(config, target))


def search(
  config: Any, target: str, note: Callable[[str], None] = lambda line: None, make: Callable[[Any, str], Plan] = plan
) -> list[Try]:
  """Tries meshes with the config's remat policy and batch, then remat policies with the best of them,
  then batch sizes with the best of these.

  Args:
    config: as in `train.py`.
    target: "auto", for DEFAULT, or "auto:" and a target of `zoo.plan.compile.plan`.
    note: called with each candidate.
    make: `plan`.

  Returns:
    candidates, the best first: those that fit by time per example without overlap, then those that do not fit,
    by memory.

  Raises:
    UserError: there is no such target, or its compiler is missing.
  """
  named = target.partition(":")[2]
  if not named:
    note(f"no chips are named after auto: {DEFAULT}")
  target = str(parse_target(named or DEFAULT))
  chips, experts = len(devices_of(parse_target(target))), sizes_of(build(**config.model)).get("num_experts", 0)
  tries: dict[str, Try] = {}

  def attempt(changes: dict[str, Any]) -> None:
    settings = changed(config, changes)
    key = settings.to_json_best_effort(sort_keys=True)
    if key not in tries:
      note(f"{target}, {as_flags(changes)}")
      tries[key] = Try(changes, outcome(settings, target, make))

  with quick_compilation():
    for attempted in meshes(chips, experts, config.data.get("max_length", 0)):
      attempt(attempted)
    for remat in (None, "dots", "full"):
      attempt(ranked(tries.values())[0].changes | {"model.remat": remat})
    for factor in (0.5, 2, 4):
      attempt(ranked(tries.values())[0].changes | {"batch_size": int(config.batch_size * factor)})
  if all(isinstance(attempted.outcome, str) for attempted in tries.values()):
    raise UserError(f"--plan={target}: no configuration compiles: {next(iter(tries.values())).outcome}")
  return ranked(tries.values())


def meshes(chips: int, experts: int = 0, length: int = 0) -> Iterator[dict[str, Any]]:
  """Candidate meshes: the config's own, then data parallelism with replicated and with sharded parameters, then with
  tensor parallelism, expert parallelism and sequence parallelism."""
  yield {}
  yield {"mesh": {"data": -1}, "sharding": "replicated"}
  yield {"mesh": {"data": -1}, "sharding": "fsdp"}
  beside = {"model": "fsdp+tensor"}
  beside |= {"expert": "fsdp"} if experts else {}
  beside |= {"sequence": "fsdp"} if length >= LONG else {}
  for axis, sharding in beside.items():
    for ways in (2, 4, BEHIND):
      if chips % ways == 0 and chips > ways and (axis != "expert" or experts % ways == 0):
        yield {"mesh": {"data": -1, axis: ways}, "sharding": sharding}


def changed(config: Any, changes: dict[str, Any]) -> Any:
  """A copy of the config with other entries."""
  settings = config.copy_and_resolve_references().unlock()
  for path, value in changes.items():
    *sections, name = path.split(".")
    section = settings
    for part in sections:
      section = section[part]
    section[name] = ConfigDict(value) if isinstance(value, dict) else value
  return settings


def outcome(config: Any, target: str, make: Callable[[Any, str], Plan]) -> Plan | str:
  """The plan of a config, or its error as a str."""
  try:
    with setting_up():
      return make(config, target)
  except UserError as error:
    return str(error)


def ranked(tries: Iterable[Try]) -> list[Try]:
  """Sorts candidates, the best first."""

  def worth(one: Try) -> tuple:
    used = one.outcome.used if isinstance(one.outcome, Plan) else None
    return one.seconds_per_example, isinstance(one.outcome, str), float("inf") if used is None else used

  return sorted(tries, key=worth)


@contextlib.contextmanager
def quick_compilation() -> Generator[None]:
  """Context in which XLA optimises less: a third of the compile time; memory may differ by some percent."""
  before = getattr(jax.config, EFFORT)
  jax.config.update(EFFORT, -1.0)
  try:
    yield
  finally:
    jax.config.update(EFFORT, before)


def show(tries: list[Try]) -> str:
  """Table of candidates, the best first."""
  first = next(attempted.outcome for attempted in tries if isinstance(attempted.outcome, Plan))
  head = ["", "memory of a chip", "fits", "ms/step", "utilisation", f"{first.examples}/s", "changes"]
  lines, impossible = [head], []
  for number, attempted in enumerate(tries, 1):
    changes = as_flags(attempted.changes)
    if isinstance(attempted.outcome, str):
      impossible.append(f"{changes}: {attempted.outcome}")
      continue
    compiled_plan = attempted.outcome
    if compiled_plan.used is None:
      lines.append([str(number), "too much", "no", "", "", "", changes])
      continue
    low, high = max(compiled_plan.times.values()), sum(compiled_plan.times.values())
    lines.append(
      [
        str(number),
        size(compiled_plan.used),
        "yes" if compiled_plan.fits else "no",
        f"{1000 * low:.0f} to {1000 * high:.0f}",
        f"{compiled_plan.utilisation(high):.0%} to {compiled_plan.utilisation(low):.0%}",
        f"{compiled_plan.rows / high:,.0f} to {compiled_plan.rows / low:,.0f}",
        changes,
      ]
    )
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  table = ["  ".join(cell.rjust(width) for cell, width in zip(line[:-1], widths)) + "  " + line[-1] for line in lines]
  title = f"{first.target}: {first.chips} x {first.kind}. The best fits and takes least time per example."
  note = "Compiled with fewer optimisations than by --plan=TARGET; check the chosen one with that."
  return "\n".join([title, "", *table, *(["", "Not possible:", *impossible] if impossible else []), "", note])


def as_flags(changes: dict[str, Any]) -> str:
  """Config changes as command-line overrides of train.py."""
  return " ".join(f"--config.{path}={_text(value)}" for path, value in changes.items()) or "as in the config"


def _text(value: Any) -> str:
  if isinstance(value, dict):
    return "'" + json.dumps(value) + "'"
  return "none" if value is None else str(value)
