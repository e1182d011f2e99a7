"""Who may see whom: rules over positions, elementwise functions (query_positions, key_positions) -> bool.

A rule never sees a length, so the same one serves a full pass and a cached step. Positions arrive as
[batch or 1, queries, 1] and [batch or 1, 1, keys]. `window(3)` is the same function at every call, so that models built
alike are equal.
"""

import functools
import operator
from collections.abc import Callable
from typing import NamedTuple

import jax


def causal(query_positions, key_positions):
  """A token sees itself and the past."""
  return key_positions <= query_positions


@functools.cache
def window(radius):
  """A token sees `radius` neighbours on each side, and itself."""
  return functools.partial(_near, radius)


def _near(radius, query_positions, key_positions):
  return abs(query_positions - key_positions) <= radius


@functools.cache
def both(first, second):
  """What both rules allow, e.g. `both(causal, window(255))`: itself and the 255 tokens before it."""
  return functools.partial(_allowed, first, second)


def _allowed(first, second, query_positions, key_positions):
  return first(query_positions, key_positions) & second(query_positions, key_positions)


def reach(rule):
  """How many positions back a token sees at most by a rule of this file; None: there is no end."""
  if not isinstance(rule, functools.partial) or rule.func not in (_near, _allowed):
    return None
  found = rule.args[:1] if rule.func is _near else [back for part in rule.args if (back := reach(part)) is not None]
  return min(found, default=None)


def bounds(rule):
  """How many positions back and how many ahead a token sees by a rule of this file, None: there is no end.

  -> (back, ahead) such that `-back <= key position - query position <= ahead` is the rule; None for one of elsewhere.
  """
  if rule is None:
    return None, None
  if rule is causal:
    return None, 0
  if not isinstance(rule, functools.partial) or rule.func not in (_near, _allowed):
    return None
  if rule.func is _near:
    return rule.args[0], rule.args[0]
  found = [bounds(part) for part in rule.args]
  if None in found:
    return None
  ends = zip(*found, strict=True)
  return tuple(min((end for end in side if end is not None), default=None) for side in ends)


class Visibility(NamedTuple):
  """What an attention kernel is told of who may see whom; a kernel may use the rule itself or ask for the array.

  rule: a function of this file, or None: everything.
  query_positions, key_positions: int32 [batch or 1, queries], [batch or 1, keys]
  valid: bool [batch, keys], True = a real key, or None: all are.
  query_segments, key_segments: int32 [batch, queries], [batch, keys]: which of the texts that share a row a token is
    of; it sees its own alone. Both are None where a row is one text.
  in_order: True: positions count from 0 in a row, so that a token's index does for the rules of this file. False: they
    were given, or are a cache's.
  """

  rule: Callable | None
  query_positions: jax.Array
  key_positions: jax.Array
  valid: jax.Array | None = None
  query_segments: jax.Array | None = None
  key_segments: jax.Array | None = None
  in_order: bool = False

  def array(self):
    """bool [batch or 1, 1, queries or 1, keys], or None where everybody sees everything."""
    seen = []
    if self.valid is not None:
      seen.append(self.valid[:, None, None, :].astype(bool))
    if self.rule is not None:
      seen.append(self.rule(self.query_positions[:, :, None], self.key_positions[:, None, :])[:, None])
    if self.query_segments is not None and self.key_segments is not None:
      seen.append((self.query_segments[:, :, None] == self.key_segments[:, None, :])[:, None])
    return functools.reduce(operator.and_, seen) if seen else None
