import pickle

import pytest

from tests.data import toys
from tests.data.toys import everything
from zoo.data.bad_records import BadRecord
from zoo.data.sources import open_source
from zoo.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
  monkeypatch.setenv("ZOO_CACHE", str(tmp_path_factory.mktemp("cache")))


def texts(source):
  return [record["text"] for record in everything(source)]


# Text files


@pytest.mark.parametrize("where", ["texts", "texts/**/*.txt", "texts/*/*.txt"])
def test_a_document_a_file(tmp_path, where):
  toys.write(tmp_path, {f"texts/{i // 3}/{i}.txt": f"text {i}" for i in range(7)})
  toys.write(tmp_path, {"texts/.hidden.txt": "no", "texts/.git/a.txt": "no", "texts/image.png": b"no"})
  source = open_source(f"text:{where}", "train", str(tmp_path))
  assert sorted(texts(source)) == [f"text {i}" for i in range(7)]
  assert texts(source) == texts(open_source(f"text:{tmp_path}/{where}"))


def test_parts_of_a_folder_are_disjoint_and_complete(tmp_path):
  toys.write(tmp_path, {f"{i:02}.md": f"text {i:02}" for i in range(20)})
  train, rest = (texts(open_source(f"text:{tmp_path}", split)) for split in ("train[:75%]", "train[75%:]"))
  assert (len(train), len(rest)) == (15, 5)
  assert sorted(train + rest) == [f"text {i:02}" for i in range(20)]
  assert max(train) > min(rest)  # Not the first files of the folder.


def test_subfolders_named_as_splits_are_the_splits(tmp_path):
  toys.write(tmp_path, {"train/a.txt": "a", "train/b.txt": "b", "test/c.txt": "c"})
  assert sorted(texts(open_source(f"text:{tmp_path}", "train"))) == ["a", "b"]
  assert texts(open_source(f"text:{tmp_path}", "test")) == ["c"]
  assert texts(open_source(f"text:{tmp_path}/{{split}}/*.txt", "test")) == ["c"]
  assert len(texts(open_source(f"text:{tmp_path}", "train+test"))) == 3
  with pytest.raises(UserError, match="has no split 'validation'. It has: train, test"):
    open_source(f"text:{tmp_path}", "validation")


def test_the_fingerprint_changes_with_the_files(tmp_path):
  toys.write(tmp_path, {"a.txt": "a"})
  before = open_source(f"text:{tmp_path}").fingerprint
  assert open_source(f"text:{tmp_path}").fingerprint == before
  toys.write(tmp_path, {"a.txt": "longer"})
  assert open_source(f"text:{tmp_path}").fingerprint != before


def test_texts_that_cannot_be_read_are_named(tmp_path):
  toys.write(tmp_path, {"latin/a.txt": b"caf\xe9", "empty/b.txt": "", "blank/c.txt": " \n", "bom/d.txt": "\ufefftext"})
  with pytest.raises(UserError, match=r"a\.txt is not UTF-8 text: .* at byte 3"):
    open_source(f"text:{tmp_path}/latin")[0]
  for folder, file in ("empty", "b.txt"), ("blank", "c.txt"):
    with pytest.raises(UserError, match=f"{file} is empty"):
      open_source(f"text:{tmp_path}/{folder}")[0]
  assert open_source(f"text:{tmp_path}/bom")[0]["text"] == "text"
  source = open_source(f"text:{tmp_path}/bom")
  (tmp_path / "bom" / "d.txt").unlink()
  with pytest.raises(UserError, match=r"d\.txt cannot be read: No such file"):
    source[0]


@pytest.mark.parametrize(
  "source, message",
  [
    ("text:nowhere", "There is no folder .*nowhere"),
    ("text:*.txt", r"No file matches .*\*\.txt"),
    ("text:.", "No file matches"),
    (
      "txt:.",
      r"has no 'txt'. Did you mean 'text'\? It has: (\w+, )*images, jsonl, lines, parquet, text, tfds",
    ),
    ("notes", "source is 'notes'. It must be KIND:WHERE"),
    ("text:", "source is 'text:'. It must be KIND:WHERE"),
  ],
)
def test_places_that_are_not_there_are_told(tmp_path, source, message):
  with pytest.raises(UserError, match=message):
    open_source(source, "train", str(tmp_path))


# JSON lines


