"""Writes each notebook's `.ipynb` beside its source, for Colab: no outputs, a badge, and a first cell that installs.

    python -m scripts.notebooks            # or: make notebooks

The sources are `notebooks/*.py`, in jupytext's percent format; edit those. The address of the repository is in
pyproject.toml, `[project.urls] Repository`, and nowhere else; a copy that has none yet leads readers to docs/colab.md.
"""

import hashlib
import re
import tomllib
from pathlib import Path

import jupytext
import nbformat

from zoo.errors import UserError, exits_with_one_line

ROOT = Path(__file__).parent.parent
BADGE = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({link})"
GITHUB = "https://github.com/"
BY_HAND = "docs/colab.md"
INSTALL = """\
# In Colab: fetches the zoo and installs it beside Colab's JAX, which stays as it is. Elsewhere this cell does nothing.
import os
import sys

REPOSITORY = "{repository}"  # Its address, as git clone takes it.
if "google.colab" in sys.modules and not os.path.exists("train.py"):
  if not REPOSITORY:
    sys.exit("Write the address of the git repository that you have the zoo from into REPOSITORY, and run this again.")
  !git clone --quiet --depth=1 {{REPOSITORY}} flax-zoo
  %cd flax-zoo
  %pip install --quiet --upgrade-strategy=only-if-needed -e .
  sys.path.insert(0, ".")"""


def repository(pyproject: str | None = None) -> str:
  """The address on GitHub that pyproject.toml names; "" if it names none. UserError if it is no such address."""
  pyproject = (ROOT / "pyproject.toml").read_text() if pyproject is None else pyproject
  address = tomllib.loads(pyproject)["project"].get("urls", {}).get("Repository", "")
  if address and (not re.fullmatch(f"{GITHUB}[\\w-]+/[\\w.-]+", address) or "/OWNER/" in address):
    raise UserError(
      f"pyproject.toml: project.urls.Repository is {address!r}. Write {GITHUB}<owner>/<name>, or nothing."
    )
  return address.removesuffix(".git")


def badge(name: str, address: str) -> str:
  """Markdown of the "Open in Colab" badge of a notebook in a repository; "" if no address is known."""
  path = address.removeprefix(GITHUB)
  link = f"https://colab.research.google.com/github/{path}/blob/main/notebooks/{name}.ipynb"
  return BADGE.format(link=link) if address else ""


def readme(text: str, address: str) -> str:
  """The README with the badge of the quickstart; without an address it leads to the page that says what to do."""
  line = badge("quickstart", address) or BADGE.format(link=BY_HAND)
  return re.sub(r"^\[!\[Open in Colab.*$", line, text, flags=re.MULTILINE)


def citation(text: str, address: str) -> str:
  """CITATION.cff with the address."""
  rest = re.sub(r"^repository-code:.*\n", "", text, flags=re.MULTILINE)
  return rest.replace("license:", f'repository-code: "{address}"\nlicense:', 1) if address else rest


def notebook(source: Path, address: str) -> str:
  """The `.ipynb` of a source, as text: the same for the same source and the same address of the repository."""
  made = jupytext.read(source)
  made.metadata.pop("jupytext", None)
  title, *cells = made.cells
  title.source = f"{title.source}\n\n{badge(source.stem, address)}".rstrip()
  install = nbformat.v4.new_code_cell(INSTALL.format(repository=address), metadata={"tags": ["remove-cell"]})
  made.cells = [title, install, *cells]
  for number, cell in enumerate(made.cells):
    # jupytext draws them at random.
    cell["id"] = hashlib.sha256(f"{number}{cell.source}".encode()).hexdigest()[:8]
  return nbformat.writes(made, version=4) + "\n"


@exits_with_one_line
def main() -> None:
  """Writes them all, the badge of the README, and the address in CITATION.cff."""
  address = repository()
  for source in sorted((ROOT / "notebooks").glob("*.py")):
    source.with_suffix(".ipynb").write_text(notebook(source, address))
  for name, write in (("README.md", readme), ("CITATION.cff", citation)):
    (ROOT / name).write_text(write((ROOT / name).read_text(), address))


if __name__ == "__main__":
  main()
