"""Collectives of a compiled program, parsed from its HLO.

XLA's cost analysis counts a loop's body once, and lists no collectives; both are in the HLO text.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute")
BITS = {
  "pred": 8, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "bf16": 16, "f16": 16, "s16": 16, "u16": 16, "f32": 32, "s32": 32,
  "u32": 32, "f64": 64, "s64": 64, "u64": 64, "c64": 64, "c128": 128,
}  # fmt: skip
# Collectives that JAX emits, in a shard_map, share one channel: the operation and its count distinguish them.
SHARED_CHANNEL = "1"

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) (?:\(.*\) -> .*)?\{$")
_COLLECTIVE = re.compile(rf"^(?:ROOT )?%?[\w.\-]+ = (.*?) ({'|'.join(KINDS)})(-start)?\(")
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\]")
_WHILE = re.compile(r" while\(.*condition=%?([\w.\-]+), body=%?([\w.\-]+)")
_CALLED = re.compile(r"(?:calls|to_apply|branch_computations|called_computations)=(?:\{([^}]*)\}|%?([\w.\-]+))")
_MEGASCALE = re.compile(r"= \((.*?)\) send\(.*_xla_megascale_transfer_type=\"([A-Z_]+)\"")
_KNOWN = re.compile(r'known_trip_count"?:\s*\{"?n"?:\s*"?(\d+)')
_CONSTANT = re.compile(r"= [su]\d+\[\]\S* constant\((\d+)\)")
_OPERANDS = re.compile(r" (?:add|tuple|while|get-tuple-element)\(([^)]*)\)")
_INDEX = re.compile(r" get-tuple-element\(.*index=(\d+)")
_MEANWHILE = "async_collective_fusion"  # A computation that overlaps a collective, and contains a copy of it.


class Collective(NamedTuple):
  """One collective operation.

  kind: of KINDS.
  bytes: of its result on one device; for a reduce-scatter, of its operand.
  times: number of executions.
  devices: size of a replica group.
  axes: mesh axes of a replica group.
  networks: number of networks (TPU slices, GPU hosts) that a group spans.
  """

  kind: str
  bytes: int
  times: int
  devices: int
  axes: tuple[str, ...]
  networks: int = 1

  @property
  def sent(self) -> int:
    """Bytes that a device sends over links, in all executions, with the best ring algorithm.

    For n devices: (n - 1) / n of the bytes, twice that for an all-reduce (a reduce-scatter and an all-gather),
    and for a permute all bytes. https://arxiv.org/abs/1909.08053 and NCCL's documentation on bus bandwidth count alike.
    """
    return round(self._sent(self.devices // self.networks))

  @property
  def sent_across(self) -> int:
    """Bytes that a device sends over the network, to which all devices of a slice or host contribute equally."""
    return round(self._sent(self.networks) / (self.devices // self.networks))

  def _sent(self, members: int) -> float:
    part = (members > 1) if self.kind == "collective-permute" else (members - 1) / members
    return (2 if self.kind == "all-reduce" else 1) * part * self.bytes * self.times


def collectives(text: str, mesh: Mapping[str, int], networks: Sequence[int] | None = None) -> list[Collective]:
  """Lists the collectives of a program compiled for a mesh.

  Args:
    text: `compiled.as_text()`.
    mesh: `mesh.shape`, axis name -> size; devices are numbered in the mesh's order.
    networks: the network of each device; None: all are in one.
  """
  bodies = dict(_computations(text))
  runs = _runs(bodies)
  # If XLA overlaps a collective with computation, copies of it are at its start, in between and at its end, with one
  # channel. If the first iteration of a loop was peeled off, those in the loop count. In between may be a loop of
  # its own, whose iterations do not count.
  by_channel: dict[str, Collective] = {}
  for name, lines in sorted(bodies.items(), key=lambda item: item[0].startswith(_MEANWHILE)):
    repeats: Counter[str] = Counter()
    for number, line in enumerate(lines):
      match = _COLLECTIVE.match(line)
      across = _MEGASCALE.search(line) if networks is not None else None
      if across and runs[name]:
        collective = _between_slices(across, runs[name], mesh, len(set(networks or ())))
        by_channel[f"{name} {number}"] = collective
      if match is None or runs[name] == 0:
        continue
      result, kind, started = match.groups()
      members = _members(line, mesh)
      sizes = _sizes(result)
      if started and kind not in ("all-reduce", "collective-permute"):
        half = len(sizes) // 2  # Its operands, one or several, and its result.
        count = max(sum(sizes[:half]), sum(sizes[half:]))
      else:
        count = max(sizes) if started and kind == "collective-permute" else sum(sizes)
        count *= len(members) if kind == "reduce-scatter" else 1
      if name.startswith("all-reduce-scatter"):
        kind = "reduce-scatter"  # On TPUs: the rest of this computation selects the device's own shard.
      spread = 1 if networks is None else len({networks[member] for member in members})
      collective = Collective(kind, count, runs[name], len(members), _axes(members, mesh), spread)
      channel = re.search(r"channel_id=(\d+)", line)
      key = f"{kind} {channel[1]}" if channel else f"{name} {number}"
      if channel and channel[1] == SHARED_CHANNEL:
        key += f" {_operation(line)}"
        repeats[key] += 1
        key += f" {repeats[key]}"
      more = key not in by_channel or (
        _all_sent(by_channel[key]) < _all_sent(collective) and not name.startswith(_MEANWHILE)
      )
      if len(members) > 1 and more:
        by_channel[key] = collective
  return list(by_channel.values())


def _between_slices(match: re.Match, runs: int, mesh: Mapping[str, int], slices: int) -> Collective:
  """A transfer over the hosts' network between TPU slices, after the collective within each slice."""
  kind = match[2].lower().replace("_", "-")
  axes = tuple(axis for axis in ("slice", "data") if axis in mesh)[:1]
  return Collective(kind if kind in KINDS else "collective-permute", _sizes(match[1])[0], runs, slices, axes, slices)


