"""The API reference: one page for `import zoo`, one for every room of the package, found by walking it."""

import importlib
import inspect
import pkgutil
from pathlib import Path
from types import ModuleType

import docstring_markup

import zoo


def write(folder: Path) -> None:
  """Writes `index.rst` and a page for each room into `folder`."""
  folder.mkdir()
  rooms: dict[str, list[str]] = {}
  for info in sorted(pkgutil.walk_packages(zoo.__path__, "zoo."), key=lambda info: info.name):
    if info.name.rpartition(".")[2].startswith("_"):
      continue
    room = ".".join(info.name.split(".")[:2]) if info.ispkg or info.name.count(".") > 1 else "zoo"
    rooms.setdefault(room, []).append(info.name)
  pages = []
  for room, modules in sorted(rooms.items()):
    page = "modules" if room == "zoo" else room
    text = page_of(room, modules)
    if text:
      (folder / f"{page}.rst").write_text(text)
      pages.append(page)
  (folder / "index.rst").write_text(index(pages))
  (folder / "glossary.rst").write_text(glossary())


def index(pages: list[str]) -> str:
  """The public functions, and a table of contents of the rooms."""
  lines = [title("API", "="), "What ``import zoo`` offers:", ""]
  for name in sorted(zoo.__all__):
    lines += [f".. autofunction:: zoo.{name}", ""]
  lines += [title("Inside", "-"), "Everything else, room by room. These modules may move between versions.", ""]
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


def page_of(room: str, modules: list[str]) -> str:
  """The page of a room: its docstring, then its modules."""
  sections = [section(importlib.import_module(name), level="=" if name == room else "-") for name in modules]
  if room == "zoo":
    sections.insert(0, title("Modules at the top", "="))
  elif modules[0] != room:
    sections.insert(0, title(room, "="))
  return "\n".join(sections)


def section(module: ModuleType, level: str) -> str:
  """A module: its name, its docstring, its public functions and classes in the order of the file."""
  lines = [title(module.__name__, level)]
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
