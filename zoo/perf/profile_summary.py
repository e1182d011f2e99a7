"""Profile summary: utilisation of each device, and time by kind of operation and module.

`xplane.pb` has planes (devices and the host) of lines (streams, threads) of events. Operations are events of
a device's line "XLA Ops" (TPU) or of its streams (GPU), and on CPUs those events of threads that name an `hlo_op`.
"""

import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

MOST = 15  # Lines of the table.
KINDS = 6  # Of operations, which the line above sums up.

_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = .*? ([a-z][\w\-]*)\(")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) (?:\(.*\) -> .*)?\{$")
_NAME = re.compile(r'op_name="([^"]*)"')
_CALLS = re.compile(r"calls=%?([\w.\-]+)")
# A fusion is named after the first of these that it contains.
_HEAVY = ("convolution", "dot", "custom-call", "scatter", "gather", "sort", "reduce-window", "reduce")
_TRANSFORM = re.compile(r"^(\w+)\((.*)\)$")
_NO_MODULE = {"while", "body", "cond", "closed_call", "checkpoint", "remat", "rematted_computation", "branch_0_fun"}


class Operation(NamedTuple):
  """One event: device and line it ran on, when it began and how long it took (nanoseconds), and what it is."""

  device: str
  line: str
  start: float
  length: float
  category: str
  where: str


def summary(profile: Any, programs: Sequence[Any], seconds: float, steps: int) -> str:
  """Summarises a profile in human-readable lines.

  Args:
    profile: `jax.profiler.ProfileData`, or an object with its interface.
    programs: `jax.stages.Compiled`, the programs that ran, which map operations to modules if the profile does not.
    seconds: recorded time.
    steps: recorded steps.
  """
  modules: dict[str, tuple[str, str]] = {}
  for program in programs:
    modules |= instructions(program.as_text() or "")
  # The classes of jaxlib 0.12 warn about themselves on creation; as an error this would end the process.
  with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
    ops_of_all = list(operations(profile, modules))
  if not ops_of_all:
    return "There are no operations of devices in it."
  lines: dict[tuple[str, str], list[Operation]] = defaultdict(list)
  for op in ops_of_all:
    lines[op.device, op.line].append(op)
  table = [f"{'':<28}{'busy':>8}{'idle':>8}"]
  for device in dict.fromkeys(op.device for op in ops_of_all):
    device_lines = {line: ops for (name, line), ops in lines.items() if name == device}
    # On a CPU any thread of a pool takes any operation.
    shares = {device: sum(device_lines.values(), [])} | (
      {} if len(device_lines) == 1 or device.startswith("CPU") else device_lines
    )
    for line, ops in shares.items():
      busy = min(1.0, covered(ops) / (1e9 * seconds))
      table.append(f"{line if line == device else '  ' + line[:24]:<28}{busy:>8.1%}{1 - busy:>8.1%}")

  spent: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0])
  for ops in lines.values():
    for op, alone in own_times(ops):
      entry = spent[op.category, op.where]
      entry[0] += alone
      entry[1] += 1
  total = sum(time for time, _ in spent.values()) or 1.0
  kinds: dict[str, float] = defaultdict(float)
  for (category, _), (time, _) in spent.items():
    kinds[category] += time / total
  largest = sorted(kinds.items(), key=lambda item: -item[1])[:KINDS]
  table += ["", "of their time: " + ", ".join(f"{kind} {share:.1%}" for kind, share in largest)]
  each = steps * len({op.device for op in ops_of_all})
  ranked = sorted(spent.items(), key=lambda item: -item[1][0])
  table += ["", "on a device, in a step", f"{'share':>6}{'ms':>10}{'times':>9}  {'operation':<24}part of the model"]
  for (category, where), (time, times) in ranked[:MOST]:
    row = f"{time / total:>6.1%}{time / each / 1e6:>10.3f}{times / each:>9.1f}  {category[:23]:<24}{where}"
    table.append(row.rstrip())
  rest = sum(time for _, (time, _) in ranked[MOST:])
  if rest:
    table.append(f"{rest / total:>6.1%}{rest / each / 1e6:>10.3f}{'':>9}  {len(ranked) - MOST} more")
  return "\n".join(table)


