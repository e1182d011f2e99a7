import pytest

from zoo.data.sources.splits import by_hash, hash_order, take
from zoo.errors import UserError

NUMBERS = {"train": list(range(11)), "test": list(range(100, 107))}


def taken(split):
  return [number for part in take(split, NUMBERS.__getitem__, "numbers") for number in part]


@pytest.mark.parametrize(
  "split, expected",
  [
    ("train", [*range(11)]),
    ("train[:3]", [0, 1, 2]),
    ("train[3:5]", [3, 4]),
    ("train[-2:]", [9, 10]),
    ("train[:-9]", [0, 1]),
    ("train[:50%]", [0, 1, 2, 3, 4, 5]),
    ("train[90%:]", [10]),
    ("train[-10%:]", [10]),
    ("train[25%:75%]", [3, 4, 5, 6, 7]),
    ("train[:100%]", [*range(11)]),
    ("train[:2]+test[:2]", [0, 1, 100, 101]),
    (" train[:1] + test[-1:] ", [0, 106]),
  ],
)
def test_splits_are_cut_as_tfds_cuts_them(split, expected):
  assert taken(split) == expected


@pytest.mark.parametrize("percent", [9, 33, 50, 67, 90])
def test_what_is_before_and_after_a_percentage_is_the_whole(percent):
  before = taken(f"train[:{percent}%]")
  assert before + taken(f"train[{percent}%:]") == NUMBERS["train"]


@pytest.mark.parametrize("split", ["train[", "train[:3", "train[1:2:3]", "train[a:]", "", "train++test", "train[5]"])
def test_what_is_no_split_is_refused(split):
  with pytest.raises(UserError, match=r"numbers: split .* is not of the form train, train\[:90%\]"):
    taken(split)


def test_empty_and_impossible_parts_are_refused():
  with pytest.raises(UserError, match=r"numbers: split 'train\[3:3\]' has no examples\."):
    taken("train[3:3]")
  with pytest.raises(UserError, match="asks for 120%"):
    taken("train[:120%]")


def test_names_are_shuffled_the_same_way_everywhere():
  names = [f"{i:03}.txt" for i in range(100)]
  assert by_hash(names) == by_hash(reversed(names)) != names
  assert by_hash("abcde") == ["d", "a", "e", "b", "c"]  # Pinned: another order would mix up old splits.
  assert hash_order("a.jsonl", 3).tolist() == hash_order("a.jsonl", 5)[:3].tolist()
  assert hash_order("a.jsonl", 1)[0] != hash_order("b.jsonl", 1)[0]
  assert len(set(hash_order("a.jsonl", 10_000).tolist())) == 10_000
