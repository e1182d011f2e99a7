import numpy as np
import pytest

from zoo.perf import speed as measured
from zoo.perf.speed import Speed, amounts


@pytest.fixture
def clock(monkeypatch):
  """A list with the time in it."""
  now = [100.0]
  monkeypatch.setattr(measured.time, "perf_counter", lambda: now[0])
  return now


def test_speed_counts_steps_examples_tokens_and_utilisation(clock):
  speed = Speed(10, peak=24e9)
  for _ in range(6):
    speed.add({"examples": 8, "tokens": 40}, flops=6e9)
  clock[0] += 3
  assert speed.measure(16) == {
    "seconds_per_step": 0.5, "examples_per_second": 16.0, "tokens_per_second": 80.0, "mfu": 0.5
  }  # fmt: skip
  clock[0] += 4
  assert speed.measure(20)["seconds_per_step"] == 1.0


def test_batches_of_unlike_lengths_count_as_what_they_hold(clock):
  speed = Speed(0, peak=10.0)
  for tokens, flops in ((100, 10), (20, 2), (60, 8)):
    speed.add({"tokens": tokens}, flops=flops)
  clock[0] += 4
  assert speed.measure(3) == {"seconds_per_step": 4 / 3, "tokens_per_second": 45.0, "mfu": 0.5}
  speed.add({"tokens": 7})
  clock[0] += 1
  assert speed.measure(4) == {"seconds_per_step": 1.0, "tokens_per_second": 7.0}


def test_a_batch_counts_by_its_real_tokens_on_both_sides_or_by_its_images():
  valid = np.arange(5)[None] < np.array([[3], [5], [0]])
  texts = {"tokens": np.zeros((3, 5), int), "valid": valid}
  assert amounts(texts) == {"tokens": 8}
  assert amounts({"tokens": texts["tokens"]}) == {"tokens": 15}
  pairs = texts | {"target_tokens": np.zeros((3, 4), int), "target_valid": np.ones((3, 4), bool)}
  assert amounts(pairs) == {"tokens": 20} and amounts(pairs, hosts=2) == {"tokens": 40}
  assert amounts(texts | {"image": np.zeros((3, 2, 2, 3))}, hosts=4) == {"examples": 12}


def test_what_is_paused_does_not_count(clock):
  speed = Speed(0)
  clock[0] += 1
  with speed.paused():
    clock[0] += 50
  clock[0] += 1
  assert speed.measure(2) == {"seconds_per_step": 1.0}


@pytest.mark.parametrize("peak, flops", [(None, 1e9), (1e12, 0), (None, 0)])
def test_no_utilisation_where_the_peak_or_the_work_is_unknown(clock, peak, flops):
  speed = Speed(0, peak=peak)
  speed.add({}, flops=flops)
  clock[0] += 1
  assert "mfu" not in speed.measure(1)


def test_a_step_is_split_into_what_it_waits_for(clock):
  speed = Speed(0)
  for _ in range(2):
    with speed.timed("data"):
      clock[0] += 1
    with speed.timed("device"):
      clock[0] += 3
    speed.add({})
  assert speed.measure(2) == {"seconds_per_step": 4.0, "seconds_data": 1.0, "seconds_device": 3.0}


def test_no_speed_without_a_step(clock):
  speed = Speed(5)
  speed.add({"examples": 8})
  clock[0] += 1
  assert speed.measure(5) == {}