def operations(profile: Any, modules: Mapping[str, tuple[str, str]]) -> Iterator[Operation]:
  """Operations of all devices. `modules`: from `instructions`."""
  for plane in profile.planes:
    lines = list(plane.lines)
    if plane.name.startswith("/device:"):
      device = plane.name.removeprefix("/device:")
      named = [line for line in lines if line.name == "XLA Ops"]
      for line in named or [line for line in lines if line.name.startswith("Stream")]:
        for event in line.events:
          yield _operation(event, dict(event.stats), device, line.name, modules)
    elif plane.name.startswith("/host:"):
      for line in lines:
        for event in line.events:
          stats = dict(event.stats) if not event.name.startswith(("end: ", "Threadpool")) else {}
          if "hlo_op" in stats:
            yield _operation(event, stats, f"CPU:{stats.get('device_ordinal', 0)}", line.name, modules)


def _operation(event: Any, stats: Mapping[str, Any], device: str, line: str, modules: Mapping) -> Operation:
  label = str(stats.get("hlo_op") or event.name)
  text = re.match(r"%?([\w.\-]+)", label)
  name = text[1] if text else label
  category, path = modules.get(name, ("", ""))
  # For operations of other programs only the name without its number is known: copy.12 -> copy.
  category = str(stats.get("hlo_category") or category or re.sub(r"[.\d]+$", "", name))
  path = str(stats.get("tf_op") or path)
  return Operation(device, line, event.start_ns, event.duration_ns, category, part(path))


def instructions(text: str) -> dict[str, tuple[str, str]]:
  """Parses the text of a compiled program: name of an instruction -> its kind and its path in the program.

  A fusion is named after its most expensive operation: "dot fusion", "reduce fusion", "elementwise fusion".
  """
  kind_and_path: dict[str, tuple[str, str]] = {}
  inside: dict[str, set[str]] = defaultdict(set)  # computation -> its opcodes
  fusions: dict[str, str] = {}
  computation = ""
  for line in text.splitlines():
    head = _COMPUTATION.match(line)
    if head:
      computation = head[1]
      continue
    match = _INSTRUCTION.match(line)
    if match is None:
      continue
    path, called = _NAME.search(line), _CALLS.search(line)
    inside[computation].add(match[2])
    kind_and_path[match[1]] = (match[2], path[1] if path else "")
    if match[2] == "fusion" and called:
      fusions[match[1]] = called[1]
  for name, called in fusions.items():
    heavy = next((kind for kind in _HEAVY if kind in inside[called]), "elementwise")
    kind_and_path[name] = (f"{heavy} fusion", kind_and_path[name][1])
  return kind_and_path


def part(path: str) -> str:
  """Module and pass of an op_name: "jit(step)/transpose(jvp(GPT))/stack/layer_2/query/dot_general" ->
  "GPT/stack/layer_*/query, backward"; "jit(step)/mul" -> "outside the model"."""
  way, names = "", []
  for piece in path.split("/")[:-1]:
    while match := _TRANSFORM.match(piece):
      if match[1] == "transpose":
        way = "backward"
      elif match[1] == "jvp":
        way = way or "forward"
      piece = match[2] if match[1] not in ("jit", "pjit") else ""
    if piece and piece not in _NO_MODULE and re.fullmatch(r"\w+", piece):
      names.append(re.sub(r"_\d+$", "_*", piece))
  if not way:
    return "outside the model" if path else ""
  return f"{'/'.join(names) or 'loss'}, {way}"


def covered(ops: Iterable[Operation]) -> float:
  """Nanoseconds during which at least one operation ran."""
  total, end = 0.0, float("-inf")
  for op in sorted(ops, key=lambda op: op.start):
    total += max(0.0, op.start + op.length - max(end, op.start))
    end = max(end, op.start + op.length)
  return total


def own_times(ops: Iterable[Operation]) -> list[tuple[Operation, float]]:
  """Operations with their self time in nanoseconds, without nested operations, e.g. of a loop's body."""
  entries: list[list[Any]] = []
  around: list[list[Any]] = []
  for op in sorted(ops, key=lambda op: (op.start, -op.length)):
    while around and around[-1][0].start + around[-1][0].length <= op.start:
      around.pop()
    if around and op.start + op.length <= around[-1][0].start + around[-1][0].length:
      around[-1][1] -= op.length
    entry = [op, op.length]
    around.append(entry)
    entries.append(entry)
  return [(op, max(0.0, alone)) for op, alone in entries]
