"""lines:, and text: of few files."""

import pickle

import pytest

from tests.data import toys
from tests.data.toys import everything
from zoo.data.bad_records import BadRecord
from zoo.data.fields import check_fields
from zoo.data.language import language
from zoo.data.sources import open_source, text
from zoo.data.text_pairs import text_pairs
from zoo.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
  monkeypatch.setenv("ZOO_CACHE", str(tmp_path_factory.mktemp("cache")))


def texts(source):
  return [record["text"] for record in everything(source)]


def test_a_text_a_line(tmp_path):
  toys.write(tmp_path, {"a.txt": "\ufeffone\r\n\r\ntwo  \n \t\n", "in/b.txt": "three"})
  source = open_source(f"lines:{tmp_path}")
  assert sorted(texts(source)) == ["one", "three", "two  "]
  assert {source.where(i) for i in range(3)} == {
    f"{tmp_path}/{where}" for where in ("a.txt line 1", "a.txt line 3", "in/b.txt line 1")
  }
  parts = [texts(open_source(f"lines:{tmp_path}", split)) for split in ("train[:2]", "train[2:]")]
  assert sum(parts, []) == texts(source)
  toys.write(tmp_path, {"latin.txt": "caf\xe9\n".encode("latin-1")})
  assert texts(open_source(f"lines:{tmp_path}/latin.txt?encoding=latin-1")) == ["café"]
  with pytest.raises(BadRecord, match=r"latin.txt line 1 is not UTF-8: byte 3 .* lines:.*latin.txt\?encoding=cp1252"):
    texts(open_source(f"lines:{tmp_path}/latin.txt"))
  toys.write(tmp_path, {"blank.txt": "\n \n"})
  with pytest.raises(UserError, match="blank.txt is empty"):
    open_source(f"lines:{tmp_path}/blank.txt")


def test_two_files_side_by_side_are_pairs(tmp_path):
  toys.write(tmp_path, {"train.en": "a\n\nb\nc\n", "train.de": "A\n\nB\nC", "test.en": "d\n", "test.de": "D\n"})
  source = open_source("lines:{split}.en,{split}.de", "train", str(tmp_path))
  assert sorted((row["source"], row["target"]) for row in everything(source)) == [("a", "A"), ("b", "B"), ("c", "C")]
  index = next(i for i in range(3) if source[i]["source"] == "b")
  assert source.where(index) == f"{tmp_path}/train.en, {tmp_path}/train.de line 3"
  assert everything(pickle.loads(pickle.dumps(source))) == everything(source)
  assert len(text_pairs("lines:{split}.en,{split}.de", "test", data_dir=str(tmp_path), tokenizer="bytes")) == 1
  named = open_source(f"lines:{tmp_path}/{{train,test}}.en,{tmp_path}/{{train,test}}.de?columns=en,de")
  assert sorted(row["en"] + row["de"] for row in everything(named)) == ["aA", "bB", "cC", "dD"]


def test_files_that_are_no_pairs_are_refused_with_their_counts(tmp_path):
  toys.write(tmp_path, {"a.en": "a\nb\nc\n", "a.de": "A\nB\n", "b.en": "a\n", "x.en": "a\n\n", "x.de": "A\nB\n"})
  for where, message in {
    "a.en,{}/a.de": "a.en has 3 lines, .*a.de has 2 lines: the files are not aligned",
    "*.en,{}/a.de": "names 3 and 1 files side by side",
    "a.en,{0}/a.de,{0}/b.en": r"has 3 files side by side. Name a column for each: \?columns=text0,text1,text2",
    "a.en,{}/a.de?columns=x,x": "has 2 files side by side. Name a column for each",
  }.items():
    with pytest.raises(UserError, match=message):
      open_source(f"lines:{tmp_path}/{where.format(tmp_path)}")
  pairs = open_source(f"lines:{tmp_path}/x.en,{tmp_path}/x.de")
  assert len(pairs) == 2
  with pytest.raises(BadRecord, match="x.en line 2 is blank, and of the files beside it that line is not"):
    everything(pairs)
  records = text_pairs(
    f"lines:{tmp_path}/x.en,{tmp_path}/x.de", tokenizer="bytes", bad_records={"action": "skip", "most": 0.5}
  )
  assert len(records) == 1 and len(records.bad) == 1
  with pytest.raises(UserError, match=r"has no field 'source'. It has: text. Two files side by side"):
    check_fields(open_source(f"lines:{tmp_path}/b.en"), "source")


# text: of few files


