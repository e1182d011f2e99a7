"""RoPE scaling for sequences longer than in pretraining: frequencies of `positions.rotary`.

Each function here returns a scaling: (theta, half, positions) -> frequencies broadcastable to [batch, length, half],
and a factor for sine and cosine. Equal arguments give the same function at every call.
"""

import functools
import inspect
import math

import jax.numpy as jnp
import numpy as np


def frequencies(theta, half):
  """theta^(-i/half) for i in 0 .. half - 1. https://arxiv.org/abs/2104.09864, section 3.2.2: float32 [1, 1, half]"""
  return (theta ** (-np.arange(half, dtype=np.float32) / half))[None, None]


def none(theta, half, positions):
  """The scaling that changes nothing."""
  return frequencies(theta, half), 1.0


@functools.cache
def linear(*, factor):
  """Position interpolation: positions are divided by `factor`. https://arxiv.org/abs/2306.15595"""

  def scaling(theta, half, positions):
    return frequencies(theta, half) / np.float32(factor), 1.0

  return scaling


@functools.cache
def dynamic(*, factor, trained_length):
  """Dynamic NTK scaling: theta grows with sequences longer than `trained_length`. https://arxiv.org/abs/2309.00071

  A cache keeps keys as they were rotated when the sequence was shorter.
  """

  def scaling(theta, half, positions):
    length = jnp.maximum(positions.max(axis=1, keepdims=True)[:, :, None] + 1, trained_length)
    grown = theta * (factor * length / trained_length - (factor - 1)) ** (half / (half - 1))
    return grown ** (-np.arange(half, dtype=np.float32) / half)[None, None], 1.0

  return scaling


@functools.cache
def llama3(*, factor, trained_length, low=1.0, high=4.0):
  """Llama 3.1: frequencies with fewer than `low` periods within `trained_length` are divided by `factor`, those with
  more than `high` stay, in between they are blended.

  https://github.com/meta-llama/llama-models, models/llama3/model.py
  """

  def scaling(theta, half, positions):
    plain = frequencies(theta, half)
    periods = trained_length * plain / (2 * math.pi)
    stays = np.clip((periods - low) / (high - low), 0, 1)
    return ((1 - stays) * plain / factor + stays * plain).astype(np.float32), 1.0

  return scaling


@functools.cache
def yarn(*, factor, trained_length, fast=32.0, slow=1.0, amplitude=None, truncate=True):
  """YaRN: frequencies with more than `fast` periods within `trained_length` stay, those with fewer than `slow` are
  divided by `factor`, in between they are blended by their index. https://arxiv.org/abs/2309.00071, section 3.2

  Args:
    amplitude: of sine and cosine, so that logits are multiplied by its square; 0.1 ln(factor) + 1 if None.
    truncate: whether both ends of the blend are rounded outward to whole indices.
  """

  def dimension_of(theta, half, periods):
    return half * math.log(trained_length / (periods * 2 * math.pi)) / math.log(theta)

  def scaling(theta, half, positions):
    first, last = dimension_of(theta, half, fast), dimension_of(theta, half, slow)
    if truncate:
      first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, 2 * half - 1)
    last += 0.001 * (first == last)
    slower = np.clip((np.arange(half) - first) / (last - first), 0, 1)
    plain = frequencies(theta, half)
    sharper = 0.1 * math.log(factor) + 1 if factor > 1 else 1.0
    blend = (plain / factor * slower + plain * (1 - slower)).astype(np.float32)
    return blend, sharper if amplitude is None else amplitude

  return scaling


_KINDS = {"factor": "a number above 0", "trained_length": "a number above 0", "truncate": "a bool"}
SCALINGS = {function.__wrapped__.__name__: function for function in (linear, dynamic, llama3, yarn)}


def scaling(options):
  """The scaling described by {"name": "linear", "factor": 2.0}; None for None."""
  if options is None:
    return None
  options = dict(options)
  name = options.pop("name", None)
  if name not in SCALINGS:
    raise ValueError(f"rope.name is {name!r}. It must be one of: {', '.join(SCALINGS)}.")
  takes = inspect.signature(SCALINGS[name].__wrapped__).parameters
  needs = [key for key, parameter in takes.items() if parameter.default is parameter.empty]
  if options.keys() - takes.keys() or set(needs) - options.keys():
    has, takes, needs = (", ".join(keys) or "nothing" for keys in (options, takes, needs))
    raise ValueError(f"rope {name} has {has}. It takes {takes}, needs {needs}.")
  for key, value in options.items():
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    fine = number and (key not in ("factor", "trained_length") or value > 0)
    if not fine and not (key == "truncate" and isinstance(value, bool)) and not (key == "amplitude" and value is None):
      raise ValueError(f"rope {name} has the {key} {value!r}. It must be {_KINDS.get(key, 'a number')}.")
  if options.get("low", 1.0) == options.get("high", 4.0):
    raise ValueError(f"rope {name} has low and high {options['low']}. high must be above low.")
  return SCALINGS[name](**options)
