"""Notebooks run from first to last cell, in a copy of the repository; `make docs` runs all of them, with all steps."""

import os
import shutil
from pathlib import Path

import jupytext
import nbclient
import pytest

import zoo
from tests.filled import filled
from tests.real_weights import minilm

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))
# What a notebook needs of the repository; the package itself is installed, or is found from here.
COPIED = ("configs", "notebooks", "zoo", "train.py")
NEEDS_WEIGHTS = ("pretrained.ipynb",)
# Those that `make docs` may leave out, for want of weights, and the one that everybody opens first.
RUN_HERE = ("quickstart.ipynb", *NEEDS_WEIGHTS)


@pytest.fixture(scope="session")
def caches(tmp_path_factory):
  """Where the first notebook that reads a dataset prepares it, with nothing there, and the others find it."""
  return tmp_path_factory.mktemp("caches")


@pytest.fixture
def copied(tmp_path, monkeypatch, caches):
  """A copy of the repository, where everything that a notebook may write lands in temporary folders."""
  for name in COPIED:
    if (ROOT / name).is_dir():
      shutil.copytree(ROOT / name, tmp_path / "zoo-source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    else:
      shutil.copy(ROOT / name, tmp_path / "zoo-source" / name)
  monkeypatch.setenv("PYTHONPATH", str(tmp_path / "zoo-source"))
  monkeypatch.setenv("TFDS_DATA_DIR", str(caches / "tfds"))
  monkeypatch.setenv("ZOO_CACHE", str(caches / "cache"))
  monkeypatch.setenv("ZOO_RUN", str(tmp_path / "run"))
  monkeypatch.setenv("ZOO_STEPS", "2")
  return tmp_path / "zoo-source"


def masked_lm(folder):
  """A run of a small model that fills gaps: quickstart.ipynb trains one, which is enough."""
  model = zoo.build("bert", vocab_size=4096, max_length=64, dim=16, depth=1, num_heads=2)
  zoo.save(folder, model, filled(model, *model.example()))
  (folder / "config.json").write_text('{"data": {"tokenizer": "sotu"}}')
  return folder


def with_one_device(flags):
  """A person's notebook has not been told to simulate devices."""
  return " ".join(flag for flag in flags.split() if "device_count" not in flag)


@pytest.mark.slow(minutes=1)
@pytest.mark.parametrize("name", RUN_HERE)
def test_a_notebook_runs_from_top_to_bottom(name, copied, tmp_path, monkeypatch):
  monkeypatch.setenv("XLA_FLAGS", with_one_device(os.environ["XLA_FLAGS"]))
  if name in NEEDS_WEIGHTS:
    monkeypatch.setenv("ZOO_MINILM", str(minilm()))
    monkeypatch.setenv("ZOO_BERT", str(masked_lm(tmp_path / "bert")))
  notebook = jupytext.read(copied / "notebooks" / name)
  folder = {"metadata": {"path": str(copied / "notebooks")}}
  nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=folder).execute()
  outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
  assert not [output for output in outputs if output.get("name") == "stderr"]
  assert [output for output in outputs if "image/png" in output.get("data", {})]


def test_a_notebook_holds_no_outputs_and_opens_as_one():
  for path in NOTEBOOKS:
    notebook = jupytext.read(path)
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")
    assert notebook.metadata["kernelspec"]["name"] == "python3"
