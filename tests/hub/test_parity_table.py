"""The table of docs/parity.md."""

import pathlib

from tests.convert import parity_table
from zoo.hub import tables

PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "parity.md").read_text()


def test_the_table_has_every_family_that_loads_and_what_it_loads():
  first = [row.rsplit(" | ", 2)[0] for row in parity_table.rows(PAGE)]
  assert first == [f"| {parity_table.names(family)}" for family in tables.families()]


def test_a_new_table_replaces_the_old_one_and_nothing_else():
  seen = [["bert", "BertModel", 2.1e-6, 0.0], ["bert", "BertForMaskedLM", 3.4e-7, 1e-5]]
  new = parity_table.replaced(PAGE, seen)
  (row,) = parity_table.rows(new)
  assert row.endswith("| 3e-06 | 1e-05 |")
  assert new.split(parity_table.BEGIN)[0] == PAGE.split(parity_table.BEGIN)[0]
  assert new.split(parity_table.END)[1] == PAGE.split(parity_table.END)[1]
