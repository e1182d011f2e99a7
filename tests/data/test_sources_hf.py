"""hf:, whose files are written by pyarrow as datasets writes them."""

import pickle

import pyarrow.parquet as pq
import pytest

from tests.data import toys
from tests.data.tables import expected, save_to_disk, table, write_stream
from tests.data.toys import everything
from tests.data.web_server import serving
from zoo.data.bad_records import BadRecord
from zoo.data.sources import open_source, retries
from zoo.errors import UserError


def test_a_saved_dataset_and_a_saved_dict_of_them_are_read(tmp_path):
  save_to_disk(tmp_path / "one", [range(7), range(7, 12)])
  source = open_source(f"hf:{tmp_path}/one")
  assert everything(source) == expected(range(12))
  assert source.class_names == {"label": ["no", "yes"], "tags": ["O", "B"]}
  assert source.where(8) == f"{tmp_path}/one/data-00001-of-00002.arrow row 1"
  assert everything(pickle.loads(pickle.dumps(source))) == everything(source)
  toys.write(tmp_path / "both", {"dataset_dict.json": '{"splits": ["train", "val"]}'})
  save_to_disk(tmp_path / "both/train", [range(5)])
  save_to_disk(tmp_path / "both/val", [range(5, 8)])
  assert everything(open_source("hf:both", "validation", str(tmp_path))) == expected(range(5, 8))
  assert len(open_source(f"hf:{tmp_path}/both", "train[:60%]")) == 3
  with pytest.raises(UserError, match="has no split 'test'. It has: train, val"):
    open_source(f"hf:{tmp_path}/both", "test")
  (tmp_path / "both/val/state.json").unlink()
  with pytest.raises(UserError, match="val has no state.json: the split 'val' is missing"):
    open_source(f"hf:{tmp_path}/both")


def test_the_cache_of_datasets_is_read(tmp_path):
  for name, numbers in {"squad-train-00000-of-00002": range(3), "squad-train-00001-of-00002": range(3, 5)}.items():
    write_stream(tmp_path / f"{name}.arrow", table(numbers))
  write_stream(tmp_path / "squad-validation.arrow", table(range(5, 7)))
  write_stream(tmp_path / "cache-0123.arrow", table(range(1)))
  toys.write(tmp_path, {"dataset_info.json": "{}"})
  assert everything(open_source(f"hf:{tmp_path}")) == expected(range(5))
  assert everything(open_source(f"hf:{tmp_path}", "val")) == expected(range(5, 7))


CARD = """---
configs:
- config_name: small
  data_files:
  - split: train
    path: small/part-*
  - split: test
    path: [small/held.parquet]
- config_name: large
  data_files: large/*.parquet
dataset_info:
- config_name: small
  features:
  - name: label
    dtype:
      class_label:
        names:
          '0': negative
          '1': positive
---
# A card
"""


def test_a_copy_of_a_repository_is_read_by_its_card_or_by_its_names(tmp_path):
  files = {"small/part-0": range(3), "small/part-1": range(3, 5), "small/held": range(5, 7), "large/x": range(9)}
  for name, numbers in files.items():
    (tmp_path / name).parent.mkdir(exist_ok=True)
    pq.write_table(table(numbers, described=name != "small/held"), tmp_path / f"{name}.parquet")
  toys.write(tmp_path, {"README.md": CARD})
  small = open_source(f"hf:{tmp_path}?config=small")
  assert everything(small) == expected(range(5)) and small.class_names["label"] == ["negative", "positive"]
  assert len(open_source(f"hf:{tmp_path}?config=small", "test")) == 2
  assert len(open_source(f"hf:{tmp_path}?config=large")) == 9
  with pytest.raises(UserError, match=r"has several configs: small, large. Write hf:.*\?config=small"):
    open_source(f"hf:{tmp_path}")
  with pytest.raises(UserError, match=r"has no config 'smal'. Did you mean 'small'\?"):
    open_source(f"hf:{tmp_path}?config=smal")
  toys.write(tmp_path, {"README.md": CARD.replace("class_label:", "class_label: null\n      other:")})
  assert open_source(f"hf:{tmp_path}?config=small").class_names["label"] == ["no", "yes"]  # Of the files.
  toys.write(tmp_path, {"README.md": "---\nconfigs: [\n---\n"})
  with pytest.raises(UserError, match="The YAML at the top of .*README.md cannot be read"):
    open_source(f"hf:{tmp_path}")
  for name, numbers in {"data/train-00000-of-00001": range(4), "data/extra-00000-of-00001": range(2)}.items():
    (tmp_path / "named" / name).parent.mkdir(exist_ok=True, parents=True)
    pq.write_table(table(numbers), tmp_path / "named" / f"{name}.parquet")
  assert [len(open_source(f"hf:{tmp_path}/named", split)) for split in ("train", "extra")] == [4, 2]


