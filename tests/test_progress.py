import io

import jax.numpy as jnp
import numpy as np
import pytest

from zoo import progress
from zoo.progress import Progress, Speed, amounts, number, summary


class Terminal(io.StringIO):
  def isatty(self):
    return True


@pytest.fixture
def clock(monkeypatch):
  """A list with the time in it."""
  now = [100.0]
  monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
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
  assert "25% waiting for data" in summary({"seconds_per_step": 4.0, "seconds_data": 1.0})
  assert "waiting" not in summary({"seconds_per_step": 4.0, "seconds_data": 0.01})


def test_no_speed_without_a_step(clock):
  speed = Speed(5)
  speed.add({"examples": 8})
  clock[0] += 1
  assert speed.measure(5) == {}


def test_elsewhere_than_on_a_terminal_a_line_is_written_at_each_interval():
  stream = io.StringIO()
  shown = Progress(724, stream=stream)
  shown.advance(49)
  shown.show(50, {"loss": jnp.float32(3.21435), "learning_rate": 5e-4, "grad_norm": 2.0, "seconds_per_step": 0.5,
                  "examples_per_second": 12345.6, "mfu": 0.123})  # fmt: skip
  shown.note("evaluated")
  shown.show(724, {"loss": float("nan"), "seconds_per_step": 0.5})
  shown.close()
  assert stream.getvalue().splitlines() == [
    "step  50/724  loss 3.214  learning_rate 5.00e-04  12.3k examples/s  12.3% of peak  05:37 left",
    "evaluated",
    "step 724/724  loss nan",
  ]


def test_a_terminal_gets_a_bar_with_loss_learning_rate_speed_and_time_left():
  stream = Terminal()
  shown = Progress(100, step=20, stream=stream)
  shown.advance(39)
  shown.show(40, {"loss": 0.5, "learning_rate": 1e-3, "examples_per_second": 523.0, "mfu": 0.4})
  shown.note("a line above the bar")
  shown.close()
  last = stream.getvalue().replace("\r", "\n").strip().splitlines()[-1]
  assert "40%" in last and "40/100" in last and " left]" in last
  assert "loss 0.5000  learning_rate 0.001000  523 examples/s  40.0% of peak" in last
  assert "a line above the bar\n" in stream.getvalue()


def test_only_the_first_process_shows_anything(monkeypatch):
  monkeypatch.setattr(progress.jax, "process_index", lambda: 1)
  for stream in (io.StringIO(), Terminal()):
    shown = Progress(10, stream=stream)
    shown.advance(1)
    shown.show(2, {"loss": 1.0})
    shown.note("hello")
    shown.close()
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
  "value, text",
  [
    (0, "0.000"),
    (3.21435, "3.214"),
    (-0.0532, "-0.05320"),
    (1e-5, "1.00e-05"),
    (12345.6, "12346"),
    (1.3e7, "1.30e+07"),
    (float("nan"), "nan"),
    (float("-inf"), "-inf"),
  ],
)
def test_numbers_have_four_digits(value, text):
  assert number(value) == text


def test_a_summary_shows_only_what_is_there():
  assert summary({"accuracy": 0.5}) == ""
  assert summary({"tokens_per_second": 4.5e6, "loss": 1.0}) == "loss 1.000  4.50M tokens/s"
