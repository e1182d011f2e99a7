"""Sharding report, `train.py --explain-sharding`: each parameter's placement, its rule, and its cost."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from jax.sharding import Mesh

from zoo.sharding.rules import Row, parse_strategy, report, rules_and_rest, rules_for_mesh
from zoo.tree import matches

LARGE = 2**20  # Replicated arrays above so many bytes are reported.


def explain(state: Any, strategy: str | Sequence, mesh: Mesh, frozen: Mapping[str, Any] = {}) -> str:
  """The sharding report of a train state.

  Args:
    state: arrays or their shapes, {"params": ..., ...}.
    strategy, mesh: as in `zoo.sharding.shardings`.
    frozen: as in `every_row`.

  Returns:
    a line for every parameter: path, shape, dtype, mesh axes of each dimension, rule, bytes per device;
    the bytes of every part of the state; patterns of the strategy that match nothing; large arrays that are
    replicated.

  Raises:
    UserError: as `zoo.sharding.shardings`. A pattern of the config that matches nothing is refused.
  """
  rows = every_row(state, strategy, mesh, frozen)
  params = [row for row in rows if row.path.startswith("params/")]
  names = [row.path.removeprefix("params/") for row in params]
  head = ["parameter", "shape", "dtype", "split over", "rule", "on a device"]
  lines = [
    [name, _shape(row), row.dtype, _split(row), row.rule, size(row.bytes_per_device)]
    for name, row in zip(names, params, strict=True)
  ]
  report_lines = [f"mesh {dict(mesh.shape)}", "", *_aligned([head, *lines]), ""]

  sums = [
    [part, size(sum(row.bytes for row in part_rows)), size(sum(row.bytes_per_device for row in part_rows))]
    for part, part_rows in parts(rows).items()
  ]
  sums.append(["together", size(sum(row.bytes for row in rows)), size(sum(row.bytes_per_device for row in rows))])
  report_lines += _aligned([["part of the state", "in all", "on a device"], *sums])

  _, rest = parse_strategy(strategy, names, mesh)
  unused = [pattern for pattern, _ in rules_for_mesh(mesh, rest) if not any(matches(pattern, name) for name in names)]
  if unused:
    report_lines += ["", f"Patterns of '{rest}' that no parameter has: {', '.join(unused)}"]
  report_lines += ["", whole] if (whole := large_replicated(rows, mesh)) else []
  return "\n".join(report_lines)


def every_row(state: Any, strategy: str | Sequence, mesh: Mesh, frozen: Mapping[str, Any] = {}) -> list[Row]:
  """The rows of a train state and, as `frozen/NAME/...`, of frozen models.

  Args:
    frozen: name -> parameters, or their shapes. Only the named strategy in `strategy` places them: the rules are for
      the trained model.
  """
  _, by_name = rules_and_rest(strategy)
  rows = report(state, strategy, mesh)
  for name, tree in frozen.items():
    rows += [row._replace(path=f"frozen/{name}/{row.path}") for row in report(tree, by_name, mesh)]
  return rows


def large_replicated(rows: Sequence[Row], mesh: Mesh) -> str:
  """A line listing large replicated parameters, frozen ones too; "" if there is none."""
  of_models = [row for row in rows if row.path.startswith(("params/", "frozen/"))]
  large_rows = [row for row in of_models if row.bytes_per_device == row.bytes >= LARGE]
  listed = ", ".join(f"{row.path.removeprefix('params/')} ({size(row.bytes)})" for row in large_rows)
  return f"Whole on each of the {mesh.size} devices, and large: {listed}" if large_rows and mesh.size > 1 else ""


def parts(rows: Sequence[Row]) -> dict[str, list[Row]]:
  """Groups lines of the report by part of the state ("params", "opt_state", ...)."""
  rows_of_part: dict[str, list[Row]] = {}
  for row in rows:
    rows_of_part.setdefault(row.path.split("/")[0], []).append(row)
  return rows_of_part


def size(count: int) -> str:
  """Bytes as text: `1.5 MiB`."""
  power = min(int(math.log2(max(count, 1))) // 10, 4)
  return f"{count} B" if power == 0 else f"{count / 2 ** (10 * power):.1f} {' KMGT'[power]}iB"


def _shape(row: Row) -> str:
  return " x ".join(map(str, row.shape)) or "one number"


def _split(row: Row) -> str:
  """The mesh axes that shard each dimension: `-, data`."""
  axes = [*row.spec, *[None] * (len(row.shape) - len(row.spec))]
  return ", ".join("-" if axis is None else axis if isinstance(axis, str) else "+".join(axis) for axis in axes)


def _aligned(lines: list[list[str]]) -> list[str]:
  """Formats aligned columns, the last one right-justified."""
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  return ["  ".join([*map(str.ljust, line[:-1], widths), line[-1].rjust(widths[-1])]) for line in lines]