def test_repositories_of_csv_and_json_lines_are_read_too(tmp_path):
  toys.write(
    tmp_path / "rows",
    {"train.csv": "text,label\na,0\nb,1\n", "test.csv": "text,label\nc,1\n", "dataset_infos.json": "{}"},
  )
  toys.write_jsonl(tmp_path / "part0.json", [{"text": f"x{i}", "label": 1} for i in range(3)])
  toys.write_jsonl(tmp_path / "part1.json", [{"text": f"y{i}", "label": 0} for i in range(2)])
  toys.write(
    tmp_path, {"README.md": CARD.replace("small/part-*", "part*.json").replace("[small/held.parquet]", "part1.json")}
  )
  train, test = (open_source(f"hf:{tmp_path}/rows", split) for split in ("train", "test"))
  assert sorted(row["text"] for row in everything(train)) == ["a", "b"] and everything(test) == [
    {"text": "c", "label": "1"}
  ]
  parts = [open_source(f"hf:{tmp_path}?config=small", split) for split in ("train[:60%]", "train[60%:]")]
  assert sorted(row["text"] for part in parts for row in everything(part)) == ["x0", "x1", "x2", "y0", "y1"]
  assert parts[0].class_names == {"label": ["negative", "positive"]} and "part" in parts[0].where(0)
  with pytest.raises(UserError, match="has no dataset of .* files of one kind"):
    toys.write(
      tmp_path,
      {
        "README.md": CARD.replace("small/part-*", "part*.json").replace(
          "small/held.parquet", "rows/test.csv, part0.json"
        )
      },
    )
    open_source(f"hf:{tmp_path}?config=small")


def test_arrow_files_that_are_damaged_are_named(tmp_path):
  save_to_disk(tmp_path, [range(12)])
  file = tmp_path / "data-00000-of-00001.arrow"
  whole = file.read_bytes()
  for size in (len(whole) - 8, len(whole) - 200, 100, 0):
    file.write_bytes(whole[:size])
    with pytest.raises(UserError, match="data-00000-of-00001.arrow is not a complete Arrow file"):
      open_source(f"hf:{tmp_path}")
  file.write_bytes(whole.replace("é 7".encode(), b"\xff\xff 7"))
  source = open_source(f"hf:{tmp_path}")
  with pytest.raises(BadRecord, match="data-00000-of-00001.arrow row 7 is damaged"):
    source[7]
  assert source[6] == expected([6])[0]


def test_folders_without_a_dataset_are_told_what_to_write(tmp_path):
  toys.write(tmp_path, {"a/train.txt": "a", "old/state.json": '{"_indices_data_files": [{"filename": "i.arrow"}]}'})
  toys.write(tmp_path, {"out/state.json": '{"_data_files": [{"filename": "../a.arrow"}]}'})
  for where, message in {
    "a": "has no dataset of Arrow, Parquet, .csv, .tsv or .jsonl files. Write text:",
    "old": "was saved by a version of datasets before 2.0",
    "out": "names no files in '_data_files'",
    "none": "There is no folder",
  }.items():
    with pytest.raises(UserError, match=message):
      open_source(f"hf:{tmp_path}/{where}")


@pytest.fixture
def served(tmp_path, monkeypatch):
  monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
  monkeypatch.setattr(retries, "PAUSES", (0.0, 0.0, 0.01))
  data = tmp_path / "data"
  save_to_disk(data / "saved", [range(7), range(7, 12)])
  for part, numbers in enumerate((range(3), range(3, 5))):
    write_stream(data / "cached" / f"squad-train-0000{part}-of-00002.arrow", table(numbers))
  for name, numbers in {"small/part-0": range(3), "small/held": range(3, 5), "large/x": range(7)}.items():
    (data / "hub" / name).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table(numbers), data / "hub" / f"{name}.parquet")
  toys.write(data, {"hub/README.md": CARD, "rows.v1/train.csv": "text,label\na,0\nb,1\n", "a.txt": "a"})
  with serving(data) as server:
    server.data = data
    yield server


@pytest.mark.parametrize("where", ["saved", "cached", "hub?config=small", "hub?config=large", "rows.v1"])
def test_datasets_at_a_server_that_cuts_connections_are_those_on_disk(served, where):
  served.failing = lambda path, number: number % 3 == 0
  here, there = (open_source(f"hf:{place}/{where}") for place in (served.data, served.url))
  assert everything(there) == everything(here) != [] and there.class_names == here.class_names
  assert there.where(0).replace(served.url, str(served.data)) == here.where(0)
  assert everything(pickle.loads(pickle.dumps(there))) == everything(here)


def test_what_a_server_does_not_list_or_have_is_told(served):
  with pytest.raises(UserError, match="none cannot be listed: .* Name its files: parquet:http.*none/FILE.parquet"):
    open_source(f"hf:{served.url}/none")
  served.failing = lambda path, number: path.endswith("00001-of-00002.arrow")
  with pytest.raises(UserError, match="data-00001-of-00002.arrow cannot be copied to"):
    open_source(f"hf:{served.url}/saved")
