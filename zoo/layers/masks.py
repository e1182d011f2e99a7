"""Attention masks as rules over positions: elementwise functions (query_positions, key_positions) -> bool.

A rule never sees a length, so it serves full passes and cached steps alike. Positions arrive as
[batch or 1, queries, 1] and [batch or 1, 1, keys]. The rules of this module are patterns (`zoo.layers.patterns`), which
compare by value. Any other function will do too, but only kernels that take an array of the mask run it.
"""

import functools
import operator
from collections.abc import Callable
from typing import NamedTuple

import jax

from zoo.layers.patterns import Pattern, Window

causal = Window(None, 0)  # Each token attends to itself and to earlier tokens.


@functools.cache
def window(radius):
  """Each token attends to itself and to `radius` neighbours on each side."""
  return Window(radius, radius)


@functools.cache
def both(first, second):
  """The intersection of two rules, e.g. `both(causal, window(255))`: a token and the 255 before it."""
  if isinstance(first, Pattern) and isinstance(second, Pattern):
    return first & second
  return functools.partial(_allowed, first, second)


def _allowed(first, second, query_positions, key_positions):
  return first(query_positions, key_positions) & second(query_positions, key_positions)


def lookback(rule):
  """Number of positions back that a rule allows; None if unlimited or unknown."""
  if isinstance(rule, functools.partial) and rule.func is _allowed:
    return min((back for part in rule.args if (back := lookback(part)) is not None), default=None)
  return rule.back if isinstance(rule, Window) else None


def band(rule):
  """The band (back, ahead) that a rule allows: -back <= key position - query position <= ahead.

  An end that is None is unlimited; the result is None for a rule that is no band, a dilated window for example.
  """
  if rule is None:
    return None, None
  return (rule.back, rule.ahead) if isinstance(rule, Window) and rule.dilation == 1 else None


class AttentionMask(NamedTuple):
  """The attention mask, as a rule with positions; kernels use the rule, or `array()`.

  rule: a function (query_positions, key_positions) -> bool, or None: nothing is masked.
  query_positions, key_positions: int32 [batch or 1, queries], [batch or 1, keys]
  valid: bool [batch, keys], True = a real key, or None: all are.
  query_segments, key_segments: int32 [batch, queries], [batch, keys], segment ids of a packed sequence; a token attends
    to its own segment only. None: not packed.
  in_order: whether positions are 0, 1, 2, ..., so that indices can replace them. False: they were passed by the
    caller, or come from a cache.
  global_keys: bool [batch, keys], keys that every query sees whatever the rule; None: there are none.
  """

  rule: Callable | None
  query_positions: jax.Array
  key_positions: jax.Array
  valid: jax.Array | None = None
  query_segments: jax.Array | None = None
  key_segments: jax.Array | None = None
  in_order: bool = False
  global_keys: jax.Array | None = None

  def array(self):
    """bool [batch or 1, heads or 1, queries or 1, keys], or None if nothing is masked."""
    conditions = []
    if self.valid is not None:
      conditions.append(self.valid[:, None, None, :].astype(bool))
    if self.rule is not None:
      conditions.append(self._by_position(self.rule))
    if self.query_segments is not None and self.key_segments is not None:
      conditions.append((self.query_segments[:, :, None] == self.key_segments[:, None, :])[:, None])
    return functools.reduce(operator.and_, conditions) if conditions else None

  def _by_position(self, rule):
    """What the rule allows: bool [batch or 1, heads or 1, queries, keys]"""
    rule = rule.at(self.key_positions.shape[1]) if isinstance(rule, Pattern) else rule
    visible = rule(self.query_positions[:, :, None], self.key_positions[:, None, :])
    visible = visible.swapaxes(0, 1) if visible.ndim == 4 else visible[:, None]
    return visible if self.global_keys is None else visible | self.global_keys[:, None, None, :]