def test_one_file_splits_at_the_end_of_a_paragraph_near_each_percent(tmp_path):
  content = "\n\n".join(f"Paragraph {i}, é.\nIts second line." for i in range(200))
  toys.write(tmp_path, {"one.txt": content})
  where = f"text:{tmp_path}/one.txt"
  train, held = (texts(open_source(where, split)) for split in ("train[:99%]", "train[99%:]"))
  assert len(train) == len(held) == 1
  assert train[0] + held[0] == content
  assert held[0].startswith("Paragraph 198") and 0.005 < len(held[0]) / len(content) < 0.015
  thirds = [texts(open_source(where, f"train[{i}%:{i + 30}%]"))[0] for i in (0, 30, 60)]
  assert "".join(thirds) + texts(open_source(where, "train[90%:]"))[0] == content
  assert texts(open_source(where)) == texts(open_source(where, "train[:30%]+train[30%:]")) == [content]
  held = open_source(where, "train[99%:]")
  assert held.where(0).startswith(f"{tmp_path}/one.txt bytes ") and pickle.loads(pickle.dumps(held))[0] == held[0]
  assert held.fingerprint != open_source(where, "train[98%:]").fingerprint


def test_few_files_split_by_bytes_and_at_most_one_is_cut(tmp_path):
  for size in (3, 40, 500, 20):
    toys.write(tmp_path, {f"{size}.txt": "".join(f"{size} line {i}\r\n" for i in range(size))})
  total = sum((tmp_path / f"{size}.txt").stat().st_size for size in (3, 40, 500, 20))
  parts = [open_source(f"text:{tmp_path}", split) for split in ("train[:90%]", "train[90%:]")]
  lines = [line for part in parts for text in texts(part) for line in text.split("\r\n") if line]
  assert sorted(lines) == sorted(f"{size} line {i}" for size in (3, 40, 500, 20) for i in range(size))
  assert abs(len("".join(texts(parts[1])).encode()) / total - 0.1) < 0.02
  assert sum(" bytes " in part.where(i) for part in parts for i in range(len(part))) in (0, 2)
  assert len(open_source(f"text:{tmp_path}", "train[:3]")) == 3  # Numbers are those of files.


def test_a_long_file_is_several_documents_so_that_memory_is_bounded(tmp_path, monkeypatch):
  monkeypatch.setattr(text, "LONGEST", 1000)
  content = "".join(f"Line {i} of a long file, é.\n" for i in range(200))
  toys.write(tmp_path, {"long.txt": content, "short.txt": "a\n" * 400})
  source = open_source(f"text:{tmp_path}/long.txt")
  assert "".join(texts(source)) == content
  assert [len(part.encode()) <= 1100 for part in texts(source)] == [True] * 6
  assert len(open_source(f"text:{tmp_path}", "train[:1]")) in (1, 6)  # Numbers are those of files.
  halves = [texts(open_source(f"text:{tmp_path}/long.txt", split)) for split in ("train[:50%]", "train[50%:]")]
  assert "".join(sum(halves, [])) == content and [len(half) for half in halves] == [3, 3]


def test_what_does_not_split_is_told(tmp_path):
  toys.write(tmp_path, {"line.txt": "one line", "cut/bad.txt": b"a\n" * 99 + b"\xff\n", "t/a.csv": "text\na\n"})
  with pytest.raises(UserError, match="its part of the bytes has no full line. A file is one document"):
    open_source(f"text:{tmp_path}/line.txt", "train[99%:]")
  with pytest.raises(UserError, match="mixes percents and numbers of files"):
    open_source(f"text:{tmp_path}/line.txt", "train[:50%]+train[1:2]")
  with pytest.raises(BadRecord, match="bad.txt is not UTF-8 text: .* at byte 198"):
    open_source(f"text:{tmp_path}/cut", "train[50%:]")[0]
  with pytest.raises(UserError, match=r"a.csv, not a text file. Write csv:.*a.csv"):
    open_source(f"text:{tmp_path}/t/a.csv")


def test_one_file_trains_and_is_evaluated_on_the_rest_of_it(tmp_path):
  toys.write(tmp_path, {"one.txt": "".join(f"This is line {i} of a book.\n" for i in range(300))})
  train, held = (
    language(f"text:{tmp_path}/one.txt", split, tokenizer="bytes", max_length=17)
    for split in ("train[:99%]", "train[99%:]")
  )
  assert train.info["bytes"] + held.info["bytes"] < (tmp_path / "one.txt").stat().st_size + 2
  assert train.info["bytes"] > 90 * held.info["bytes"] > 0
