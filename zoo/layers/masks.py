"""Attention masks as rules over positions: elementwise functions (query_positions, key_positions) -> bool.

A rule never sees a length, so it serves full passes and cached steps alike. Positions arrive as
[batch or 1, queries, 1] and [batch or 1, 1, keys]. `window(3)` returns the same function every time, so that equal
models compare equal.
"""

import functools
import operator
from collections.abc import Callable
from typing import NamedTuple

import jax


def causal(query_positions, key_positions):
  """Each token attends to itself and to earlier tokens."""
  return key_positions <= query_positions


@functools.cache
def window(radius):
  """Each token attends to itself and to `radius` neighbours on each side."""
  return functools.partial(_near, radius)


def _near(radius, query_positions, key_positions):
  return abs(query_positions - key_positions) <= radius


@functools.cache
def both(first, second):
  """The intersection of two rules, e.g. `both(causal, window(255))`: a token and the 255 before it."""
  return functools.partial(_allowed, first, second)


def _allowed(first, second, query_positions, key_positions):
  return first(query_positions, key_positions) & second(query_positions, key_positions)


def lookback(rule):
  """Number of positions back that a rule of this module allows; None if unlimited or unknown."""
  if not isinstance(rule, functools.partial) or rule.func not in (_near, _allowed):
    return None
  limits = rule.args[:1] if rule.func is _near else [back for part in rule.args if (back := lookback(part)) is not None]
  return min(limits, default=None)


def band(rule):
  """The band (back, ahead) that a rule of this module allows: -back <= key position - query position <= ahead.

  An end that is None is unlimited; the result is None for a rule of another module.
  """
  if rule is None:
    return None, None
  if rule is causal:
    return None, 0
  if not isinstance(rule, functools.partial) or rule.func not in (_near, _allowed):
    return None
  if rule.func is _near:
    return rule.args[0], rule.args[0]
  bands = [band(part) for part in rule.args]
  if None in bands:
    return None
  ends = zip(*bands, strict=True)
  return tuple(min((end for end in side if end is not None), default=None) for side in ends)


class AttentionMask(NamedTuple):
  """The attention mask, as a rule with positions; kernels use the rule, or `array()`.

  rule: a function (query_positions, key_positions) -> bool, or None: nothing is masked.
  query_positions, key_positions: int32 [batch or 1, queries], [batch or 1, keys]
  valid: bool [batch, keys], True = a real key, or None: all are.
  query_segments, key_segments: int32 [batch, queries], [batch, keys], segment ids of a packed sequence; a token attends
    to its own segment only. None: not packed.
  in_order: whether positions are 0, 1, 2, ..., so that indices can replace them. False: they were passed by the
    caller, or come from a cache.
  """

  rule: Callable | None
  query_positions: jax.Array
  key_positions: jax.Array
  valid: jax.Array | None = None
  query_segments: jax.Array | None = None
  key_segments: jax.Array | None = None
  in_order: bool = False

  def array(self):
    """bool [batch or 1, 1, queries or 1, keys], or None if nothing is masked."""
    conditions = []
    if self.valid is not None:
      conditions.append(self.valid[:, None, None, :].astype(bool))
    if self.rule is not None:
      conditions.append(self.rule(self.query_positions[:, :, None], self.key_positions[:, None, :])[:, None])
    if self.query_segments is not None and self.key_segments is not None:
      conditions.append((self.query_segments[:, :, None] == self.key_segments[:, None, :])[:, None])
    return functools.reduce(operator.and_, conditions) if conditions else None
