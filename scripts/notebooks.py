"""Writes each notebook's `.ipynb` beside its source, for Colab: no outputs, a badge, and a first cell that installs.

    python -m scripts.notebooks            # or: make notebooks

The sources are `notebooks/*.py`, in jupytext's percent format; edit those. The address of the repository is in
pyproject.toml, `[tool.notebooks] repository`, and nowhere else.
"""

import hashlib
import re
import tomllib
from pathlib import Path

import jupytext
import nbformat

ROOT = Path(__file__).parent.parent
BADGE = (
  "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
  "(https://colab.research.google.com/github/{repository}/blob/main/notebooks/{name}.ipynb)"
)
INSTALL = """\
# In Colab: fetches the zoo and installs it beside Colab's JAX, which stays as it is. Elsewhere this cell does nothing.
import os
import sys

if "google.colab" in sys.modules and not os.path.exists("train.py"):
  !git clone --quiet --depth=1 https://github.com/{repository} flax-zoo
  %cd flax-zoo
  %pip install --quiet --upgrade-strategy=only-if-needed -e .
  sys.path.insert(0, ".")"""


def repository() -> str:
  """OWNER/NAME on GitHub."""
  return tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["notebooks"]["repository"]


def badge(name: str) -> str:
  """Markdown of the "Open in Colab" badge of a notebook."""
  return BADGE.format(repository=repository(), name=name)


def notebook(source: Path) -> str:
  """The `.ipynb` of a source, as text: the same for the same source."""
  made = jupytext.read(source)
  made.metadata.pop("jupytext", None)
  title, *cells = made.cells
  title.source = f"{title.source}\n\n{badge(source.stem)}"
  install = nbformat.v4.new_code_cell(INSTALL.format(repository=repository()), metadata={"tags": ["remove-cell"]})
  made.cells = [title, install, *cells]
  for number, cell in enumerate(made.cells):
    # jupytext draws them at random.
    cell["id"] = hashlib.sha256(f"{number}{cell.source}".encode()).hexdigest()[:8]
  return nbformat.writes(made, version=4) + "\n"


def main() -> None:
  """Writes them all, and the badge of the README."""
  for source in sorted((ROOT / "notebooks").glob("*.py")):
    source.with_suffix(".ipynb").write_text(notebook(source))
  readme = ROOT / "README.md"
  readme.write_text(re.sub(r"^\[!\[Open in Colab.*$", badge("quickstart"), readme.read_text(), flags=re.MULTILINE))


if __name__ == "__main__":
  main()
