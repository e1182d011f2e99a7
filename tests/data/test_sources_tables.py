"""csv: and tsv:."""

import csv
import io
import pickle

import pytest

from tests.data import toys
from tests.data.toys import everything
from zoo.data.bad_records import BadRecord
from zoo.data.fields import check_fields
from zoo.data.labelled_texts import labelled_texts
from zoo.data.sources import open_source
from zoo.errors import UserError

ROWS = [
  {"text": 'a "quoted", word', "label": "1"},
  {"text": "two\nlines\r\nor three", "label": ""},
  {"text": 'plain 5" in the middle', "label": "0"},
  {"text": "tab\tand , comma", "label": "2"},
  {"text": "é 😀", "label": "3"},
]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
  monkeypatch.setenv("ZOO_CACHE", str(tmp_path_factory.mktemp("cache")))


def by_line(source):
  return [record for _, record in sorted(zip(map(line_of, map(source.where, range(len(source)))), everything(source)))]


def line_of(where):
  return int(where.rpartition(" line ")[2])


def written(rows, **options):
  file = io.StringIO(newline="")
  table = csv.DictWriter(file, list(rows[0]), **options)
  table.writeheader()
  table.writerows(rows)
  return file.getvalue()


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_rows_are_those_that_the_csv_module_wrote(tmp_path, end, mark, quoting):
  for kind, delimiter in ("csv", ","), ("tsv", "\t"):
    content = mark + written(ROWS, delimiter=delimiter, lineterminator=end, quoting=quoting) + end
    toys.write(tmp_path, {f"rows.{kind}": content})
    source = open_source(f"{kind}:{tmp_path}")
    assert by_line(source) == ROWS
    assert sorted(line_of(source.where(i)) for i in range(5)) == [2, 3, 6, 7, 8]
    assert everything(pickle.loads(pickle.dumps(source))) == everything(source)


