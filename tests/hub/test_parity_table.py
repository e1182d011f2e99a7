"""The table of docs/parity.md."""

import pathlib

from tests.convert import parity_table
from zoo.hub import tables

PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "parity.md").read_text()

# Families whose folders load; others are only written.
READ = [family for family in tables.families() if tables.of_family(family).MODEL_TYPES]


def test_the_table_has_every_family_that_loads_and_what_it_loads():
  first = [row.rsplit(" | ", 2)[0] for row in parity_table.rows(PAGE)]
  assert first == [f"| {parity_table.names(family)}" for family in READ]


def test_rows_that_were_seen_are_written_and_the_rest_stays():
  results = [["bert", "BertModel", 2.1e-6, 0.0], ["bert", "BertForMaskedLM", 3.4e-7, 9e-5]]
  new = parity_table.replaced(PAGE, results)
  (row,) = set(parity_table.rows(new)) - set(parity_table.rows(PAGE))
  assert row == f"| {parity_table.names('bert')} | 3e-06 | 9e-05 |"
  assert [line for line in new.splitlines() if line != row] == [
    line for line in PAGE.splitlines() if not line.startswith("| `bert` |")
  ]
  assert parity_table.replaced(PAGE, []) == PAGE


def test_a_row_is_added_in_its_place_and_one_without_a_layout_goes():
  without = "".join(line for line in PAGE.splitlines(keepends=True) if not line.startswith("| `bert` |"))
  stale = without.replace("| `clip` |", "| `left` |")
  new = parity_table.replaced(stale, [["bert", "BertModel", 2.1e-6, 1e-7]])
  families = [row.split("`")[1] for row in parity_table.rows(new)]
  assert families == [family for family in READ if family != "clip"]
