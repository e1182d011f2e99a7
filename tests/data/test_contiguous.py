import numpy as np
import pytest

from tests.data import toys
from zoo.data.contiguous import contiguous
from zoo.data.language import language
from zoo.data.pipeline import batches


@pytest.fixture
def options(tmp_path):
  texts = ["".join(np.random.default_rng(i).choice(list("abcde "), 37 + i)) for i in range(7)]
  toys.write_jsonl(tmp_path / "texts.jsonl", [{"text": text} for text in texts])
  return dict(source="jsonl:.", data_dir=str(tmp_path), tokenizer="bytes", max_length=12, cache=False)


@pytest.mark.parametrize("shuffle", [False, True])
def test_each_row_goes_on_where_it_ended(options, shuffle):
  records = contiguous(**options)
  loader = batches(records, 3, seed=5, shuffle=shuffle)
  ends = 0
  for step in range(2 * len(records)):
    before, batch = loader[step], loader[step + 1]
    assert batch["continues"].shape == (3,) and batch["continues"].dtype == bool
    went_on = batch["continues"]
    np.testing.assert_array_equal(batch["tokens"][went_on, 0], before["tokens"][went_on, -1])
    ends += (~went_on).sum()
  assert ends == 3 * 2  # Each row passed the end of the stream twice and continued at its beginning.


def test_an_epoch_has_each_chunk_once_in_each_row_and_every_host_its_rows(options):
  records, chunks = contiguous(**options), language(**options)
  loader = batches(records, 4, seed=1)
  rows = np.stack([loader[step]["tokens"] for step in range(len(records))], axis=1)
  everything = sorted(chunks[i]["tokens"].tolist() for i in range(len(chunks)))
  assert all(sorted(row.tolist()) == everything for row in rows)
  hosts = [batches(records, 4, seed=1, process_index=i, process_count=2) for i in range(2)]
  for step in (0, 9):
    parts = [host[step]["tokens"] for host in hosts]
    np.testing.assert_array_equal(np.concatenate(parts), loader[step]["tokens"])
  again = next(iter(batches(records, 4, seed=1).iterate(9)))
  np.testing.assert_array_equal(again["tokens"], loader[9]["tokens"])
  other = batches(records, 4, seed=2)[0]["tokens"]
  assert not np.array_equal(other, loader[0]["tokens"])
