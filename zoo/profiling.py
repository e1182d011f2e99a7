"""What the devices do in some steps of a run: `train.py --profile=10:13`, a trace for xprof and a table for people."""

import pathlib
import re
import tempfile
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax

from zoo.errors import UserError
from zoo.places import place

SHOWN = 15  # Operations in the table.


class Op(NamedTuple):
  """One run of an operation of a compiled program: its name without number, where it ran, when, in nanoseconds."""

  name: str
  where: str
  start: float
  end: float


class Profile:
  """Traces the steps from `first` to `last`, both included.

  Args:
    text: "10:13"; None: nothing is ever traced.
    folder: of the run; the trace goes to its folder `profile`.
    start: steps that the run has done. steps: where it ends.

  Raises:
    UserError: the text says no such steps.
  """

  def __init__(self, text: str | None, folder: Any, start: int, steps: int):
    self.first = self.last = 0
    self.folder = folder / "profile"
    self._local: tempfile.TemporaryDirectory | None = None
    if text is None:
      return
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
      raise UserError(f"--profile={text}: it must be the first step and the last one, e.g. 10:13.")
    self.first, self.last = int(match[1]), int(match[2])
    if self.first <= start or self.last > steps:
      raise UserError(f"--profile={text}: this run goes from step {start + 1} to {steps}. Choose steps among these.")

  def before(self, step: int) -> None:
    """To be called before `step` is given to the devices."""
    if step == self.first:
      self._local = tempfile.TemporaryDirectory()
      jax.profiler.start_trace(self._local.name)

  def after(self, step: int, outputs: Any) -> list[str]:
    """To be called with what `step` returned -> lines for people, behind the last step."""
    if step != self.last or self._local is None:
      return []
    jax.block_until_ready(outputs)
    jax.profiler.stop_trace()
    with self._local as local:
      found = [op for path in sorted(pathlib.Path(local).rglob("*.xplane.pb")) for op in operations(path)]
      for path in pathlib.Path(local).rglob("*"):
        if path.is_file():
          copy = place(self.folder) / path.relative_to(local).as_posix()
          copy.parent.mkdir(parents=True, exist_ok=True)
          copy.write_bytes(path.read_bytes())
    self._local = None
    title = f"Profile of the steps {self.first} to {self.last}, in {self.folder} (xprof --logdir={self.folder})"
    return [title, *summary(found, self.last - self.first + 1)]


def operations(path: pathlib.Path) -> list[Op]:
  """What ran, read from a trace (`.xplane.pb`): events that name an operation of a program."""
  found = []
  for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
    for line in plane.lines:
      for event in line.events:
        stats = {str(name): value for name, value in event.stats if name is not None}
        if "hlo_op" in stats or line.name == "XLA Ops":
          name = str(stats.get("hlo_op") or event.name).split(" = ")[0].lstrip("%")
          where = plane.name if plane.name.startswith("/device") else f"{plane.name}:{stats.get('device_ordinal', 0)}"
          found.append(Op(re.sub(r"[.\d]+$", "", name), where, event.start_ns, event.start_ns + event.duration_ns))
  return found


def summary(ops: Iterable[Op], steps: int) -> list[str]:
  """Lines: how busy every device was, and the operations that took longest, each without those within it."""
  ops = list(ops)
  if not ops:
    return ["The trace names no operation: this platform does not tell."]
  lines, own = [], own_times(ops)
  for where in sorted({op.where for op in ops}):
    spans = [(op.start, op.end) for op in ops if op.where == where]
    whole = max(end for _, end in spans) - min(start for start, _ in spans)
    lines.append(f"  {where}: busy {union(spans) / whole if whole else 1:.0%} of {whole / 1e6 / steps:,.2f} ms a step")
  total = sum(seconds for _, seconds in own.values())
  lines.append(f"  {'operation':<40}{'runs/step':>12}{'ms/step':>12}{'share':>8}")
  longest = sorted(own.items(), key=lambda item: -item[1][1])
  for name, (runs, spent) in longest[:SHOWN]:
    lines.append(f"  {name[:39]:<40}{runs / steps:>12,.1f}{spent / 1e6 / steps:>12,.3f}{spent / total:>8.1%}")
  rest = sum(spent for _, (_, spent) in longest[SHOWN:])
  return lines if not rest else [*lines, f"  {'the others':<52}{rest / 1e6 / steps:>12,.3f}{rest / total:>8.1%}"]


def own_times(ops: Iterable[Op]) -> dict[str, tuple[int, float]]:
  """name -> (runs, nanoseconds), a loop's time without that of what it runs, devices together."""
  found: dict[str, tuple[int, float]] = {}
  open_ones: dict[str, list[Op]] = {}

  def add(name: str, runs: int, spent: float) -> None:
    before = found.get(name, (0, 0.0))
    found[name] = before[0] + runs, before[1] + spent

  for op in sorted(ops, key=lambda op: (op.start, -op.end)):
    around = open_ones.setdefault(op.where, [])
    while around and around[-1].end <= op.start:
      around.pop()
    if around and op.end <= around[-1].end:
      add(around[-1].name, 0, op.start - op.end)
    add(op.name, 1, op.end - op.start)
    around.append(op)
  return found


def union(spans: Iterable[tuple[float, float]]) -> float:
  """The length of what these stretches cover together."""
  covered, until = 0.0, float("-inf")
  for start, end in sorted(spans):
    covered += max(0.0, end - max(start, until))
    until = max(until, end)
  return covered
