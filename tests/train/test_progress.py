import io

import jax.numpy as jnp
import pytest

from zoo.train import progress
from zoo.train.progress import Progress, number, summary


class Terminal(io.StringIO):
  def isatty(self):
    return True


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
  assert "25% waiting for data" in summary({"seconds_per_step": 4.0, "seconds_data": 1.0})
  assert "waiting" not in summary({"seconds_per_step": 4.0, "seconds_data": 0.01})
