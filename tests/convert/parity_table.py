"""The table of docs/parity.md, from the results of the tests in this folder."""

import math
import re
from collections.abc import Iterable

from zoo.hub import tables

BEGIN, END = "<!-- parity: written by make parity-table -->", "<!-- end of parity -->"
HEADING = (
  "| family | reads `model_type` | heads | values within | gradients within |",
  "|---|---|---|---|---|",
)


def replaced(text: str, results: Iterable[Iterable]) -> str:
  """`text` with the rows of `seen`, [family, class, values, gradients], in the table between the two marks.

  Rows of families that were not seen stay, of those that have a layout.
  """
  front, _, rest = text.partition(BEGIN)
  back = rest.partition(END)[2]
  by_family = {row.split("`")[1]: row for row in rows(text)} | new_rows(results)
  kept = [row for family, row in sorted(by_family.items()) if family in tables.families()]
  return "\n".join([f"{front}{BEGIN}", *HEADING, *kept, f"{END}{back}"])


def new_rows(results: Iterable[Iterable]) -> dict[str, str]:
  """family -> its row of Markdown."""
  by_family: dict[str, list] = {}
  for family, *rest in results:
    by_family.setdefault(family, []).append(rest)
  lines = {}
  for family, differences in by_family.items():
    _, values, gradients = zip(*differences, strict=True)
    lines[family] = f"| {names(family)} | {rounded_up(max(values))} | {rounded_up(max(gradients))} |"
  return lines


def names(family: str) -> str:
  """The first columns of a family's row."""
  entry = tables.of_family(family)
  heads = ", ".join(str(head or "none") for head in entry.HEADS)
  return f"`{family}` | {', '.join(entry.MODEL_TYPES)} | {heads}"


def rounded_up(value: float) -> str:
  """To one digit: 2.34e-06 -> 3e-06"""
  power = math.floor(math.log10(value)) if value > 0 else -99
  return f"{math.ceil(value / 10**power - 1e-9) * 10.0**power:.0e}"


def rows(text: str) -> list[str]:
  """The rows of the table in `text`, without its heading."""
  return re.findall(r"^\| `.*$", text.partition(BEGIN)[2].partition(END)[0], re.MULTILINE)
