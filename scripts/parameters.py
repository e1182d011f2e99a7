"""What parameters of functions are, out of the docstrings of Python packages: questions with answers, and tagged words.

Sections `Parameters` of NumPy's style and `Args` of Google's name each parameter and describe it, in the first style
with its type. A question is about one of them; its answer is the first sentence of the description. Words are tagged as
parts of names or types, without the colon that tells them apart. Splits as in scripts/docstrings.py.
"""

import ast
import re
import zipfile
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import docstrings

CONTEXT_WORDS = range(20, 90)
ANSWER_WORDS = range(2, 25)
NUMPY = re.compile(r"^Parameters\n-{3,}\n(.*?)(?=\n\n?[^\n]+\n-{3,}\n|\Z)", re.M | re.S)
GOOGLE = re.compile(r"^Args:\n((?:[ ]+[^\n]*\n?|\n)*)", re.M)
ENTRY = {
  NUMPY: re.compile(r"^(\w+) ?:[ ]*([^\n]*)\n((?:[ \t]+[^\n]*\n?|\n)*)", re.M),
  GOOGLE: re.compile(r"^(\w+):()[ ]*([^\n]*\n?(?:[ \t]+[^\n]*\n?|\n)*)", re.M),
}


class Parameter(NamedTuple):
  """An entry of a section; `type` may be empty."""

  name: str
  type: str
  description: str


def parameters(packages: Iterable[zipfile.ZipFile]) -> dict[str, dict[str, list[dict]]]:
  """ "questions" and "tags" -> split -> rows.

  A question has question, context, and answers as in SQuAD; a tagged row words and tags, in IOB2.
  """
  sections: dict[str, dict] = {}
  for package in packages:
    for name, entries in sections_of(package):
      context = " ".join(map(_written, entries))
      sections.setdefault(docstrings.letters(context), {"name": name, "entries": entries, "context": context})
  splits = docstrings.split(list(sections.values()), _keys)
  return {
    "questions": {name: [row for section in rows for row in questions(section)] for name, rows in splits.items()},
    "tags": {name: [tagged(section["entries"]) for section in rows] for name, rows in splits.items()},
  }


def sections_of(package: zipfile.ZipFile) -> Iterator[tuple[str, list[Parameter]]]:
  """The name and the parameters of every public function and class of a wheel that describes at least two."""
  for file in sorted(package.namelist()):
    if not file.endswith(".py") or re.search(r"(^|/)(tests?|testing|test_\w+|\w+_test|conftest)(/|\.py$)", file):
      continue
    try:
      tree = ast.parse(package.read(file))
    except (SyntaxError, ValueError):
      continue  # Templates, and files for older Pythons.
    for node in ast.walk(tree):
      if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
        entries = entries_of(ast.get_docstring(node) or "")
        words = sum(len(_written(entry).split()) for entry in entries)
        if len(entries) > 1 and words in CONTEXT_WORDS and all(entry.description for entry in entries):
          yield node.name, entries


def entries_of(docstring: str) -> list[Parameter]:
  """The parameters that a docstring describes.

  >>> entries_of("Cuts.\\n\\nArgs:\\n  x: An\\n    array.\\n")
  [Parameter(name='x', type='', description='An array.')]
  """
  for style, entry in ENTRY.items():
    section = style.search(docstring)
    if section:
      lines = section[1].split("\n")
      indent = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
      text = "\n".join(line[indent:] for line in lines)
      return [Parameter(name, _plain(kind), _plain(rest)) for name, kind, rest in entry.findall(text)]
  return []


def questions(section: dict) -> Iterator[dict]:
  """A question about each parameter of a section whose answer is of a fair length."""
  start = 0
  for entry in section["entries"]:
    first = re.match(r".*?(?<!\be\.g)(?<!\bi\.e)[.](?= |$)|.*", entry.description)
    answer, written = first[0] if first else "", _written(entry)
    place = start + len(written) - len(entry.description)
    start += len(written) + 1
    if len(answer.split()) in ANSWER_WORDS:
      yield {
        "question": f"What is {entry.name} in {section['name']}?",
        "context": section["context"],
        "answers": {"text": [answer], "answer_start": [place]},
      }


def tagged(entries: Iterable[Parameter]) -> dict:
  """Words of a section, and what each is a part of: B-NAME, B-TYPE, I-TYPE or O."""
  words: list[str] = []
  tags: list[str] = []
  for entry in entries:
    kind, rest = entry.type.split(), entry.description.split()
    words += [entry.name, *kind, *rest]
    tags += ["B-NAME", *(["B-TYPE", *["I-TYPE"] * (len(kind) - 1)] if kind else []), *["O"] * len(rest)]
  return {"words": words, "tags": tags}


def _written(entry: Parameter) -> str:
  kind = f"{entry.type} " if entry.type else ""
  return f"{entry.name} : {kind}{entry.description}"


def _plain(text: str) -> str:
  return " ".join(text.split())


def _keys(section: dict) -> list[str]:
  return [f"name {section['name'].lower()}", f"text {' '.join(docstrings.letters(section['context']).split()[:12])}"]
