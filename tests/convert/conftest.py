"""Everything in this folder compares with torch transformers, the extra `parity`.

`pytest tests/convert --parity-table=docs/parity.md` writes the table there: what was compared, and how far apart.
"""

import pathlib

import pytest

pytest.importorskip("torch", reason="the references are not installed: pip install 'flax-zoo[parity]'")

from tests.convert import parity, parity_table


def pytest_addoption(parser):
  parser.addoption("--parity-table", metavar="FILE", help="write the table of differences to this file")


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
  """Merges the results of a pytest-xdist worker that has finished."""
  parity.SEEN.extend(getattr(node, "workeroutput", {}).get("parity", ()))


def pytest_sessionfinish(session):
  config = session.config
  if hasattr(config, "workeroutput"):
    config.workeroutput["parity"] = parity.SEEN
  elif config.getoption("--parity-table", None):
    file = pathlib.Path(config.getoption("--parity-table"))
    file.write_text(parity_table.replaced(file.read_text(), parity.SEEN))
