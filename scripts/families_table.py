"""Writes the README's table of families, from `zoo.list_models()`.

python -m scripts.families_table       # or: make families-table
"""

from pathlib import Path

import zoo
from zoo.errors import exits_with_one_line

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- families: written by make families-table -->", "<!-- end of families -->"
SHOWN = 4  # Variants of a family by name.


def table() -> str:
  """Markdown: a row for each family, with its variants, their parameter counts and its paper."""
  lines = ["| family | variants | parameters | paper |", "|---|---|---|---|"]
  by_family: dict[str, list] = {}
  for row in zoo.list_models():
    by_family.setdefault(row.family, []).append(row)
  for family, rows in by_family.items():
    names = [row.variant for row in rows[:SHOWN]]
    more = [f"{len(rows) - SHOWN} more"] if len(rows) > SHOWN else []
    counts = [row.parameters for row in rows]
    smallest, largest = short(min(counts)), short(max(counts))
    parameters = smallest if smallest == largest else f"{smallest} to {largest}"
    title, _, address = rows[0].paper.rpartition(" ")
    authors = title.rpartition(" (")[2].removesuffix(")")
    lines.append(f"| `{family}` | {', '.join(names + more)} | {parameters} | [{authors}]({address}) |")
  return "\n".join(lines) + "\n"


def short(number: int) -> str:
  """To three digits: 124439808 -> 124 M"""
  for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
    if number >= size:
      return f"{number / size:.3g} {unit}"
  return str(number)


def replaced(text: str) -> str:
  """`text` with the table between the two marks."""
  front, _, rest = text.partition(BEGIN)
  return f"{front}{BEGIN}\n{table()}{END}{rest.partition(END)[2]}"


@exits_with_one_line
def main() -> None:
  """Writes it."""
  README.write_text(replaced(README.read_text()))


if __name__ == "__main__":
  main()
