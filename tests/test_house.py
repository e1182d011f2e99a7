"""The repository's conventions that a reader would otherwise have to check by eye."""

import ast
import graphlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def tracked(*patterns):
  """Tracked and new files that match the patterns."""
  listed = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  if listed.returncode:
    pytest.skip("not a git checkout")
  return [ROOT / name for name in listed.stdout.split("\n") if name and (ROOT / name).is_file()]


def imported(file):
  """The names of all modules that a Python file imports, also lazily."""
  for node in ast.walk(ast.parse(file.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      yield from (f"{node.module}.{alias.name}" for alias in node.names)


def named(files):
  return [str(file.relative_to(ROOT)) for file in files]


def test_no_python_file_is_longer_than_300_lines():
  assert not named(file for file in tracked("*.py") if len(file.read_text().splitlines()) > 300)


def test_train_py_is_read_in_one_sitting():
  assert len((ROOT / "train.py").read_text().splitlines()) <= 150


def test_no_file_names_a_folder_of_one_machine():
  text = [file for file in tracked() if file.suffix in (".py", ".md", ".toml", ".sh", ".ipynb", ".lock", "")]
  absolute = re.compile(r"""(^|[\s"'`=(])/(tmp|work|root|home|opt|Users)/\w""", re.MULTILINE)
  assert not named(file for file in text if absolute.search(file.read_text()))


def test_only_layers_and_models_know_flax():
  seam = (ROOT / "zoo" / "layers", ROOT / "zoo" / "models")
  others = [file for file in tracked("zoo/*.py", "train.py", "configs/*.py") if file.parent not in seam]
  assert not named(file for file in others if any(name.split(".")[0] == "flax" for name in imported(file)))


def test_unimodal_families_do_not_import_multimodal_ones():
  imports = {
    file.stem: {name.split(".")[2] for name in imported(file) if name.startswith("zoo.models.")}
    for file in tracked("zoo/models/*.py")
  }
  two = {name for name, others in imports.items() if "dual_encoder" in others} | {"dual_encoder"}
  assert {"clip", "siglip", "siglip2"} <= two
  assert not {name: others & two for name, others in imports.items() if name not in two and others & two}


def test_a_function_has_at_most_24_parameters_of_its_own():
  counts = {
    f"{file.stem}.{node.name}": len([*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs])
    for file in tracked("zoo/*.py")
    for node in ast.walk(ast.parse(file.read_text()))
    if isinstance(node, ast.FunctionDef)
  }
  assert {"vit.vit", "gemma.gemma", "decoding.generate"} <= counts.keys()
  assert not {name: count for name, count in counts.items() if count > 24}


def test_configs_are_data_and_import_nothing_of_the_zoo():
  configs = tracked("configs/*.py")
  assert not named(file for file in configs if any(name.split(".")[0] == "zoo" for name in imported(file)))


def test_every_module_of_the_zoo_has_its_place_in_the_import_layers():
  contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
  placed = {name.strip(" ()") for layer in contracts[0]["layers"] for name in re.split("[|:]", layer)}
  modules = {
    name for file in tracked("zoo/*.py") for name in [file.relative_to(ROOT / "zoo").parts[0].removesuffix(".py")]
  }
  assert modules - {"__init__"} == placed


def test_the_design_page_lists_the_layers_of_the_import_contract():
  contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
  section = (ROOT / "docs" / "design.md").read_text().split("## Packages")[1].split("\n## ")[0]
  layers = [re.findall(r"`(\w+)`", line.split("|")[1]) for line in section.splitlines() if line.startswith("| `")]
  assert layers == [layer.split(" | ") for layer in contracts[0]["layers"]]


def test_every_package_has_a_docstring():
  packages = tracked("zoo/*__init__.py")
  assert not named(file for file in packages if not ast.get_docstring(ast.parse(file.read_text())))


# The modules at the top of zoo/: the verbs of `import zoo` and its commands, and the basis of all packages.
VERBS = {"build", "capture", "embed", "fill_mask", "lengthen", "page", "saving"}
BASIS = {"errors", "extras", "json_files", "pooling", "preprocessing", "progress", "storage", "tree"}


def test_only_verbs_and_basic_modules_are_outside_of_packages():
  loose = {file.stem for file in tracked("zoo/*.py") if file.parent == ROOT / "zoo"}
  assert loose - {"__init__"} == VERBS | BASIS


def import_graph():
  """Module of the zoo -> modules of the zoo that it imports, also lazily; without `zoo` itself."""
  modules = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
    for file in tracked("zoo/*.py")
  }
  graph = {}
  for module, file in modules.items():
    names = {name if name in modules else name.rpartition(".")[0] for name in imported(file)}
    graph[module] = (names & modules.keys()) - {"zoo", module}
  return graph


def test_there_are_no_circular_imports():
  list(graphlib.TopologicalSorter(import_graph()).static_order())


def test_no_module_has_the_name_of_its_package():
  # A registry lists functions named like their files, and would list that of such a file twice.
  assert not named(file for file in tracked("zoo/*.py") if file.stem == file.parent.name)


def test_the_lock_names_no_registry_and_pins_every_package_by_hash():
  lock = (ROOT / "requirements.lock").read_text()
  assert "://" not in lock and "index-url" not in lock
  packages = re.split(r"\n(?=[a-z0-9])", re.sub(r"^#.*\n", "", lock, flags=re.MULTILINE))
  assert len(packages) > 50
  assert not [package.split()[0] for package in packages if "==" not in package or "--hash=sha256:" not in package]


def test_the_lock_has_all_dependencies_of_the_project():
  project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
  requirements = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
  names = {re.match(r"[\w.-]+", line)[0].lower().replace("_", "-") for line in requirements} - {"flax-zoo"}
  locked = set(re.findall(r"^([a-z0-9.-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
  assert not names - locked


def test_importing_the_zoo_imports_no_heavy_packages():
  heavy = "tensorflow_datasets grain orbax array_record matplotlib sklearn tokenizers tiktoken PIL pandas torch".split()
  program = f"import sys, zoo; print(*[name for name in {heavy} if name in sys.modules])"
  result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
  assert result.stdout.split() == []