def _operation(line: str) -> str:
  """The op_name of an instruction: its path in the model."""
  op_name = re.search(r'op_name="([^"]*)"', line)
  return op_name[1] if op_name else ""


def _all_sent(collective: Collective) -> int:
  return collective.sent + collective.sent_across


def _computations(text: str) -> Iterator[tuple[str, list[str]]]:
  """Computations of the HLO: name -> lines; the entry's name is ""."""
  name: str | None = None
  lines: list[str] = []
  for raw in text.splitlines():
    line = raw.strip()
    if name is None:
      head = _COMPUTATION.match(raw)
      if head:
        name, lines = "" if raw.startswith("ENTRY") else head[1], []
    elif line == "}":
      yield name, lines
      name = None
    else:
      lines.append(line)


def _runs(bodies: Mapping[str, list[str]]) -> dict[str, int]:
  """Execution count of each computation."""
  runs: dict[str, int] = defaultdict(int)
  waiting = [("", 1)]
  while waiting:
    name, times = waiting.pop()
    if name not in bodies:
      continue
    runs[name] += times
    for line in bodies[name]:
      loop = _WHILE.search(line)
      if loop:
        waiting.append((loop[2], times * _rounds(line, bodies[name], bodies[loop[1]], bodies[loop[2]])))
        continue
      for several, one in _CALLED.findall(line):
        waiting += [(called.strip(" %"), times) for called in (several.split(",") if several else [one])]
  return runs


