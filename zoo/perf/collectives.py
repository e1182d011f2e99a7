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
# What JAX itself sends, in a shard_map, all has one: operations tell it apart, and how many of them a computation has.
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
_MEANWHILE = "async_collective_fusion"  # Computation that overlaps a collective, with a copy of it.


class Collective(NamedTuple):
  """One collective operation.

  kind: of KINDS.
  bytes: of its result on one device; of a reduce-scatter, of what it reads.
  times: how often it runs.
  devices: how many take part in it together.
  axes: of the mesh, along which those devices lie.
  networks: over how many networks they are spread: slices of TPUs, hosts of GPUs.
  """

  kind: str
  bytes: int
  times: int
  devices: int
  axes: tuple[str, ...]
  networks: int = 1

  @property
  def sent(self) -> int:
    """Bytes that a device sends over links, in all its runs, by the best known ways around a ring.

    Of n devices: (n - 1) / n of the bytes, of an all-reduce (which is a reduce-scatter and an all-gather) twice that,
    and of a permute the bytes. https://arxiv.org/abs/1909.08053 and NCCL's documentation on bus bandwidth count alike.
    """
    return round(self._sent(self.devices // self.networks))

  @property
  def sent_across(self) -> int:
    """Bytes that a device sends over the network. Those of a network share that: each has its part of the bytes."""
    return round(self._sent(self.networks) / (self.devices // self.networks))

  def _sent(self, members: int) -> float:
    part = (members > 1) if self.kind == "collective-permute" else (members - 1) / members
    return (2 if self.kind == "all-reduce" else 1) * part * self.bytes * self.times


def collectives(text: str, mesh: Mapping[str, int], networks: Sequence[int] | None = None) -> list[Collective]:
  """Lists the collectives of a program compiled for a mesh.

  Args:
    text: `compiled.as_text()`.
    mesh: `mesh.shape`, name of an axis -> its size; devices are numbered in the mesh's order.
    networks: in which network each device is; None: all are in one.
  """
  bodies = dict(_computations(text))
  runs = _runs(bodies)
  # Where XLA overlaps a collective with work, copies of it stand at its start, in between and at its end; all have one
  # channel. Of a loop whose first round was taken out the rounds in the loop count. What is in between may be a loop of
  # its own, whose rounds do not count.
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
        half = len(sizes) // 2  # What it reads, one array or several, and what comes of that.
        count = max(sum(sizes[:half]), sum(sizes[half:]))
      else:
        count = max(sizes) if started and kind == "collective-permute" else sum(sizes)
        count *= len(members) if kind == "reduce-scatter" else 1
      if name.startswith("all-reduce-scatter"):
        kind = "reduce-scatter"  # As a TPU does it: the rest of this computation keeps a device's own part.
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
  """A transfer over the hosts' network between TPU slices; links within a slice have done their part before."""
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
  """Of a loop: as XLA states it, or as it counts, to the one whole number that its condition compares with; 1 where
  nobody knows. Products with what neighbours pass on count in twos.

  Args:
    line: the loop. around: what it stands in. condition, body: of it.
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
  """Definitions: name of a value -> the line that computes it."""
  return {line.removeprefix("ROOT ").split(" ", 1)[0].lstrip("%"): line for line in lines}


def _operands(line: str) -> list[str]:
  """The names of what an operation reads, of those that loops count with."""
  match = _OPERANDS.search(line)
  return re.findall(r"%?([\w.\-]+)(?:,|$)", re.sub(r"/\*.*?\*/", "", match[1])) if match else []


def _element(line: str, index: int) -> str:
  """The name of one element of a tuple, as it is made."""
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
    # A device's group: all devices reachable from it.
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
