"""Metrics as a text table."""

from collections.abc import Mapping


def table(metrics: Mapping[str, float], title: str = "") -> str:
  """Renders an evaluator's metrics, one line for the model and one per baseline.

  A key `row/column` is a cell of that row; a key without a row belongs to the model itself, which is first. A
  cell that is undefined shows a dash.

      retrieval      image_to_text_r1  image_to_text_r5
      model                     .1208             .3119
      pixels                    .1201             .2214
  """
  rows: dict[str, dict[str, float]] = {"model": {}}
  for key, value in metrics.items():
    row, _, column = key.rpartition("/")
    rows.setdefault(row or "model", {})[column] = value
  columns = list(dict.fromkeys(column for cells in rows.values() for column in cells))
  grid = [[title, *columns], *([row] for row, cells in rows.items() if cells)]
  for column in columns:
    values = [cells.get(column) for cells in rows.values() if cells]
    for line, text in zip(grid[1:], _column(values), strict=True):
      line.append(text)
  widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
  lines = [[line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in grid]
  return "\n".join("  ".join(line).rstrip() for line in lines)


def _column(values: list[float | None]) -> list[str]:
  """Formats a column: counts as ints, others to four decimals, large ones to six digits, a dash if missing."""
  measured = [value for value in values if value is not None]
  counts = all(float(value).is_integer() for value in measured) and max(measured) > 1
  show = lambda value: f"{value:.0f}" if counts else f"{value:.4f}" if abs(value) < 1000 else f"{value:.6g}"
  return ["-" if value is None else show(value) for value in values]