def _rounds(line: str, around: list[str], condition: list[str], body: list[str]) -> int:
  """Trip count of a loop: as annotated by XLA, or from the one integer that its condition compares with; 1 if
  unknown. Windowed matmuls count in steps of two.

  Args:
    line: the loop. around: the computation that contains it. condition, body: its computations.
  """
  trip_count = _KNOWN.search(line)
  if trip_count:
    return int(trip_count[1])
  limits = {int(number) for one in condition for number in _CONSTANT.findall(one)}
  if len(limits) != 1:
    return 1
  indices = {int(number) for one in condition for number in _INDEX.findall(one)}
  first, step = 0, 1
  if len(indices) == 1:
    index = indices.pop()
    inside, outside = _defined(body), _defined(around)
    counted = _operands(inside.get(_element(next((one for one in body if one.startswith("ROOT")), ""), index), ""))
    step = next((number for name in counted if (number := _constant(inside.get(name, "")))), 1)
    (start, *_) = [*_operands(line), ""]
    first = _constant(outside.get(_element(outside.get(start, ""), index), "")) or 0
  return max(1, -(-(limits.pop() - first) // step))


def _defined(lines: Iterable[str]) -> dict[str, str]:
  """Definitions: name of a value -> its line."""
  return {line.removeprefix("ROOT ").split(" ", 1)[0].lstrip("%"): line for line in lines}


def _operands(line: str) -> list[str]:
  """Operand names of an operation on loop counters."""
  match = _OPERANDS.search(line)
  return re.findall(r"%?([\w.\-]+)(?:,|$)", re.sub(r"/\*.*?\*/", "", match[1])) if match else []


def _element(line: str, index: int) -> str:
  """The name of one element of a tuple where the tuple is created."""
  names = _operands(line)
  return names[index] if index < len(names) else ""


def _constant(line: str) -> int | None:
  match = _CONSTANT.search(line)
  return int(match[1]) if match else None


def _sizes(result: str) -> list[int]:
  """Bytes of every array in an HLO type, including tuples."""
  bytes_of_arrays = []
  for kind, dims in _ARRAY.findall(result):
    bits = BITS.get(kind, 8 if kind.startswith("f8") else None)
    if bits is not None:
      bytes_of_arrays.append(math.prod(int(size) for size in dims.split(",") if size) * bits // 8)
  return bytes_of_arrays or [0]


def _members(line: str, mesh: Mapping[str, int]) -> list[int]:
  """The devices of the first replica group."""
  all_members = list(range(math.prod(mesh.values())))
  pairs = re.search(r"source_target_pairs=\{(.*?)\}\}", line)
  if pairs:
    # The group of a device: all devices reachable from it.
    following = {int(one): int(other) for one, other in re.findall(r"(\d+),(\d+)", pairs[1])}
    group, at = [next(iter(following), 0)], next(iter(following), 0)
    while following.get(at) is not None and following[at] not in group:
      at = following[at]
      group.append(at)
    return group
  listed = re.search(r"replica_groups=\{\{([\d,]+)\}", line)
  if listed:
    return [int(number) for number in listed[1].split(",")]
  counted = re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line)
  if counted:
    shape, dims, turn = ([int(n) for n in (part or "").split(",") if n] for part in counted.groups())
    numbers = np.arange(math.prod(dims)).reshape(dims)
    return (numbers.transpose(turn) if turn else numbers).reshape(shape)[0].tolist()
  by_mesh = re.search(r"replica_groups=mesh\[(.*?)\]\s*\{(.*?)\}", line)
  if by_mesh:
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", by_mesh[1])}
    over = re.findall(r"'([^']+)'", by_mesh[2])
    numbers = np.arange(math.prod(sizes.values())).reshape(list(sizes.values()))
    return np.moveaxis(numbers, [list(sizes).index(name) for name in over], range(-len(over), 0)).reshape(
      -1, math.prod(sizes[name] for name in over)
    )[0].tolist()  # fmt: skip
  return all_members


def _axes(members: list[int], mesh: Mapping[str, int]) -> tuple[str, ...]:
  """The mesh axes along which these devices differ."""
  indices = np.unravel_index(members, tuple(mesh.values()))
  return tuple(name for name, index in zip(mesh, indices, strict=True) if len(set(index.tolist())) > 1)
