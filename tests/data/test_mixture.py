import re

import numpy as np
import pytest

from tests.data.test_pipeline import Numbers
from tests.data.toys import write_jsonl
from zoo.config import registry
from zoo.data.mixture import mixture
from zoo.data.pipeline import batches, eval_batches
from zoo.errors import UserError


class From(Numbers):
  """Numbers that start at `first`."""

  def __init__(self, count, first):
    super().__init__(count)
    self.first = first

  def example(self, index, rng=None):
    example = super().example(index, rng)
    return {**example, "number": example["number"] + np.int32(self.first)}


def numbers(**options):
  return mixture({"a": From(23, 0), "b": From(7, 100)}, {"a": 0.7, "b": 0.3}, **options)


def test_every_batch_has_its_share_of_each_member():
  stream = batches(numbers(), 10, seed=3)
  for step in (0, 1, 17, 10**9):
    assert (stream[step]["number"] >= 100).sum() == 3


def test_members_go_through_epochs_of_their_own():
  mixed = batches(numbers(), 10, seed=3)
  stream = np.concatenate([mixed[step]["number"] for step in range(23)])
  small, large = stream[stream >= 100][:63].reshape(9, 7), stream[stream < 100][:161].reshape(7, 23)
  assert (np.sort(small, 1) == np.arange(100, 107)).all() and (np.sort(large, 1) == np.arange(23)).all()
  assert len({tuple(epoch) for epoch in small}) == 9


def test_a_batch_follows_from_seed_and_step_alone_and_hosts_hold_its_parts():
  stream, again = batches(numbers(), 6, seed=3), batches(numbers(), 6, seed=3)
  hosts = [batches(numbers(), 6, seed=3, process_index=n, process_count=2) for n in range(2)]
  for step in (11, 0, 4):
    for name, array in stream[step].items():
      np.testing.assert_array_equal(again[step][name], array)
      np.testing.assert_array_equal(np.concatenate([host[step][name] for host in hosts]), array)
  np.testing.assert_array_equal(next(stream.iterate(5))["chance"], stream[5]["chance"])
  other = batches(numbers(), 6, seed=4)
  assert any((stream[step]["number"] != other[step]["number"]).any() for step in range(3))


def test_an_example_meets_other_chance_each_time():
  stream = batches(numbers(), 10, seed=0)
  chance = np.concatenate([stream[step]["chance"] for step in range(9)])
  assert len(set(chance)) == 90


def test_evaluation_sees_every_example_of_every_member_once():
  rows = [n for batch in eval_batches(numbers(), 8) for n, w in zip(batch["number"], batch["weight"]) if w]
  assert rows == [*range(23), *range(100, 107)]


@pytest.fixture
def texts(tmp_path, monkeypatch):
  monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
  (tmp_path / "data").mkdir()
  rows = [{"source": "s" * (n % 9 + 1), "target": "t" * (n % 5 + 1)} for n in range(60)]
  write_jsonl(tmp_path / "data" / "a.jsonl", rows)
  common = {"source": f"jsonl:{tmp_path / 'data'}", "tokenizer": "bytes"}
  pairs = {"name": "text_pairs", "prefix": "t: ", "max_length": 14, "target_length": 6, **common}
  spans = {"name": "span_corruption", "max_length": 20, "text_field": "source", **common}
  return pairs, spans


def test_tasks_of_unlike_lengths_share_batches_that_are_padded_to_what_their_rows_need(texts):
  pairs, spans = texts
  members = {"rewrite": pairs, "restore": spans}
  records = registry.build("data", {"name": "mixture", "members": members, "rates": {"rewrite": 0.75, "restore": 0.25}})
  assert records.info["members"] == {"rewrite": 60, "restore": len(records) - 60}
  assert (
    records.info["vocab_size"]
    == registry.build("data", spans).info["vocab_size"]
    > registry.build("data", pairs).info["vocab_size"]
  )
  assert records.info["max_length"] == 20
  indices = set()
  for batch in (batches(records, 8, seed=0)[step] for step in range(16)):
    needs = batch["valid"].sum(1).max(), batch["target_valid"].sum(1).max()
    shape = next(size for size in [(5, 2), (10, 3), (15, 5), (20, 6)] if size[0] >= needs[0] and size[1] >= needs[1])
    assert (batch["tokens"].shape[1], batch["target_tokens"].shape[1]) == shape
    assert (batch["tokens"][~batch["valid"]] == records.pad).all()
    indices.add(batch["tokens"].shape[1])
  assert len(indices) > 1
  whole, alone = records[3], registry.build("data", pairs)[3]
  np.testing.assert_array_equal(whole["tokens"][:14], alone["tokens"])
  assert not whole["valid"][14:].any() and (whole["tokens"][14:] == records.pad).all()


MISTAKES = {
  "unknown": ({"a": 0.5, "c": 0.5}, "mixture.rates names 'c'. The members: a, b"),
  "missing": ({"a": 1.0}, "mixture.rates has no 'b'. It needs one for each member: a, b"),
  "negative": ({"a": 1.5, "b": -0.5}, "mixture.rates.a is 1.5. It must be above 0 and at most 1"),
  "sum": ({"a": 0.5, "b": 0.4}, "mixture.rates are a 0.5, b 0.4, 0.9 in all. They must add up to 1"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_rates_that_cannot_be_are_refused(mistake):
  rates, message = MISTAKES[mistake]
  with pytest.raises(UserError, match=re.escape(message)):
    mixture({"a": From(23, 0), "b": From(7, 100)}, rates)


def test_members_that_do_not_go_together_are_refused(texts):
  rates = {"a": 0.5, "b": 0.5}
  pairs, spans = texts
  with pytest.raises(UserError, match="member a gives number, chance; b gives tokens, .* All members must agree"):
    mixture({"a": From(3, 0), "b": pairs}, rates)
  with pytest.raises(UserError, match="member a has the tokenizer bytes, b has sotu. All members must agree"):
    mixture({"a": pairs, "b": {**spans, "tokenizer": "sotu"}}, rates)
  with pytest.raises(UserError, match="mixture.members.b has no examples"):
    mixture({"a": pairs, "b": From(0, 0)}, rates)
