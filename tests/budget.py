"""What the tests cost: a plugin of pytest that sums CPU-seconds, also of processes that tests start and wait for.

After the tests it prints the ten files that cost most and the families that cost more than their budget. It fails
nothing: how long a test takes depends on the machine, and on whether its programs are in the cache.
"""

import collections
import os
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

FAMILY = 40  # CPU-seconds of a family's tests, see CONTRIBUTING.md.
FILES = 10
MANY = 6  # A test of so many families is one that each new family has; of fewer, they are examples of something else.


def families_of(nodeid: str, families: set[str]) -> set[str]:
  """The families a test belongs to: its file is named after one, or one of its parameters is one.

  >>> sorted(families_of("tests/convert/test_t5.py::test_same[small-loop]", {"t5", "gpt"}))
  ['t5']
  >>> sorted(families_of("tests/models/test_families.py::test_chance[gpt-scan]", {"t5", "gpt"}))
  ['gpt']
  """
  file, _, name = nodeid.partition("::")
  parameters = re.split(r"[-\[\]]", name.partition("[")[2])
  return families & {Path(file).stem.removeprefix("test_"), *parameters}


def costing(nodeids: Iterable[str], families: set[str]) -> dict[str, set[str]]:
  """The families whose budget a test counts to: {nodeid: families}.

  It counts if its file is named by the family, or if it is run for many families. A test of sharding that takes one
  or two as examples costs nothing more when a family is added.

  >>> ids = ["test_ring.py::test_sum[a]", "test_a.py::test_b", *[f"test_all.py::test_x[{name}]" for name in "abcdef"]]
  >>> counted = costing(ids, set("abcdef"))
  >>> counted["test_all.py::test_x[a]"], counted["test_ring.py::test_sum[a]"], counted["test_a.py::test_b"]
  ({'a'}, set(), {'a'})
  """
  tests: dict[str, set[str]] = collections.defaultdict(set)
  of = {nodeid: families_of(nodeid, families) for nodeid in nodeids}
  for nodeid, names in of.items():
    tests[nodeid.partition("[")[0]] |= names

  def counted(nodeid: str) -> set[str]:
    file = nodeid.partition("::")[0]
    many = len(tests[nodeid.partition("[")[0]]) >= MANY
    return of[nodeid] if many else families & {Path(file).stem.removeprefix("test_")}

  return {nodeid: counted(nodeid) for nodeid in of}


class Budget:
  """Measures every phase of a test where it runs, and sums where reports arrive: with xdist, in another process.

  Args:
    families: names of all.
    family: the one whose tests alone are run; None: all.
  """

  def __init__(self, families: set[str], family: str | None = None):
    self.families, self.family = families, family
    self.files: collections.Counter[str] = collections.Counter()
    self.costs: collections.Counter[str] = collections.Counter()
    self.counted: dict[str, set[str]] = {}
    self.before = 0.0

  @pytest.hookimpl(tryfirst=True)
  def pytest_collection_modifyitems(self, items):
    """Called by pytest with all tests, before some are left out."""
    self.counted = costing([item.nodeid for item in items], self.families)

  def pytest_runtest_logstart(self):
    """Called by pytest before a test's first phase."""
    self.before = sum(os.times()[:4])

  @pytest.hookimpl(wrapper=True)
  def pytest_runtest_makereport(self, item):
    """Called by pytest after each phase; the report travels with what is set here."""
    report = yield
    now = sum(os.times()[:4])
    report.cpu_seconds, self.before = now - self.before, now
    report.families = sorted(self.counted.get(item.nodeid, ()))
    return report

  def pytest_runtest_logreport(self, report):
    """Called by pytest with each phase's report."""
    cost = getattr(report, "cpu_seconds", 0.0)
    self.files[report.nodeid.partition("::")[0]] += cost
    for family in getattr(report, "families", ()):
      self.costs[family] += cost

  def pytest_terminal_summary(self, terminalreporter):
    """Called by pytest at the end."""
    total = sum(self.files.values())
    if self.family is None and total < 60:  # A few files: no table.
      return
    terminalreporter.section(f"{total:,.0f} CPU-seconds")
    for file, cost in self.files.most_common(FILES):
      terminalreporter.line(f"{cost:6.0f}  {file}")
    for family, cost in self.costs.most_common():
      if cost > FAMILY:
        terminalreporter.line(f"{family}'s tests took {cost:.0f} CPU-seconds, more than the {FAMILY} of a family.")