def test_an_object_a_line(tmp_path):
  for name in "ab":
    toys.write_jsonl(tmp_path / f"{name}.jsonl", [{"text": f"{name}{i}", "year": i} for i in range(5)])
  source = open_source(f"jsonl:{tmp_path}")
  assert sorted(texts(source)) == [f"{name}{i}" for name in "ab" for i in range(5)]
  assert texts(source) != sorted(texts(source))
  parts = [open_source(f"jsonl:{tmp_path}/*.jsonl", split) for split in ("train[:4]", "train[4:]")]
  assert [record for part in parts for record in everything(part)] == everything(source)
  assert everything(pickle.loads(pickle.dumps(source))) == everything(source)


def test_line_ends_blank_lines_and_a_mark_of_byte_order_do_not_matter(tmp_path):
  toys.write(
    tmp_path, {"a.jsonl": '\ufeff{"text": "é"}\r\n{"text": "b"}\n{"text": "c"}', "b.jsonl": '{"text": "d"}\n\n\n'}
  )
  toys.write(tmp_path, {"c.jsonl": '\n \t \r\n{"text": "e"}\n\r\n  {"text": "\\ud83d\\ude00"}\n \n'})
  source = open_source(f"jsonl:{tmp_path}")
  assert sorted(texts(source)) == ["b", "c", "d", "e", "é", "😀"]
  assert any(source.where(i).endswith("c.jsonl line 5") for i in range(len(source)))


@pytest.mark.parametrize(
  "line, message",
  [
    ('{"text": "cut', r"data\.jsonl line 2 is not JSON: Unterminated string starting at column 10\.$"),
    ("[1, 2]", r"data\.jsonl line 2 is \[1, 2\], not a JSON object"),
    ("\udcff", r"data\.jsonl line 2 is not JSON"),
    ('{"text": "cut \\ud83d"}', r"data\.jsonl line 2 holds '\\ud83d', a lone surrogate\."),
    ("[" * 50_000 + "]" * 50_000, r"data\.jsonl line 2 is JSON that is nested too deeply\."),
  ],
)
def test_a_broken_line_is_told_when_it_is_read(tmp_path, line, message):
  (tmp_path / "data.jsonl").write_bytes(f'{{"text": "a"}}\n{line}\n{{"text": "c"}}\n'.encode(errors="surrogateescape"))
  source = open_source(f"jsonl:{tmp_path}")
  with pytest.raises(UserError, match=message):
    everything(source)


def test_a_file_of_another_format_is_told_by_its_first_line(tmp_path):
  toys.write(tmp_path, {"a.jsonl": "\n" + "text,label\n" * 50})
  source = open_source(f"jsonl:{tmp_path}")
  assert len(source) == 50
  for index in range(len(source)):
    with pytest.raises(UserError) as told:
      source[index]
    message = str(told.value)
    assert message.startswith(f"{source.where(index)} is not JSON: Expecting value at column 1.")
    assert ("Nor is line 2, the first. A JSON Lines file has one" in message) != ("line 2 is" in message)


def test_an_empty_file_of_lines_is_named(tmp_path):
  toys.write(tmp_path, {"a.jsonl": '{"text": "a"}', "b.jsonl": ""})
  with pytest.raises(UserError, match=r"b\.jsonl is empty"):
    open_source(f"jsonl:{tmp_path}")


def test_json_lines_that_are_given_as_text_are_noticed(tmp_path):
  toys.write(tmp_path, {"a.jsonl": '{"text": "a"}', "b.txt": "b"})
  for where in ("a.jsonl", "*"):
    with pytest.raises(UserError, match=r"holds JSON lines, .*a\.jsonl\. Write jsonl:"):
      open_source(f"text:{tmp_path}/{where}")
  assert texts(open_source(f"text:{tmp_path}")) == ["b"]


def test_a_split_of_too_few_files_says_what_to_do(tmp_path):
  toys.write(tmp_path, {"one.txt": "text"})
  with pytest.raises(
    UserError, match=r"\[99%:\]' has no example: its part of the bytes has no full line. A file is one document"
  ):
    open_source(f"text:{tmp_path}/one.txt", "train[99%:]")


