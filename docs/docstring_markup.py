"""Docstrings as this repository writes them, plain text with backticks, made into reStructuredText for Sphinx."""

import re
import textwrap

SECTIONS = re.compile(r"(Args|Arguments|Attributes|Returns|Raises|Warns|Yields|Examples?|Notes?|References):$")
NAMED = re.compile(r"(\s*\**\w[\w, *.]*:)(\s.*)?$")  # An entry of `Args:`.
NAME = re.compile(r"zoo(\.\w+)+")
LIST = re.compile(r"\s*([-*]|\d+\.)\s")
COLUMNS = re.compile(r"\S {2,}\S")
FUNCTION = re.compile(r"<function ([\w.]+?)(\.<locals>\.[\w.<>]+?)?(?: at 0x[0-9a-f]+)?>")  # Else its maker.
ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def process(app, what, name, obj, options, lines):
  """Handler of autodoc-process-docstring."""
  # Napoleon takes what stands before a colon in an attribute's first line for its type.
  lines[:] = [""] * (what in ("attribute", "data", "property")) + as_rst(lines)


def signature(app, what, name, obj, options, arguments, returned):
  """Handler of autodoc-process-signature: leaves out what Flax adds to every module, and addresses in memory."""
  if arguments is None:
    return None
  arguments = re.sub(r",? ?parent: .*(?=\)$)", "", arguments, flags=re.DOTALL)
  arguments = FUNCTION.sub(r"\1", arguments)
  return ADDRESS.sub("", arguments), ADDRESS.sub("", returned or "") or None


def skip(app, what, name, obj, skipped, options):
  """Handler of autodoc-skip-member: fields of named tuples, which their class describes, and Flax's `setup`."""
  return True if name == "setup" or type(obj).__name__ == "_tuplegetter" else None


def as_rst(lines: list[str]) -> list[str]:
  """Prose is escaped, backticks become literals; indented and aligned paragraphs stay as they are written.

  >>> as_rst(["A `tokens` array of *any* shape."])
  ['A ``tokens`` array of \\\\*any\\\\* shape.', '']
  """
  made, section = [], None
  for paragraph in paragraphs(lines):
    if section and not paragraph[0].startswith(" "):
      section = None
    if SECTIONS.match(paragraph[0]):
      section = paragraph[0]
      made += [section, *entries(section, paragraph[1:]), ""]
    elif section:
      made += [*entries(section, paragraph), ""]
    elif paragraph[0].lstrip().startswith(">>>"):
      made += [*textwrap.dedent("\n".join(paragraph)).split("\n"), ""]
    elif LIST.match(paragraph[0]):
      made += ["", *map(escaped, paragraph), ""]
    else:
      made += prose(paragraph)
  return made


def prose(paragraph: list[str]) -> list[str]:
  """A paragraph, and from its first indented or aligned line on a literal block."""
  plain = []
  while paragraph and not (paragraph[0].startswith((" ", "|")) or COLUMNS.search(paragraph[0])):
    plain.append(escaped(paragraph.pop(0)))
  literal = [] if not paragraph else ["", "::", "", *(f"  {line}" for line in paragraph)]
  return [*plain, *literal, ""]


def paragraphs(lines: list[str]) -> list[list[str]]:
  """Runs of lines that are not empty; a heading such as `Args:` begins one of its own."""
  runs: list[list[str]] = [[]]
  for line in lines:
    if SECTIONS.match(line):
      runs.append([])
    if line.strip():
      runs[-1].append(line.rstrip())
    else:
      runs.append([])
  return [run for run in runs if run]


def entries(section: str, lines: list[str]) -> list[str]:
  """The lines of a section: names and their continuations; of what is returned, quoted keys become a list.

  >>> entries("Returns:", ["  a dict:", '    "a": one', '    "b": two,', "    or three"])
  ['  a dict:', '', '  * "a": one', '  * "b": two,', '    or three']
  """
  if not section.startswith(("Returns", "Yields")):
    # Deeper indentation than a continuation's would be a quotation.
    return [escaped_entry(" " * min(len(line) - len(line.lstrip()), 4) + line.lstrip()) for line in lines]
  made, listed = [], False
  for line in lines:
    deep, text = line.startswith("    "), escaped(line.strip())
    if deep and text.startswith('"'):
      made += [] if listed else [""]
      made.append(f"  * {text}")
      listed = True
    elif listed and not deep:
      made += ["", f"  {text}"]
      listed = False
    else:
      made.append(f"    {text}" if listed else f"  {text}")
  return made


def escaped_entry(line: str) -> str:
  """A line of a section, whose name before the colon napoleon reads."""
  entry = NAMED.match(line)
  return entry[1].replace("*", r"\*") + escaped(entry[2] or "") if entry else escaped(line)


def escaped(text: str) -> str:
  """`x` -> ``x``, `zoo.x` -> a link where it is documented; elsewhere what would be read as markup is escaped."""
  pieces = re.split(r"(`[^`]+`)", text)
  for i, piece in enumerate(pieces):
    if i % 2:
      before = r"\ " if i and pieces[i - 1][-1:].strip() and pieces[i - 1][-1] not in "([{-/'\"" else ""
      after = r"\ " if pieces[i + 1][:1].isalnum() else ""
      literal = piece[1:-1].strip()
      pieces[i] = before + (f":py:obj:`{literal}`" if NAME.fullmatch(literal) else f"``{literal}``") + after
    else:
      pieces[i] = re.sub(r"(?<=\w)_(?!\w)", r"\\_", re.sub(r"([\\*|`])", r"\\\1", piece))
  return "".join(pieces)
