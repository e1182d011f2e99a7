"""Progress display: a bar on a terminal, one line per interval elsewhere."""

import math
import sys
from collections.abc import Mapping
from typing import Any, TextIO

import jax
from tqdm import tqdm


class Progress:
  """A tqdm bar if `stream` is a terminal, else a line for each `show`. Only the first process shows anything.

  Args:
    total: steps of the whole run.
    step: steps done so far.
    stream: output; by default stderr if it is a terminal, else stdout.
  """

  def __init__(self, total: int, *, step: int = 0, stream: TextIO | None = None):
    self.total = total
    self._first = jax.process_index() == 0
    self._stream = stream or (sys.stderr if sys.stderr.isatty() else sys.stdout)
    self._bar = None
    if self._first and self._stream.isatty():
      layout = "{percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt} [{elapsed}, {remaining} left]{postfix}"
      self._bar = tqdm(total=total, initial=step, file=self._stream, dynamic_ncols=True, bar_format=layout)

  def advance(self, step: int) -> None:
    """Moves the bar to `step` steps done."""
    if self._bar is not None:
      self._bar.update(step - self._bar.n)

  def show(self, step: int, values: Mapping[str, Any]) -> None:
    """Shows `values` of `step`: loss, learning rate, speed, utilisation and time left come first if they are there."""
    if self._bar is not None:
      self._bar.set_postfix_str(summary(values), refresh=True)
      self.advance(step)
    elif self._first:
      seconds_left = (self.total - step) * float(values.get("seconds_per_step", math.nan))
      ending = f"  {tqdm.format_interval(seconds_left)} left" if seconds_left > 0 else ""
      self.note(f"step {step:>{len(str(self.total))}}/{self.total}  {summary(values)}{ending}")

  def note(self, text: str) -> None:
    """Prints a line above the bar."""
    if self._bar is not None:
      self._bar.write(text, file=self._stream)
    elif self._first:
      print(text, file=self._stream, flush=True)

  def close(self) -> None:
    """Closes the bar and leaves it visible."""
    if self._bar is not None:
      self._bar.close()


def summary(values: Mapping[str, Any]) -> str:
  """Formats metrics: `loss 3.214  learning_rate 1.00e-03  523 examples/s  12.3% of peak`."""
  texts = [f"{name} {number(values[name])}" for name in ("loss", "learning_rate") if name in values]
  texts += [
    f"{tqdm.format_sizeof(float(value))} {name[:-11]}/s"
    for name, value in values.items()
    if name.endswith("_per_second")
  ]
  if "mfu" in values:
    texts.append(f"{100 * float(values['mfu']):.1f}% of peak")
  if values.get("seconds_data", 0) > 0.02 * values.get("seconds_per_step", math.inf):
    texts.append(f"{float(values['seconds_data'] / values['seconds_per_step']):.0%} waiting for data")
  return "  ".join(texts)


def number(value: Any) -> str:
  """Formats a number with four digits: `3.214`, `0.05321`, `12346`, `1.00e-05`, `nan`."""
  value = float(value)
  if value and math.isfinite(value) and not 1e-3 <= abs(value) < 1e6:
    return f"{value:.2e}"
  return f"{value:.0f}" if abs(value) >= 1e3 else f"{value:#.4g}"