@pytest.mark.parametrize("name", ["val", "valid", "validation", "dev"])
def test_validation_has_several_names(tmp_path, name):
  toys.write(tmp_path, {"train/a.txt": "a", f"{name}/b.txt": "b"})
  assert texts(open_source(f"text:{tmp_path}", "validation")) == texts(open_source(f"text:{tmp_path}", "val")) == ["b"]


def test_braces_name_several_files(tmp_path):
  toys.write(tmp_path, {f"{i:02}.txt": f"{i}" for i in range(8, 12)})
  assert sorted(texts(open_source(f"text:{tmp_path}/{{08..10}}.txt"))) == ["10", "8", "9"]
  assert sorted(texts(open_source(f"text:{tmp_path}/{{08,11}}.txt"))) == ["11", "8"]
  with pytest.raises(UserError, match=r"names 3 files, of which 1 are missing: 12\.txt"):
    open_source(f"text:{tmp_path}/{{10..12}}.txt")


# Images


def test_captions_in_files_beside_the_images(tmp_path):
  toys.write(tmp_path, {"a.png": toys.png("red"), "a.txt": "a red one\n\nred\n", "in/b.JPG": toys.png("blue")})
  toys.write(tmp_path, {"in/b.json": '{"caption": "a blue one", "keywords": ["sky"]}'})
  red, blue = sorted(everything(open_source(f"images:{tmp_path}")), key=lambda record: record["path"])
  assert (red["image"], red["text"]) == (toys.png("red"), ["a red one", "red"])
  assert (blue["caption"], blue["keywords"]) == ("a blue one", ["sky"])


@pytest.mark.parametrize("write", [toys.write_jsonl, toys.write_csv])
def test_captions_in_a_table(tmp_path, write):
  toys.write(tmp_path, {"a.png": toys.png("red"), "in/b.png": toys.png("blue"), "c.png": toys.png("green")})
  rows = [{"file": "a.png", "text": 'a "red", one'}, {"file": "in/b.png", "text": "a blue one"}]
  write(tmp_path / ("captions.csv" if write is toys.write_csv else "captions.jsonl"), rows)
  records = sorted(everything(open_source(f"images:{tmp_path}")), key=lambda record: record["path"])
  assert [(record["text"], record["image"]) for record in records] == [
    ('a "red", one', toys.png("red")),
    ("a blue one", toys.png("blue")),
  ]


@pytest.mark.parametrize("name", ["captions.jsonl", "captions.csv", "metadata.jsonl", "metadata.csv"])
def test_several_rows_of_an_image_are_its_captions(tmp_path, name):
  toys.write(tmp_path, {f"{image}.png": toys.png("red") for image in "ab"})
  field = "file" if name.startswith("captions") else "file_name"
  rows = [
    {field: f"{image}.png", "text": text, "by": "me"} for image, text in [("a", "one"), ("b", "two"), ("a", "three")]
  ]
  (toys.write_csv if name.endswith("csv") else toys.write_jsonl)(tmp_path / name, rows)
  records = {record["path"][-5]: record for record in everything(open_source(f"images:{tmp_path}"))}
  assert {key: (record["text"], record["by"]) for key, record in records.items()} == {
    "a": (["one", "three"], "me"),
    "b": ("two", "me"),
  }


def test_a_table_beside_the_folders_of_splits_is_for_all_of_them(tmp_path):
  toys.write(tmp_path, {"train/a.png": toys.png("red"), "test/b.png": toys.png("blue")})
  rows = [{"file_name": "train/a.png", "label": "red"}, {"file_name": "test/b.png", "label": "blue"}]
  toys.write_jsonl(tmp_path / "metadata.jsonl", rows)
  train, test = (open_source(f"images:{tmp_path}", split) for split in ("train", "test"))
  assert [record["label"] for record in everything(train) + everything(test)] == ["red", "blue"]
  assert train.class_names == test.class_names == {"label": ["blue", "red"]}


def test_whatever_else_lies_beside_the_folders_of_classes_changes_nothing(tmp_path):
  files = ["a/x.png", "a/y.TIF", "b/z.jfif", "b/v.ppm", "b/w.heic"]
  toys.write(tmp_path, {file: toys.png("red") for file in files})
  toys.write(tmp_path, {"README.txt": "x", "a/notes.txt": "x", "info.json": "{}", "docs/c.md": "x"})
  toys.write(tmp_path, {"__MACOSX/a/._x.png": b"x", "a/._x.png": b"x", ".cache/x.png": b"x"})
  source = open_source(f"images:{tmp_path}")
  assert sorted(record["path"][len(str(tmp_path)) + 1 :] for record in everything(source)) == sorted(files)
  assert source.class_names == {"label": ["a", "b"]}


