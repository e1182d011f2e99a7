"""The API reference: a page for `import zoo`, for every subpackage and for every module, by walking it."""

import importlib
import inspect
import pkgutil
from pathlib import Path
from types import ModuleType

import docstring_markup

import zoo


def write(folder: Path) -> None:
  """Writes `index.rst`, a page for each package and a page for each module into `folder`."""
  folder.mkdir()
  packages: dict[str, list[str]] = {}
  for info in sorted(pkgutil.walk_packages(zoo.__path__, "zoo."), key=lambda info: info.name):
    if info.name.rpartition(".")[2].startswith("_"):
      continue
    package = ".".join(info.name.split(".")[:2]) if info.ispkg or info.name.count(".") > 1 else "zoo"
    packages.setdefault(package, []).append(info.name)
  for package, modules in packages.items():
    for name in modules:
      if name != package:
        (folder / f"{name}.rst").write_text(page(importlib.import_module(name)))
    (folder / f"{page_name(package)}.rst").write_text(page_of(package, [name for name in modules if name != package]))
  (folder / "index.rst").write_text(index([page_name(package) for package in sorted(packages)]))
  (folder / "glossary.rst").write_text(glossary())


def page_name(package: str) -> str:
  """The name of a package's page: that of the modules at the top is none of a module's."""
  return "modules" if package == "zoo" else package


def index(pages: list[str]) -> str:
  """The public functions, and a table of contents of the packages."""
  lines = [title("API", "="), "What ``import zoo`` offers:", ""]
  for name in sorted(zoo.__all__):
    lines += [f".. autofunction:: zoo.{name}", ""]
  lines += [title("Inside", "-"), "Everything else, by subpackage. These modules may move between versions.", ""]
  lines += [".. toctree::", "   :maxdepth: 1", "", *(f"   {page}" for page in pages), ""]
  return "\n".join(lines)


def glossary() -> str:
  """The glossary at the head of `zoo.layers`, as a page."""
  lines = [title("Glossary", "="), "One word per idea, in every signature and docstring.", ""]
  text = inspect.cleandoc(importlib.import_module("zoo.layers").__doc__).partition("Glossary")[2]
  for line in text.partition("\n\n")[0].split("\n")[1:]:
    term, _, meaning = line.strip().partition("  ")
    if meaning:
      lines += [f"``{term}``", f"  {docstring_markup.escaped(meaning.strip())}"]
    else:
      lines.append(f"  {docstring_markup.escaped(line.strip())}")
  return "\n".join([*lines, ""])


def page_of(package: str, modules: list[str]) -> str:
  """The page of a package: what it holds itself, then its modules with the first lines of their docstrings."""
  lines = [title("Modules at the top", "=") if package == "zoo" else page(importlib.import_module(package))]
  for name in modules:
    summary = docstring_markup.escaped(inspect.cleandoc(importlib.import_module(name).__doc__ or "").partition("\n")[0])
    lines += [f"* :doc:`{name}`{': ' * bool(summary)}{summary}"]
  contents = [".. toctree::", "   :hidden:", "", *(f"   {name}" for name in modules)]
  return "\n".join([*lines, "", *contents, ""])


def page(module: ModuleType) -> str:
  """A module: its name, its docstring, its public functions and classes in the order of the file."""
  lines = [title(module.__name__, "=")]
  lines += docstring_markup.as_rst(inspect.cleandoc(module.__doc__ or "").split("\n"))
  for name, member in vars(module).items():
    if name.startswith("_") or getattr(member, "__module__", None) != module.__name__ or not member.__doc__:
      continue
    if inspect.isclass(member):
      lines += [f".. autoclass:: {module.__name__}::{name}", "   :members:", "   :special-members: __call__", ""]
    elif inspect.isfunction(inspect.unwrap(member)) and getattr(member, "__name__", None) == name:
      lines += [f".. autofunction:: {module.__name__}::{name}", ""]
  return "\n".join(lines)


def title(text: str, level: str) -> str:
  """A heading."""
  return f"{text}\n{level * len(text)}\n"
