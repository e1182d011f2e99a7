import numpy as np
import pytest

from tests.data.toys import write_jsonl
from zoo.data.padding import WINDOW
from zoo.data.pipeline import batches, eval_batches
from zoo.data.text_pairs import text_pairs
from zoo.data.tokenizers import tokenizer
from zoo.errors import UserError

BYTES = tokenizer("bytes")
KEYS = {"tokens", "valid", "target_tokens", "target_valid"}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
  monkeypatch.setenv("ZOO_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def folder(tmp_path):
  """Record n has a source of n % 11 + 1 bytes, and a target of n % 5 + 1."""
  write_jsonl(tmp_path / "a.jsonl", [{"source": "s" * (n % 11 + 1), "target": "t" * (n % 5 + 1)} for n in range(97)])
  return str(tmp_path)


def opened(folder, **options):
  sizes = {"tokenizer": "bytes", "max_length": 12, "target_length": 6}
  return text_pairs(f"jsonl:{folder}", **{**sizes, **options})


def text(tokens, valid):
  assert tokens[valid][-1] == BYTES.eos
  return BYTES.decode(tokens[valid][:-1])


def test_both_texts_end_and_are_padded(folder):
  records = opened(folder)
  for index in (0, 50, 96):
    example, (source, target) = records[index], records.texts(index)
    assert set(example) == KEYS and example["tokens"].shape == (12,) and example["target_tokens"].shape == (6,)
    assert text(example["tokens"], example["valid"]) == source
    assert text(example["target_tokens"], example["target_valid"]) == target
    assert (example["tokens"][~example["valid"]] == BYTES.pad).all()
  assert records.info["vocab_size"] == BYTES.vocab_size


def test_what_is_too_long_is_cut_and_still_ends(folder):
  records = opened(folder, max_length=4, target_length=3)
  for index in range(len(records)):
    example, (source, target) = records[index], records.texts(index)
    assert text(example["tokens"], example["valid"]) == source[:3]
    assert text(example["target_tokens"], example["target_valid"]) == target[:2]


def test_a_prefix_stands_before_every_source_and_before_no_target(folder):
  records, plain = opened(folder, prefix="to t: ", max_length=30), opened(folder, max_length=30)
  for index in (0, 50):
    source, target = plain.texts(index)
    assert text(records[index]["tokens"], records[index]["valid"]) == f"to t: {source}"
    assert records.texts(index) == (source, target)
    np.testing.assert_array_equal(records[index]["target_tokens"], plain[index]["target_tokens"])


def first_batches(folder, steps=2 * WINDOW, **options):
  settings = {"seed": 3, **options}
  return [batches(opened(folder), 8, **settings)[step] for step in range(steps)]


def test_a_batch_is_padded_to_the_smallest_bucket_that_holds_it(folder):
  allowed = [(3, 2), (6, 3), (9, 5), (12, 6)]
  shapes = []
  for batch in first_batches(folder):
    shape = batch["tokens"].shape[1], batch["target_tokens"].shape[1]
    needs = batch["valid"].sum(1).max(), batch["target_valid"].sum(1).max()
    assert shape == next(size for size in allowed if size[0] >= needs[0] and size[1] >= needs[1])
    assert batch["valid"].shape == batch["tokens"].shape
    shapes.append(shape)
  assert len(set(shapes)) > 2  # Rows of one length are together: else every batch would hold a long one.


def test_one_bucket_makes_all_batches_of_full_length(folder):
  first_batches = batches(opened(folder, buckets=1), 8, seed=0)
  assert {first_batches[step]["tokens"].shape for step in range(9)} == {(8, 12)}


def rows(batch):
  """Each row's tokens without padding."""
  return [tuple(tokens[valid].tolist()) for tokens, valid in zip(batch["tokens"], batch["valid"])]


def test_a_batch_follows_from_seed_and_step_alone_and_hosts_hold_its_parts(folder):
  whole = first_batches(folder)
  again = batches(opened(folder), 8, seed=3)
  for step in reversed(range(len(whole))):
    assert {name: array.tolist() for name, array in again[step].items()} == {
      n: a.tolist() for n, a in whole[step].items()
    }
  for count in (2, 4):
    hosts = [first_batches(folder, process_index=index, process_count=count) for index in range(count)]
    for step, batch in enumerate(whole):
      for name, array in batch.items():
        np.testing.assert_array_equal(np.concatenate([host[step][name] for host in hosts]), array)
  assert any(rows(batch) != rows(other) for batch, other in zip(whole, first_batches(folder, seed=4)))


def test_iterating_gives_the_same_batches_from_any_step_on(folder):
  whole = batches(opened(folder), 8, seed=3)
  for step, batch in zip(range(5, 9), whole.iterate(5), strict=False):
    np.testing.assert_array_equal(batch["tokens"], whole[step]["tokens"])


def test_sorting_by_length_loses_and_doubles_no_row(folder):
  """A window holds the rows that it would hold unsorted, in other batches."""
  sorted_rows = [row for batch in first_batches(folder, WINDOW) for row in rows(batch)]
  unsorted = batches(opened(folder, buckets=1), 8, seed=3)
  assert sorted(sorted_rows) == sorted(row for step in range(WINDOW) for row in rows(unsorted[step]))


def test_without_shuffling_records_stay_in_their_order(folder):
  records = opened(folder)
  texts = [row for batch in first_batches(folder, 3, shuffle=False) for row in rows(batch)]
  assert texts == [tuple(records[n]["tokens"][records[n]["valid"]].tolist()) for n in range(24)]


def test_evaluation_sees_every_pair_once_in_order(folder):
  records = opened(folder)
  texts = [row for batch in eval_batches(records, 8) for row, weight in zip(rows(batch), batch["weight"]) if weight]
  assert texts == [tuple(records[n]["tokens"][records[n]["valid"]].tolist()) for n in range(97)]
  halves = [list(eval_batches(records, 8, process_index=n, process_count=2)) for n in range(2)]
  assert [[b["tokens"].shape[1] for b in half] for half in halves][0] == [b["tokens"].shape[1] for b in halves[1]]


MISTAKES = {
  "field": ({"target_field": "goal"}, "has no field 'goal'"),
  "length": ({"target_length": 1}, "max_length is 12, target_length 1. Both must be at least 2"),
  "buckets": ({"buckets": 0}, r"buckets is 0. It must be 1 \(all batches of full length\) or more"),
  "tokenizer": ({"tokenizer": "nltk"}, "There is no tokenizer 'nltk'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_in_one_line(mistake, folder):
  options, message = MISTAKES[mistake]
  with pytest.raises(UserError, match=message):
    opened(folder, **options)
