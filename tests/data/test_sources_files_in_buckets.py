"""Data in a bucket, simulated by fsspec's in-memory file system."""

import pickle

import pyarrow.parquet as pq
import pytest

from tests.data import toys
from tests.data.tables import save_to_disk, table
from tests.data.test_sources_files import everything, texts
from tests.test_storage import folder as bucket  # noqa: F401 - A fixture.
from zoo.data.sources import open_source
from zoo.errors import UserError
from zoo.storage import as_path

FILES = {
  "texts/a.txt": b"a",
  "texts/in/b.md": b"b",
  "texts/.hidden.txt": b"no",
  "lines/1.jsonl": b'\n{"text": "c"}\n \r\n{"text": "d"}',
  "lines/2.jsonl": b'{"text": "e"}\n',
  "classes/train/red/0.png": toys.png("red"),
  "classes/val/blue/0.png": toys.png("blue"),
  "pairs/0.png": toys.png("red"),
  "pairs/metadata.jsonl": b'{"file_name": "0.png", "text": "f"}\n',
  "beside/0.png": toys.png("red"),
  "beside/0.txt": b"g",
}


@pytest.fixture
def data(bucket, tmp_path, monkeypatch):  # noqa: F811
  monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
  toys.write(tmp_path, {f"data/{name}": content for name, content in FILES.items()})
  for shard in ("00", "01"):
    toys.write_tar(tmp_path / "data" / f"{shard}.tar", {f"{shard}.png": toys.png("red"), f"{shard}.txt": f"h{shard}"})
  save_to_disk(tmp_path / "data/saved", [range(5), range(5, 7)])
  (tmp_path / "data/hub").mkdir()
  pq.write_table(table(range(5)), tmp_path / "data/hub/train-0.parquet")
  for path in (tmp_path / "data").rglob("*"):
    if path.is_file():
      copy = as_path(f"gs://bucket/{path.relative_to(tmp_path)}")
      copy.parent.mkdir(parents=True, exist_ok=True)
      copy.write_bytes(path.read_bytes())
  return tmp_path / "data", "gs://bucket/data"


@pytest.mark.parametrize(
  "where",
  [
    "text:{}/texts",
    "text:{}/texts/*/*.md",
    "text:{}/texts/a.txt",
    "jsonl:{}/lines",
    "jsonl:{}/lines/{{1,2}}.jsonl",
    "images:{}/classes",
    "images:{}/pairs",
    "images:{}/beside",
    "hf:{}/saved",
    "hf:{}/hub",
    "webdataset:{}/*.tar",
    "webdataset:{}/{{00..01}}.tar",
  ],
)
def test_data_are_the_same_in_a_bucket(data, where):
  here, there = (open_source(where.format(folder), "train") for folder in data)
  name = lambda record: {key: value for key, value in record.items() if key != "path"}
  assert list(map(name, everything(there))) == list(map(name, everything(here))) != []
  assert there.where(0).replace("gs://bucket", "") in here.where(0)
  again = open_source(where.format(data[1]), "train")
  assert again.fingerprint == there.fingerprint and everything(again) == everything(there)
  assert everything(pickle.loads(pickle.dumps(there))) == everything(there)


def test_splits_and_what_is_missing_are_told_of_a_bucket_too(data):
  assert len(open_source(f"images:{data[1]}/classes", "validation")) == 1
  with pytest.raises(UserError, match="There is no folder or file gs://bucket/data/none"):
    open_source(f"text:{data[1]}/none")
  source = open_source(f"text:{data[1]}/texts/a.txt")
  as_path(f"{data[1]}/texts/a.txt").unlink()
  with pytest.raises(UserError, match="gs://bucket/data/texts/a.txt cannot be read"):
    texts(source)
  with pytest.raises(UserError, match="ftp://x/a.txt: there are folders here and at gs://, s3://, az://"):
    open_source("text:ftp://x/a.txt")
