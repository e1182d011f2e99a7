"""parquet:, and the order in which blocks are read."""

import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.tables import expected, table
from tests.data.toys import everything
from zoo.data.bad_records import BadRecord
from zoo.data.block_order import BlockOrder, LaneOrder, lanes_of
from zoo.data.labelled_texts import labelled_texts
from zoo.data.pipeline import batches
from zoo.data.sources import open_source, parquet
from zoo.errors import UserError


@pytest.fixture
def data(tmp_path):
  for name, numbers in ("a", range(11)), ("b", range(11, 29)):
    pq.write_table(table(numbers), tmp_path / f"{name}.parquet", row_group_size=5)
  return tmp_path


def test_rows_of_parquet_are_those_that_were_written(data):
  source = open_source(f"parquet:{data}")
  assert everything(source) == expected(range(29))
  assert source.class_names == {"label": ["no", "yes"], "tags": ["O", "B"]}
  assert source.where(12) == f"{data}/b.parquet row 1"
  assert np.unique(source.blocks, return_counts=True)[1].tolist() == [5, 5, 1, 5, 5, 5, 3]
  assert everything(pickle.loads(pickle.dumps(source))) == everything(source)
  assert open_source(f"parquet:{data}/*.parquet?columns=text,id")[3] == {"text": "é 3", "id": 3}


def test_translations_are_fields_by_their_languages(tmp_path):
  pq.write_table(pa.Table.from_pylist([{"translation": {"de": "Ja", "en": "Yes"}}]), tmp_path / "a.parquet")
  assert open_source(f"parquet:{tmp_path}")[0] == {"de": "Ja", "en": "Yes", "translation": {"de": "Ja", "en": "Yes"}}


def test_parts_are_fair_and_lie_in_the_order_of_the_files(data):
  parts = [
    [row["id"] for row in everything(open_source(f"parquet:{data}", split))] for split in ("train[:50%]", "train[50%:]")
  ]
  assert sorted(sum(parts, [])) == list(range(29))
  assert all(part == sorted(part) and min(part) < 11 < max(part) for part in parts)


def test_training_reads_each_row_group_once_an_epoch(data, monkeypatch):
  monkeypatch.setattr(parquet, "HELD", 1)  # One row group at a time.
  records = labelled_texts(f"parquet:{data}", tokenizer="bytes", max_length=5, cache=False)
  source = records.source
  assert source.window == 1
  read, group = [], source._group
  monkeypatch.setattr(source, "_group", lambda *key: read.append(key) or group(*key))
  order = records.order(7, True, 58)
  stream = [order[i] for i in range(58)]
  for index in stream:
    source[index]
  groups = [key for key, before in zip(read, [None, *read]) if key != before]
  assert len(groups) == 14 or len(groups) == 13  # 7 in each of two epochs; the first of the second may be the last.
  assert [sorted(part) for part in (stream[:29], stream[29:])] == [list(range(29))] * 2
  assert stream[:29] != stream[29:] and stream[:29] != sorted(stream[:29])
  assert len(source._tables) <= 2


def test_batches_are_the_same_on_any_number_of_hosts_and_after_a_resumption(data):
  records = labelled_texts(f"parquet:{data}", tokenizer="bytes", max_length=6)
  stream = batches(records, 4, seed=3)
  assert not np.array_equal(stream[0]["tokens"], batches(records, 4, seed=4)[0]["tokens"])
  halves = [batches(records, 4, seed=3, process_index=i, process_count=2) for i in range(2)]
  for step in (0, 9, 23):
    both = np.concatenate([half[step]["tokens"] for half in halves])
    np.testing.assert_array_equal(both, stream[step]["tokens"])
    np.testing.assert_array_equal(next(stream.iterate(step))["tokens"], stream[step]["tokens"])


