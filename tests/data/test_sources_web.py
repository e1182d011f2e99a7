"""Data on a web server that fails now and then, and their local copies."""

import json
import pickle
import re
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data import toys
from tests.data.toys import everything
from tests.data.web_server import serving
from zoo.data.image_text import image_text
from zoo.data.pipeline import batches
from zoo.data.sources import copies, files, open_source, retries
from zoo.data.sources.webdataset import WebDataset
from zoo.errors import UserError

SHARDS, EXAMPLES = 8, 6


@pytest.fixture
def server(tmp_path, monkeypatch):
  monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
  monkeypatch.setattr(retries, "PAUSES", (0.0, 0.0, 0.01))
  data = tmp_path / "data"
  data.mkdir()
  for shard in range(SHARDS):
    numbers = range(shard * EXAMPLES, (shard + 1) * EXAMPLES)
    members = {
      f"{i:03}.{end}": toys.png((i, 2 * i, 0)) if end == "png" else f"n {i}" for i in numbers for end in ("png", "txt")
    }
    toys.write_tar(data / f"{shard:02}.tar", members)
  toys.write_csv(data / "rows.csv", [{"text": f"text {i}", "label": i} for i in range(7)])
  toys.write_jsonl(data / "rows.jsonl", [{"text": f"text {i}", "label": i} for i in range(7)])
  toys.write(data, {"a.en": "a\nb\n", "a.de": "A\nB\n", "notes.txt": "some text"})
  pq.write_table(pa.table({"text": [f"text {i}" for i in range(17)]}), data / "rows.parquet", row_group_size=5)
  with serving(data) as server:
    server.data = data
    yield server


@pytest.mark.parametrize(
  "where",
  [
    "csv:{}/rows.csv",
    "jsonl:{}/rows.jsonl",
    "lines:{}/a.en,{}/a.de",
    "parquet:{}/rows.parquet",
    "webdataset:{}/{{00..07}}.tar",
  ],
)
@pytest.mark.parametrize("cut", [False, True])
def test_data_are_the_same_at_a_server_even_if_it_cuts_connections(server, where, cut):
  server.failing = lambda path, number: cut and number % 3 == 0
  here, there = (open_source(where.format(*[place] * 2)) for place in (server.data, server.url))
  assert everything(there) == everything(here) != []
  assert there.where(0).replace(server.url, str(server.data)) == here.where(0)
  assert everything(pickle.loads(pickle.dumps(there))) == everything(here)


def test_files_of_a_server_that_lists_them_are_matched(server):
  assert len(open_source(f"webdataset:{server.url}/*.tar")) == SHARDS * EXAMPLES
  assert open_source(f"text:{server.url}/notes.txt")[0]["text"] == "some text"


def test_what_is_not_there_or_stays_broken_is_told(server, capsys):
  with pytest.raises(UserError, match=r"names 2 files, of which 1 are missing: 09.tar"):
    open_source(f"webdataset:{server.url}/{{07,09}}.tar")
  with pytest.raises(UserError, match="no.csv"):
    open_source(f"csv:{server.url}/no.csv")
  server.failing = lambda path, number: path.endswith("rows.csv")
  with pytest.raises(UserError, match=r"rows.csv (cannot be read|cannot be copied to .*): "):
    open_source(f"csv:{server.url}/rows.csv")
  assert capsys.readouterr().err.count("rows.csv: ") == len(retries.PAUSES)  # Each retry is reported.


def test_a_copy_that_was_cut_off_goes_on_where_it_was(server, monkeypatch):
  monkeypatch.setattr(copies, "PART", 1000)
  shard = copies.remote(files.at(f"{server.url}/00.tar"))
  server.failing = lambda path, number: number > 4
  with pytest.raises(UserError, match="00.tar cannot be copied to"):
    copies.fetched(shard)
  assert copies.ready(shard) is None
  done = shard.copy.with_name("00.tar.part").stat().st_size
  assert 0 < done < shard.size
  server.failing, server.sent = (lambda path, number: False), 0
  assert copies.fetched(shard).read_bytes() == (server.data / "00.tar").read_bytes()
  assert server.sent == shard.size - done
  assert copies.fetched(shard) == copies.ready(shard) and server.sent == shard.size - done
  time.sleep(0.01)
  toys.write(server.data, {"00.tar": b"another version"})
  assert copies.fetched(copies.remote(shard.path)).read_bytes() == b"another version"


