"""Numbers as a table to read."""

from collections.abc import Mapping


def table(metrics: Mapping[str, float], title: str = "") -> str:
  """Renders what an evaluator returned, one line per contestant.

  A key `row/column` is the cell of that row; a key without a row belongs to the model itself, which stands first. A
  cell that was not measured, because it is not defined, shows a dash.

      retrieval      image_to_text_r1  image_to_text_r5
      model                     .1208             .3119
      pixels                    .1201             .2214
  """
  rows: dict[str, dict[str, float]] = {}
  for key, value in metrics.items():
    row, _, column = key.rpartition("/")
    rows.setdefault(row or "model", {})[column] = value
  columns = list(dict.fromkeys(column for cells in rows.values() for column in cells))
  grid = [[title, *columns]]
  grid += [[row, *(_number(cells[c]) if c in cells else "-" for c in columns)] for row, cells in rows.items()]
  widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
  first, *others = widths
  lines = [
    "  ".join([line[0].ljust(first), *(cell.rjust(width) for cell, width in zip(line[1:], others, strict=True))])
    for line in grid
  ]
  return "\n".join(line.rstrip() for line in lines)


def _number(value: float) -> str:
  """Whole numbers whole, shares and losses to four places, large ones to six digits."""
  if float(value).is_integer() and abs(value) >= 1:
    return f"{value:.0f}"
  return f"{value:.4f}" if abs(value) < 1000 else f"{value:.6g}"