def test_parts_are_disjoint_fair_and_read_from_several_files(tmp_path):
  for name, numbers in ("a", range(40)), ("b", range(40, 60)):
    toys.write(tmp_path, {f"{name}.csv": written([{"text": f"{i}", "label": i // 30} for i in numbers])})
  where = f"csv:{tmp_path}/{{a,b}}.csv"
  train, rest = (everything(open_source(where, split)) for split in ("train[:75%]", "train[75%:]"))
  assert (len(train), len(rest)) == (45, 15)
  assert sorted(int(row["text"]) for row in train + rest) == list(range(60))
  assert {row["label"] for row in rest} == {"0", "1"}  # Not the end of the last file.
  toys.write(tmp_path, {"split/train/x.csv": "text,label\na,0\n", "split/test/x.csv": "label,text\n0,b\n"})
  both = open_source(f"csv:{tmp_path}/split", "train+test")  # Columns in another order.
  assert everything(both) == [{"text": "a", "label": "0"}, {"text": "b", "label": "0"}]


def test_encodings_are_named_or_refused_with_the_place_of_the_byte(tmp_path):
  rows = [{"text": text, "label": "0"} for text in ("plain", "café", "naïve")]
  for encoding in ("cp1252", "utf-16", "shift-jis", "utf-8"):
    content = written(rows if encoding != "shift-jis" else [{"text": "表示,", "label": "0"}])
    toys.write(tmp_path, {f"{encoding}.csv": content.encode(encoding)})
    read = by_line(open_source(f"csv:{tmp_path}/{encoding}.csv?encoding={encoding}"))
    assert read == (rows if encoding != "shift-jis" else [{"text": "表示,", "label": "0"}])
  source = open_source(f"csv:{tmp_path}/cp1252.csv")
  errors = []
  for index in range(3):
    try:
      source[index]
    except BadRecord as error:
      errors.append(str(error))
  place = (tmp_path / "cp1252.csv").read_bytes().index(b"\xe9")
  assert len(errors) == 2
  assert any(f"line 3 is not UTF-8: byte {place} of the file is 0xe9" in error for error in errors)
  assert all(error.endswith("cp1252.csv?encoding=cp1252") for error in errors)
  for name, message in {
    "utf-16.csv": r"utf-16.csv is not UTF-8: .* Write csv:.*utf-16.csv\?encoding=utf-16\.",
    "utf-8.csv?encoding=utf-9": "encoding 'utf-9' is unknown",
    "utf-8.csv?encoding=hex": "encoding 'hex' is unknown",
    "utf-8.csv?encoding=undefined": "encoding 'undefined' is unknown",
    "utf-8.csv?encoding=utf-16": "utf-8.csv is not utf-16: .* near byte 0. Name another",
    "cp1252.csv?encoding=shift-jis": r"cp1252.csv is not shift-jis: .* near byte",
  }.items():
    with pytest.raises(UserError, match=message):
      open_source(f"csv:{tmp_path}/{name}")


@pytest.mark.parametrize(
  "content, message",
  [
    ("0,a text\n1,b\n", r"line 1 is not a header: one of its 2 columns has '0', a number. .*\?columns=text,label"),
    ("text,,label\na,b,c\n", "line 1 is not a header: one of its 3 columns has no name"),
    ("text,text\na,b\n", "line 1 is not a header: one of its 2 columns has 'text', twice"),
    ("x" * 300 + ",label\na,b\n", "which is very long"),
    ("text;label\na;0\n", r"the header 'text;label' is one column. Write csv:.*rows.csv\?delimiter=;"),
    ("text,label\n", "has no row below its header"),
    ("", r"rows.csv has no row\. Remove"),
    ("\n\n", r"rows.csv has no row\. Remove"),
    ('text,label\na,0\n"b,1\nc,2\n', "line 3 opens a quote that is never closed. .*quotes=none"),
    ("caf\xe9,label\na,0\n".encode("latin-1"), "line 1 is not UTF-8: byte 3 of the file is 0xe9"),
    (b"\x1f\x8b\x08\0\0\0\0\0", r"is compressed \(gzip\)"),
  ],
)
def test_files_that_are_no_tables_are_refused_with_the_way_out(tmp_path, content, message):
  toys.write(tmp_path, {"rows.csv": content})
  with pytest.raises(UserError, match=message):
    open_source(f"csv:{tmp_path}")


def test_the_ways_out_work(tmp_path):
  toys.write(
    tmp_path, {"bare.csv": "1,a text\n0,b\n", "semi.csv": "text;label\na;0\n", "top.csv": "made by x\nt,l\n1,2\n"}
  )
  toys.write(tmp_path, {"loose.tsv": 'text\tlabel\n"He said\t0\n', "index.csv": ",text\n0,a\n"})
  read = lambda where: by_line(open_source(where, "train", str(tmp_path)))
  assert read("csv:bare.csv?columns=label,text") == [{"label": "1", "text": "a text"}, {"label": "0", "text": "b"}]
  assert read("csv:semi.csv?delimiter=;") == read("tsv:semi.csv?delimiter=%3B") == [{"text": "a", "label": "0"}]
  assert read("csv:top.csv?skip=1") == [{"t": "1", "l": "2"}]
  assert read("tsv:loose.tsv?quotes=none") == [{"text": '"He said', "label": "0"}]
  assert read("csv:index.csv") == [{"Unnamed: 0": "0", "text": "a"}]
  for where, message in {
    "csv:bare.csv?encodng=latin-1": r"no option 'encodng' with a value. Did you mean 'encoding'\? There are: columns=",
    "csv:bare.csv?delimiter=ab": "delimiter is 'ab'. It must be a character",
    "csv:bare.csv?quotes=some": "quotes may be none or double",
  }.items():
    with pytest.raises(UserError, match=message):
      read(where)


def test_rows_that_do_not_fit_the_header_are_bad_records_of_their_own(tmp_path):
  content = 'text,label,id\na,0,1\nb,1\nc,0,1,2\n"d"x,1,2\n"e\n"f,1,2\ng,1,3\n'
  toys.write(tmp_path, {"rows.csv": content})
  source = open_source(f"csv:{tmp_path}")
  errors = "\n".join(source.broken.values())
  assert "rows.csv line 3: it has 2 fields, and there are 3 columns (text, label, id). Column 'id' is missing" in errors
  assert "rows.csv line 4: it has 4 fields" in errors and "Texts with ',' in them go in quotes" in errors
  assert "rows.csv line 5: its quotes do not match (" in errors
  assert "rows.csv line 6: its quotes do not match up to line 7 (" in errors
  with pytest.raises(BadRecord, match="Fix or remove it, or set data.bad_records=skip"):
    labelled_texts(f"csv:{tmp_path}")
  records = labelled_texts(f"csv:{tmp_path}", bad_records={"action": "skip", "most": 0.8})
  assert sorted(source[i]["text"] for i in range(6) if i not in source.broken) == ["a", "g"]
  assert records.may_skip and records.info["source"].startswith("csv:")


def test_rows_of_a_tsv_are_not_merged_by_quotes_that_are_none(tmp_path):
  content = 'a\tb\n1\t" He said so .\n2\tno quote\n3\tShe said so "\n'
  toys.write(tmp_path, {"rows.tsv": content})
  source = open_source(f"tsv:{tmp_path}")
  assert "line 2: a quote is closed in line 4 only, behind tabs. If a quote is" in min(source.broken.values())
  assert [row["b"] for row in by_line(open_source(f"tsv:{tmp_path}/rows.tsv?quotes=none"))] == [
    '" He said so .',
    "no quote",
    'She said so "',
  ]
  assert len(open_source(f"tsv:{tmp_path}/rows.tsv?quotes=double")) == 1


def test_files_of_other_columns_and_fields_that_are_missing_are_told(tmp_path):
  toys.write(tmp_path, {"a.csv": "text,label\na,0\n", "b.csv": "text,class\na,0\n"})
  with pytest.raises(UserError, match=r"b.csv has a column 'class' that .*a.csv has not"):
    open_source(f"csv:{tmp_path}")
  source = open_source(f"csv:{tmp_path}/a.csv")
  with pytest.raises(
    UserError, match=r"has no field 'txt'. Did you mean 'text'\? It has: text, label. If there is no hea"
  ):
    check_fields(source, "txt")