def test_the_copies_that_were_used_longest_ago_make_room(server, monkeypatch):
  shards = [copies.remote(files.at(f"{server.url}/{i:02}.tar")) for i in range(4)]
  monkeypatch.setenv("ZOO_CACHE_LIMIT", str(2.5 * shards[0].size / 1e9))
  for i in (0, 1):
    copies.fetched(shards[i])
    time.sleep(0.02)
  copies.fetched(shards[0])
  time.sleep(0.02)
  copies.fetched(shards[2])
  assert [copies.ready(shard) is not None for shard in shards] == [True, False, True, False]
  monkeypatch.setenv("ZOO_CACHE_LIMIT", "much")
  with pytest.raises(UserError, match="ZOO_CACHE_LIMIT is 'much'. It must be a number of GB"):
    copies.limit()


def test_training_reads_shards_ahead_each_host_its_own_and_survives_cuts(server, monkeypatch):
  source = f"webdataset:{server.url}/{{00..07}}.tar"
  monkeypatch.setenv("ZOO_CACHE_LIMIT", "0")  # Opening copies nothing.
  hosts = []
  for host in range(2):
    records = image_text(source, tokenizer="bytes", max_length=8, image_size=4)
    assert records.source.lanes >= 8 and records.source.reads_ahead
    hosts.append(batches(records, 8, seed=5, process_index=host, process_count=2))
  whole = batches(image_text(source, tokenizer="bytes", max_length=8, image_size=4), 8, seed=5)
  epoch = [whole[step] for step in range(6)]
  assert len({tuple(row) for batch in epoch for row in batch["tokens"]}) == SHARDS * EXAMPLES  # Each record once.
  monkeypatch.setenv("ZOO_CACHE_LIMIT", "1")
  fetch, fetched = WebDataset.fetch, []
  monkeypatch.setattr(WebDataset, "fetch", lambda self, block: fetched.append(block) or fetch(self, block))
  server.failing = lambda path, number: number % 4 == 0
  read = []
  for host, stream in enumerate(hosts):
    iterator = stream.iterate(2)  # After an interruption.
    for step in range(2, 6):
      batch = next(iterator)
      for name in batch:
        np.testing.assert_array_equal(batch[name], epoch[step][name][4 * host : 4 * host + 4])
    iterator.close()
    read.append(set(fetched))
    fetched.clear()
  assert read[0] and read[1]


@pytest.mark.parametrize("stats", [False, True])
def test_where_counts_are_known_a_host_reads_no_shards_but_its_own(server, monkeypatch, tmp_path, stats):
  names = [f"{shard:02}.tar" for shard in range(SHARDS)]
  if stats:
    for name in names:
      toys.write(server.data, {name.replace(".tar", "_stats.json"): json.dumps({"successes": EXAMPLES})})
  else:
    toys.write(server.data, {"sizes.json": json.dumps(dict.fromkeys(names, EXAMPLES))})
  source = f"webdataset:{server.url}/{{00..07}}.tar"
  read = []
  for host in range(2):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / f"cache{host}"))
    records = image_text(source, tokenizer="bytes", max_length=8, image_size=4)
    stream = batches(records, 8, seed=5, process_index=host, process_count=2)
    for step in range(5):  # 6 in an epoch; read-ahead would take those of the next.
      assert stream[step]["tokens"].shape == (4, 8)
    read.append({path for method, path, _ in server.requests if method == "GET" and re.match(r"/\d+\.tar", path)})
    server.requests.clear()
  assert all(
    len(shards) <= 5 for shards in read
  )  # 4, and the shard of the first record, which is inspected on opening.
  assert len(read[0] | read[1]) == SHARDS


def test_counts_that_are_wrong_are_told(server):
  toys.write(server.data, {"sizes.json": json.dumps({f"{shard:02}.tar": EXAMPLES + 1 for shard in range(SHARDS)})})
  source = open_source(f"webdataset:{server.url}/{{00..07}}.tar")
  assert len(source) == SHARDS * (EXAMPLES + 1)
  with pytest.raises(UserError, match=r"tar holds 6 examples, and 7 by the sizes.json or stats beside it"):
    source[0]
