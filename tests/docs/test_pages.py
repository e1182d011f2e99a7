"""The README, docs/ and the notebooks: generated parts are current, and links have targets."""

import ast
import re
from pathlib import Path

import pytest
import yaml

from scripts import check_site, families_table, notebooks
from tests.budget import FAMILY
from zoo.errors import UserError

ROOT = Path(__file__).parents[2]
SOURCES = sorted(ROOT.glob("notebooks/*.py"))
# What a notebook may import from the zoo: the public modules.
PUBLIC = {"zoo", "zoo.compat", "zoo.sharding"}


def test_the_readmes_table_of_families_is_current():
  readme = families_table.README.read_text()
  assert families_table.replaced(readme) == readme, "make families-table"


ADDRESS = "https://github.com/someone/their-zoo"


def test_the_address_of_the_repository_is_what_pyproject_names():
  readme, citation = ((ROOT / name).read_text() for name in ("README.md", "CITATION.cff"))
  assert notebooks.readme(readme, notebooks.repository()) == readme, "make notebooks"
  assert notebooks.citation(citation, notebooks.repository()) == citation, "make notebooks"
  colab = "https://colab.research.google.com/github/someone/their-zoo/blob/main/notebooks/quickstart.ipynb"
  assert f"]({colab})" in notebooks.readme(readme, ADDRESS) and "](docs/colab.md)" in notebooks.readme(readme, "")
  assert f'\nrepository-code: "{ADDRESS}"\n' in notebooks.citation(citation, ADDRESS)
  named, unnamed = (notebooks.notebook(ROOT / "notebooks/quickstart.py", address) for address in (ADDRESS, ""))
  assert colab in named and f'REPOSITORY = \\"{ADDRESS}\\"' in named and "Open in Colab" not in unnamed
  assert yaml.safe_load(notebooks.citation(citation, ADDRESS))["repository-code"] == ADDRESS


@pytest.mark.parametrize("urls", ["", "[project.urls]", f"[project.urls]\nRepository = '{ADDRESS}.git'"])
def test_an_address_of_github_is_taken_or_none(urls):
  assert notebooks.repository(f"[project]\n{urls}") == (ADDRESS if "Repository" in urls else "")


@pytest.mark.parametrize("address", ["someone/their-zoo", "https://github.com/OWNER/flax-zoo", "https://x.org/a/b"])
def test_another_address_or_a_placeholder_is_refused(address):
  with pytest.raises(UserError, match=r"project.urls.Repository is .* Write https://github.com/<owner>/<name>"):
    notebooks.repository(f"[project.urls]\nRepository = '{address}'")


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_every_relative_link_leads_to_a_file(name):
  links = re.findall(r"\]\(([^)#\s]+)", (ROOT / name).read_text())
  assert links
  assert not [link for link in links if "://" not in link and not (ROOT / link).exists()]


def test_the_readme_shows_the_two_commands_first():
  commands = re.search(r"```\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
  assert [line.split("  ")[0] for line in commands.strip().split("\n")] == ["make train", "make test"]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_notebook_for_colab_is_current_and_has_no_outputs(source):
  text = source.with_suffix(".ipynb").read_text()
  assert text == notebooks.notebook(source, notebooks.repository()), "make notebooks"
  assert '"outputs": []' in text and not re.search(r'"outputs": \[[^\]]', text)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_notebook_imports_what_is_public(source):
  for node in ast.walk(ast.parse(source.read_text())):
    if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "zoo":
      assert node.module in PUBLIC
    if isinstance(node, ast.Import):
      assert {alias.name for alias in node.names if alias.name.split(".")[0] == "zoo"} <= PUBLIC


PAGES = [page for page in sorted(ROOT.glob("docs/**/*.md")) if "```{code-cell}" in page.read_text()]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_what_an_executed_page_imports_of_the_zoo_is_there(page):
  cells = re.findall(r"```\{code-cell\} python\n(?:---\n.*?\n---\n|:tags:.*\n)?(.*?)```", page.read_text(), re.DOTALL)
  for node in (node for cell in cells for node in ast.walk(ast.parse(cell))):
    if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "zoo":
      for alias in node.names:
        exec(f"from {node.module} import {alias.name}", {})


def test_a_broken_link_a_missing_anchor_and_a_missing_image_are_found(tmp_path):
  (tmp_path / "a.html").write_text(
    '<h1 id="top"></h1><a href="b.html#here"></a><a href="#top"></a><a href="https://x.org/y"></a><img src="c.png">'
  )
  (tmp_path / "b.html").write_text('<p id="there"></p><a href="a.html"></a><a href="gone.html"></a>')
  assert sorted(check_site.broken(tmp_path)) == ["a.html: b.html#here", "a.html: c.png", "b.html: gone.html"]


def test_workflows_and_hooks_run_what_this_repository_has():
  read = lambda name: yaml.safe_load((ROOT / name).read_text())
  runs = [step["run"] for name in ("test", "docs") for job in read(f".github/workflows/{name}.yml")["jobs"].values()
          for step in job["steps"] if "run" in step]  # fmt: skip
  assert runs == [".ci/run", "make docs"] and "make docs" in (ROOT / ".ci/run").read_text()
  (repo,) = read(".pre-commit-config.yaml")["repos"]
  checks = [line.strip() for line in (ROOT / "Makefile").read_text().partition("\ncheck:")[2].split("\n")]
  for hook in repo["hooks"]:
    assert hook["language"] == "system" and (hook["entry"] in checks or hook["id"] in ("ruff-format", "notebooks"))


def test_contributing_states_the_budget_that_the_suite_measures():
  assert f"at most {FAMILY} CPU-seconds" in (ROOT / "CONTRIBUTING.md").read_text()