def test_windows_hold_their_blocks_and_blocks_without_neighbours_are_shuffled():
  order = BlockOrder(np.repeat([5, 1, 9, 2], [3, 2, 4, 1]), 2, seed=1)
  epochs = [[order(10 * epoch + i) for i in range(10)] for epoch in range(3)]
  assert all(sorted(epoch) == list(range(10)) for epoch in epochs) and epochs[0] != epochs[1]
  block_of = lambda record: int(np.searchsorted([3, 5, 9, 10], record, side="right"))
  for epoch in epochs:
    blocks = list(map(block_of, epoch))
    first = next(i for i in range(1, 11) if len({*blocks[:i]}) == 2 and not {*blocks[:i]} & {*blocks[i:]})
    assert len({*blocks[first:]}) == 2


def test_lanes_read_blocks_of_their_own_and_batches_do_not_depend_on_hosts():
  blocks = np.random.default_rng(0).permutation(np.repeat(np.arange(16), 13))
  order = LaneOrder(BlockOrder(blocks, 1, seed=3, kept=32), lanes_of(24, 16, 64), 24)
  assert order.lanes == 8
  steps = 26 * 8 // 24  # Full batches of an epoch.
  rows = np.array([order(position) for position in range(24 * steps)]).reshape(steps, 24)
  assert len(np.unique(rows)) == rows.size
  for lane in range(8):
    read = blocks[rows[:, 3 * lane : 3 * lane + 3]]
    assert len(np.unique(read)) <= 3  # A part of 26 records in blocks of 13.
  hosts = [set(blocks[rows[:, half * 12 : half * 12 + 12]].ravel()) for half in range(2)]
  assert len(hosts[0] & hosts[1]) <= 1
  later = {order(24 * steps * 5 + position) for position in range(24)}
  assert later != set(rows[0].tolist())
  assert [lanes_of(*sizes) for sizes in ((4096, 1000, 64), (12, 1000, 64), (7, 9, 9), (64, 5, 64), (64, 9, 2))] == [
    64,
    4,
    1,
    4,
    2,
  ]


def test_a_time_finer_than_pythons_is_a_text(tmp_path):
  pq.write_table(pa.table({"text": ["a"], "at": pa.array([1], pa.timestamp("ns"))}), tmp_path / "a.parquet")
  assert everything(open_source(f"parquet:{tmp_path}")) == [{"text": "a", "at": "1970-01-01 00:00:00.000000001"}]


def test_parquet_that_cannot_be_read_is_named(data):
  whole = (data / "a.parquet").read_bytes()
  (data / "cut.parquet").write_bytes(whole[:-20])
  pq.write_table(pa.table({"text": ["x"]}), data / "other.parquet")
  pq.write_table(pa.table({"image": [{"bytes": None, "path": "0.png"}]}), data / "linked.parquet")
  pq.write_table(pa.table({"text": [None]}, pa.schema({"text": pa.string()})), data / "null.parquet")
  for where, message in {
    "cut.parquet": "cut.parquet is not a complete Parquet file",
    "{a,other}.parquet": r"a.parquet has a column '.*' that .*other.parquet has not",
    "a.parquet?columns=txt": r"a.parquet has no column 'txt'. Did you mean 'text'\? It has: id, text",
    "none.parquet": "There is no folder or file",
  }.items():
    with pytest.raises(UserError, match=message):
      open_source(f"parquet:{data}/{where}")
  with pytest.raises(BadRecord, match="linked.parquet row 0: column 'image' names '0.png' and does not hold its bytes"):
    open_source(f"parquet:{data}/linked.parquet")[0]
  with pytest.raises(BadRecord, match="null.parquet row 0: text is None, not a str"):
    labelled_texts(f"parquet:{data}/null.parquet", label_field="text")[0]
  damaged = bytearray(whole)
  damaged[4:200] = bytes(196)
  (data / "a.parquet").write_bytes(damaged)
  with pytest.raises(BadRecord, match="a.parquet: row group 0 cannot be read"):
    open_source(f"parquet:{data}/a.parquet")[0]
