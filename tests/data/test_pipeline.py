import re

import numpy as np
import pytest

from zoo.data.pipeline import Records, batches, eval_batches
from zoo.errors import UserError

STEPS = range(9)


class Numbers(Records):
  """Record i holds i, and in training also a random number."""

  def __init__(self, count, broken=()):
    self.count, self.broken, self.info = count, broken, {}

  def __len__(self):
    return self.count

  def example(self, index, rng=None):
    if index in self.broken:
      raise UserError(f"numbers, record {index} is broken.")
    return {"number": np.int32(index), "chance": np.float64(0 if rng is None else rng.random())}


def test_records_are_a_sequence_that_ends():
  assert [int(record["number"]) for record in Numbers(3)] == [0, 1, 2]
  assert Numbers(3)[-1]["number"] == 2
  with pytest.raises(IndexError, match="There are 3 records; index 3 is out of range."):
    Numbers(3)[3]


def test_a_batch_depends_on_seed_and_step_alone():
  first, again = batches(Numbers(23), 6, seed=3), batches(Numbers(23), 6, seed=3)
  for step in reversed(STEPS):
    assert_same(first[step], again[step])
  other = batches(Numbers(23), 6, seed=4)
  assert any((first[step]["number"] != other[step]["number"]).any() for step in STEPS)


def test_every_epoch_holds_every_record_once_in_another_order():
  stream = joined(batches(Numbers(23), 23, seed=0)[step] for step in range(3))["number"].reshape(3, 23)
  assert (np.sort(stream, axis=1) == np.arange(23)).all()
  assert len({tuple(epoch) for epoch in stream}) == 3


def test_batches_run_on_over_the_end_of_an_epoch():
  stream = joined(batches(Numbers(5), 3, seed=1)[step] for step in range(5))["number"]
  assert sorted(stream[:5]) == sorted(stream[5:10]) == sorted(stream[10:]) == [0, 1, 2, 3, 4]


def test_a_record_meets_other_chance_in_every_epoch():
  chance = joined(batches(Numbers(7), 7, seed=0)[step] for step in STEPS)["chance"]
  assert len(set(chance)) == 7 * len(STEPS)


def test_a_single_record_in_batches_of_one():
  stream = batches(Numbers(1), 1, seed=0)
  assert [stream[step]["number"].tolist() for step in (0, 10**9)] == [[0], [0]]
  assert next(stream.iterate(10**9))["chance"] == stream[10**9]["chance"]


def test_a_batch_may_be_larger_than_the_data():
  assert sorted(batches(Numbers(3), 6, seed=0)[0]["number"]) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("hosts", [1, 2, 3, 4])
def test_rows_of_all_hosts_in_order_are_the_global_batch(hosts):
  whole = batches(Numbers(23), 12, seed=5)
  parts = [batches(Numbers(23), 12, seed=5, process_index=host, process_count=hosts) for host in range(hosts)]
  for step in STEPS:
    assert_same(joined(part[step] for part in parts), whole[step])


@pytest.mark.parametrize("start", [0, 1, 5])
def test_iteration_may_start_at_any_step(start):
  stream = batches(Numbers(23), 6, seed=3)
  iterator = stream.iterate(start)
  for step in range(start, start + 4):
    assert_same(next(iterator), stream[step])


def test_without_shuffling_records_come_in_order():
  assert joined(batches(Numbers(5), 4, seed=0, shuffle=False)[step] for step in range(2))["number"].tolist() == [
    *range(5),
    *range(3),
  ]


@pytest.mark.parametrize("seed", [0, -1, 2**40])
def test_any_whole_number_is_a_seed(seed):
  assert len(batches(Numbers(5), 4, seed=seed)[0]["number"]) == 4


def test_a_broken_record_is_told_when_it_is_read_also_by_the_threads():
  stream = batches(Numbers(8, broken=[6]), 4, seed=0, shuffle=False)
  assert stream[0]["number"].tolist() == [0, 1, 2, 3]
  with pytest.raises(UserError, match="record 6 is broken"):
    stream[1]
  iterator = stream.iterate()
  next(iterator)
  with pytest.raises(UserError, match="record 6 is broken"):
    next(iterator)
  with pytest.raises(UserError, match="record 6 is broken"):
    list(eval_batches(Numbers(8, broken=[6]), 4))


@pytest.mark.parametrize("count, size", [(1, 4), (8, 4), (11, 4), (3, 1)])
def test_evaluation_sees_every_record_once(count, size):
  stream = eval_batches(Numbers(count), size)
  evaluated = list(stream)
  assert len(evaluated) == len(stream)
  assert all(len(batch["number"]) == size for batch in evaluated)
  everything = joined(evaluated)
  assert everything["number"][everything["weight"] > 0].tolist() == list(range(count))
  assert everything["weight"].sum() == count
  assert not everything["chance"].any()


@pytest.mark.parametrize("hosts", [1, 2, 3])
def test_hosts_share_the_rows_of_evaluation(hosts):
  whole = list(eval_batches(Numbers(10), 6))
  parts = [list(eval_batches(Numbers(10), 6, process_index=host, process_count=hosts)) for host in range(hosts)]
  for step, batch in enumerate(whole):
    assert_same(joined(part[step] for part in parts), batch)


@pytest.mark.parametrize("make", [lambda *a, **k: batches(*a, seed=0, **k), eval_batches])
def test_batches_that_cannot_be_are_refused(make):
  with pytest.raises(UserError, match=re.escape("batch_size 10 does not divide over 3 host(s)")):
    make(Numbers(5), 10, process_count=3)
  with pytest.raises(UserError, match="batch_size 0"):
    make(Numbers(5), 0)
  with pytest.raises(UserError, match="process_index is 2. It must be from 0 to 1"):
    make(Numbers(5), 4, process_index=2, process_count=2)
  with pytest.raises(UserError, match="hold no example"):
    make(Numbers(0), 4)


@pytest.mark.slow
def test_worker_processes_make_the_same_batches_and_report_broken_records():
  stream = batches(Numbers(23), 6, seed=3, workers=2)
  iterator = stream.iterate(5)
  for step in range(5, 10):
    assert_same(next(iterator), stream[step])
  with pytest.raises(UserError, match="record 6 is broken"):
    list(zip(range(9), batches(Numbers(8, broken=[6]), 4, seed=0, shuffle=False, workers=1).iterate()))


def joined(parts):
  parts = list(parts)
  return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def assert_same(first, second):
  assert first.keys() == second.keys()
  for key in first:
    np.testing.assert_array_equal(first[key], second[key])