def test_an_image_beside_the_folders_of_classes_is_a_bad_record(tmp_path):
  toys.write(tmp_path, {"a/x.png": toys.png("red"), "cover.png": toys.png("red")})
  source = open_source(f"images:{tmp_path}")
  assert len(source.broken) == 1
  with pytest.raises(BadRecord, match=r"cover\.png is not in a class folder"):
    everything(source)


def test_folders_are_classes_with_the_same_numbers_in_every_split(tmp_path):
  toys.write(tmp_path, {f"train/{name}/{i}.png": toys.png(name) for name in ("blue", "red") for i in range(3)})
  toys.write(tmp_path, {"test/red/0.png": toys.png("red"), "test/light_green/0.png": toys.png("green")})
  train, test = (open_source(f"images:{tmp_path}", split) for split in ("train", "test"))
  assert train.class_names == test.class_names == {"label": ["blue", "light_green", "red"]}
  assert {(record["label"], record["text"]) for record in everything(train)} == {(0, "blue"), (2, "red")}
  assert {(record["label"], record["text"]) for record in everything(test)} == {(1, "light green"), (2, "red")}


def test_images_without_captions_or_broken_ones_are_named(tmp_path):
  toys.write(tmp_path, {"some/a.png": toys.png("red"), "some/a.txt": "red", "some/b.png": toys.png("red")})
  with pytest.raises(UserError, match=r"b\.png has no caption: there is neither b\.txt nor b\.json"):
    everything(open_source(f"images:{tmp_path}/some"))
  toys.write(tmp_path, {"json/a.png": toys.png("red"), "json/a.json": "{"})
  with pytest.raises(UserError, match=r"a\.json is not JSON"):
    everything(open_source(f"images:{tmp_path}/json"))
  toys.write(tmp_path, {"zero/x/a.png": b""})
  with pytest.raises(UserError, match=r"a\.png is empty"):
    everything(open_source(f"images:{tmp_path}/zero"))
  toys.write(tmp_path, {"none/a.txt": "text"})
  with pytest.raises(UserError, match=r"none has no images for split 'train'\."):
    open_source(f"images:{tmp_path}/none")


def test_a_caption_ends_where_its_line_does(tmp_path):
  odd = "one\u2028two\x85three\x0cfour"  # What Python counts as ends of lines too.
  toys.write(tmp_path, {"a/a.png": toys.png("red"), "a/a.txt": f"{odd}\r\nfive\rsix"})
  toys.write(tmp_path, {"b/a.png": toys.png("red"), "b/captions.csv": f"file,text\r\na.png,{odd}\r\n"})
  assert texts(open_source(f"images:{tmp_path}/a")) == [[odd, "five", "six"]]
  assert texts(open_source(f"images:{tmp_path}/b")) == [odd]


def test_a_row_with_a_comma_too_many_is_told(tmp_path):
  toys.write(tmp_path, {"a.png": toys.png("red"), "captions.csv": "file,text\na.png,a red, round one\n"})
  with pytest.raises(BadRecord, match=r"captions\.csv line 2 has more fields than there are columns"):
    everything(open_source(f"images:{tmp_path}"))


@pytest.mark.parametrize(
  "row, message",
  [
    ('{"file": "gone.png", "text": "t"}', r"gone\.png cannot be read: No such file"),
    ('{"file": "../outside.png", "text": "t"}', r"captions\.jsonl line 1: '\.\./outside\.png' is outside"),
    ('{"file": "/etc/passwd", "text": "t"}', r"captions\.jsonl line 1: '/etc/passwd' is outside"),
    ('{"picture": "a.png", "text": "t"}', r"captions\.jsonl line 1 names no image in a field 'file'.*picture, text"),
    ('{"file": "a.png"', r"captions\.jsonl line 1 is not JSON"),
  ],
)
def test_a_wrong_row_of_a_table_is_told(tmp_path, row, message):
  toys.write(tmp_path, {"captions.jsonl": row, "a.png": toys.png("red")})
  with pytest.raises(UserError, match=message):
    everything(open_source(f"images:{tmp_path}"))
