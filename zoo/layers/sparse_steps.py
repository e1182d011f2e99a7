"""The steps of sparse attention, forward and backward: chunks of queries against the keys that a plan names.

The softmax goes over a chunk's keys step by step, as in https://arxiv.org/abs/2205.14135; the backward pass recomputes
the weights from the logsumexp.
"""

import dataclasses
import functools
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from zoo.layers.patterns import Pattern
from zoo.layers.plans import Plan

SLOTS = 32  # Global keys that are compared at a time.
LEAST = float(jnp.finfo(jnp.float32).min)


@dataclasses.dataclass(frozen=True, eq=False)
class Steps:
  """The steps of a plan, over queries [batch, kv_heads, group, length, dim] and keys [batch, kv_heads, length, dim].

  Args:
    plan, pattern: what is compared, what of it is visible.
    length: tokens, without padding to the plan's length.
    scale, on_logits: of the logits. rate: at which weights are dropped.
  """

  plan: Plan
  pattern: Pattern
  length: int
  scale: float
  on_logits: Callable | None
  rate: float

  def facts(self, mask) -> dict[str, Any]:
    """What the mask says beside its rule, padded: arrays [batch or 1, length] by name."""
    missing = self.plan.length - self.length
    pad = lambda x: jnp.pad(x, ((0, 0), (0, missing)))
    facts, valid = {}, mask.valid
    if valid is None and missing:
      valid = jnp.ones((1, self.length), bool)
    if valid is not None:
      facts["valid"] = pad(valid.astype(bool))
    if mask.query_segments is not None and mask.key_segments is not None:
      facts["query_segments"], facts["key_segments"] = pad(mask.query_segments), pad(mask.key_segments)
    if mask.global_keys is not None:
      found = pad(mask.global_keys.astype(bool)) & facts.get("valid", True)
      order = jnp.argsort(~found, axis=1, stable=True).astype(jnp.int32)
      facts["is_global"] = found
      facts["slots"] = jnp.pad(order, ((0, 0), (0, -order.shape[1] % SLOTS)))
      facts["slots_used"] = found.sum(1, dtype=jnp.int32)
    return facts

  def forward(self, arrays, facts):
    """-> the output [batch, length, heads, dim], the logsumexp [batch, kv_heads, group, padded, 1], inf where none."""
    query, key, value = self._arranged(arrays)
    slots = self._slots(facts, key, value)
    dim = value.shape[-1]
    rows = *query.shape[:3], self.plan.chunk

    def add(state, pairs, value):
      logits, kept = pairs
      largest, total, y = state
      new = jnp.maximum(largest, logits.max(-1, keepdims=True))
      weights, before = jnp.exp(logits - new), jnp.exp(largest - new)
      total = total * before + weights.sum(-1, keepdims=True)
      weights = (weights if kept is None else weights * kept).astype(value.dtype)
      return new, total, y * before + _product("bngqk,bnkd->bngqd", weights, value)

    def step(carry, each):
      y, log_sum, state = carry
      state = [jnp.where(each["begins"], start, x) for start, x in zip((LEAST, 0.0, 0.0), state)]
      of_query = _slice(query, each["query"], self.plan.chunk, 3)
      state = add(state, self._pairs(of_query, key, facts, each), self._spans(value, each))
      if slots is not None:
        more = lambda j, state: add(state, self._slot_pairs(of_query, slots, facts, each, j), _slot(slots[1], j))
        state = jax.lax.fori_loop(0, self._trips(facts, each), more, tuple(state))
      largest, total, weighted = state
      some = total > 0
      out = (weighted / jnp.where(some, total, 1)).astype(y.dtype)
      y = _write(y, out, each["query"])
      log_sum = _write(log_sum, jnp.where(some, largest + jnp.log(jnp.where(some, total, 1)), jnp.inf), each["query"])
      return (y, log_sum, tuple(state)), None

    state = jnp.full((*rows, 1), LEAST), jnp.zeros((*rows, 1)), jnp.zeros((*rows, dim))
    padded = *query.shape[:3], self.plan.length
    carry = jnp.zeros((*padded, dim), value.dtype), jnp.zeros((*padded, 1)), state
    (y, log_sum, _), _ = jax.lax.scan(step, carry, self._each())
    mean = value.sum(2, dtype=jnp.float32) / self.length
    y = jnp.where(jnp.isposinf(log_sum), mean[:, :, None, None].astype(y.dtype), y)
    return self._restored(y, (*arrays[0].shape[:3], dim)), log_sum

  def backward(self, arrays, facts, y, log_sum, cotangent):
    """The gradients of query, key and value."""
    query, key, value = self._arranged(arrays)
    slots = self._slots(facts, key, value)
    d_y, y = (self._of_queries(x, key.shape[1]) for x in (cotangent, y))
    shared = (y.astype(jnp.float32) * d_y).sum(-1, keepdims=True)

    def gradients(pairs, pull, of_query, of_key, of_value, of_y, sums):
      logits, kept = pairs
      d_y, log_sum, shared = of_y
      weights = jnp.exp(logits - log_sum)
      d_weights = _product("bngqd,bnkd->bngqk", d_y, of_value)
      d_logits = weights * ((d_weights if kept is None else d_weights * kept) - shared)
      weights = weights if kept is None else weights * kept
      d_logits = (d_logits if pull is None else pull(d_logits)[0]) * self.scale
      d_logits = d_logits.astype(of_key.dtype)
      d_value = _product("bngqk,bngqd->bnkd", weights.astype(d_y.dtype), d_y)
      d_key = _product("bngqk,bngqd->bnkd", d_logits, of_query)
      return sums + _product("bngqk,bnkd->bngqd", d_logits, of_key), d_key, d_value

    def step(carry, each):
      d_query, d_key, d_value, d_slots, sums = carry
      sums = jnp.where(each["begins"], 0.0, sums)
      of_query, *of_y = (_slice(x, each["query"], self.plan.chunk, 3) for x in (query, d_y, log_sum, shared))
      pairs, pull = self._pairs(of_query, key, facts, each, pull=True)
      of_key, of_value = self._spans(key, each), self._spans(value, each)
      sums, more_key, more_value = gradients(pairs, pull, of_query, of_key, of_value, of_y, sums)
      d_key, d_value = self._add_spans(d_key, more_key, each), self._add_spans(d_value, more_value, each)
      if slots is not None:

        def more(j, carry):
          sums, d_slots = carry
          pairs, pull = self._slot_pairs(of_query, slots, facts, each, j, pull=True)
          sums, *found = gradients(pairs, pull, of_query, _slot(slots[0], j), _slot(slots[1], j), of_y, sums)
          add = lambda x, y: jax.lax.dynamic_update_slice_in_dim(x, _slot(x, j) + y, j * SLOTS, 2)
          return sums, tuple(map(add, d_slots, found))

        sums, d_slots = jax.lax.fori_loop(0, self._trips(facts, each), more, (sums, d_slots))
      return (_write(d_query, sums, each["query"]), d_key, d_value, d_slots, sums), None

    zeros = lambda x: jnp.zeros(x.shape)
    d_slots = () if slots is None else tuple(map(zeros, slots))
    sums = jnp.zeros((*query.shape[:3], self.plan.chunk, query.shape[-1]))
    carry = zeros(query), zeros(key), zeros(value), d_slots, sums
    (d_query, d_key, d_value, d_slots, _), _ = jax.lax.scan(step, carry, self._each())
    if slots is not None:
      back = jnp.argsort(facts["slots"][:, : self.plan.length], axis=1)[:, None, :, None]
      d_key, d_value = (x + jnp.take_along_axis(d, back, axis=2) for x, d in zip((d_key, d_value), d_slots))
    nothing = jnp.where(jnp.isposinf(log_sum), d_y, 0).sum((2, 3), dtype=jnp.float32) / self.length
    d_value = d_value + nothing[:, :, None]
    found = (self._restored(d, x.shape) for d, x in zip((d_query, d_key[:, :, None], d_value[:, :, None]), arrays))
    return tuple(gradient.astype(x.dtype) for gradient, x in zip(found, arrays, strict=True))

  def _pairs(self, of_query, key, facts, each, pull=False):
    """Masked logits of a step and factors of its weights, or None; with `pull` also the transpose of `on_logits`."""
    visible, places = [], jnp.arange(self.plan.chunk, dtype=jnp.int32)
    spans = jnp.arange(self.plan.span, dtype=jnp.int32)
    if not self.plan.used.all():
      visible.append(_columns(jnp.repeat(each["used"], self.plan.span, axis=-1)[None]))
    if not self.plan.whole:
      keys = (each["keys"][:, None] + spans[None]).reshape(1, -1)
      visible.append(self.pattern((each["query"] + places)[:, None], keys)[None, None, None])
    if "is_global" in facts:
      visible.append(_columns(~self._fact(facts["is_global"], each)))
    if "valid" in facts:
      visible.append(_columns(self._fact(facts["valid"], each)))
    if "key_segments" in facts:
      visible.append(self._segments(facts, each) == _columns(self._fact(facts["key_segments"], each)))
    return self._logits(of_query, self._spans(key, each), visible, self._rng(facts, each), pull)

  def _slot_pairs(self, of_query, slots, facts, each, j, pull=False):
    """As `_pairs`, for the global keys j * SLOTS and after."""
    places = j * SLOTS + jnp.arange(SLOTS, dtype=jnp.int32)
    visible = [_columns(places[None] < facts["slots_used"][:, None])]
    if "key_segments" in facts:
      ids = jnp.take_along_axis(facts["key_segments"], _slice(facts["slots"], j * SLOTS, SLOTS, 1), axis=1)
      visible.append(self._segments(facts, each) == _columns(ids))
    rng = self._rng(facts, each)
    rng = None if rng is None else jax.random.fold_in(rng, 1 + j)
    return self._logits(of_query, _slot(slots[0], j), visible, rng, pull)

  def _logits(self, of_query, of_key, visible, rng, pull):
    logits = _product("bngqd,bnkd->bngqk", of_query, of_key) * self.scale
    back = None
    if self.on_logits is not None:
      logits, back = jax.vjp(self.on_logits, logits)
    if visible:
      logits = jnp.where(functools.reduce(operator.and_, visible), logits, -jnp.inf)
    kept = None
    if self.rate:
      kept = jax.random.bernoulli(rng, 1 - self.rate, logits.shape).astype(jnp.float32) / (1 - self.rate)
    return ((logits, kept), back) if pull else (logits, kept)

  def _rng(self, facts, each):
    return jax.random.fold_in(facts["rng"], each["step"]) if self.rate else None

  def _segments(self, facts, each):
    return _slice(facts["query_segments"], each["query"], self.plan.chunk, 1)[:, None, None, :, None]

  def _trips(self, facts, each):
    return jnp.where(each["ends"], -(-facts["slots_used"].max() // SLOTS), 0)

  def _each(self):
    """The plan's arrays by name, to be scanned."""
    plan = self.plan
    fields = {"query": plan.queries, "keys": plan.keys, "used": plan.used, "begins": plan.begins, "ends": plan.ends}
    return {name: jnp.asarray(x) for name, x in fields.items()} | {"step": jnp.arange(len(plan.queries))}

  def _arranged(self, arrays):
    """Arrays [batch, length, heads, dim] in the order of the steps, padded."""
    query, key, value = arrays
    return self._of_queries(query, key.shape[2]), *(self._padded(x).swapaxes(1, 2) for x in (key, value))

  def _of_queries(self, array, kv_heads):
    batch, _, heads, dim = array.shape
    grouped = self._padded(array).reshape(batch, -1, kv_heads, heads // kv_heads, dim)
    return grouped.transpose(0, 2, 3, 1, 4)

  def _padded(self, array):
    return jnp.pad(array, ((0, 0), (0, self.plan.length - self.length), (0, 0), (0, 0)))

  def _restored(self, array, shape):
    """[batch, kv_heads, group, padded, dim] -> [batch, length, heads, dim]"""
    return array[:, :, :, : self.length].transpose(0, 3, 1, 2, 4).reshape(shape)

  def _spans(self, array, each):
    """The keys of a step: [batch, kv_heads, padded, dim] -> [batch, kv_heads, keys, dim]"""
    pick = lambda x, starts: jnp.concatenate([_slice(x, start, self.plan.span, -2) for start in starts], axis=-2)
    return pick(array, each["keys"]) if each["keys"].ndim == 1 else jax.vmap(pick, (1, 0), 1)(array, each["keys"])

  def _fact(self, array, each):
    """The same of what is known of keys: [batch or 1, padded] -> [batch or 1, keys], or [batch or 1, heads, keys]"""
    pick = lambda starts: jnp.concatenate([_slice(array, start, self.plan.span, 1) for start in starts], axis=1)
    return pick(each["keys"]) if each["keys"].ndim == 1 else jax.vmap(pick, out_axes=1)(each["keys"])

  def _add_spans(self, array, gradient, each):
    """Adds the gradient of a step's keys to that of all keys."""

    def add(array, gradient, starts):
      for i, start in enumerate(starts):
        part = _slice(gradient, i * self.plan.span, self.plan.span, -2)
        array = jax.lax.dynamic_update_slice_in_dim(array, _slice(array, start, self.plan.span, -2) + part, start, -2)
      return array

    over = add if each["keys"].ndim == 1 else jax.vmap(add, (1, 1, 0), 1)
    return over(array, gradient, each["keys"])

  def _slots(self, facts, key, value):
    """Keys and values with the global ones first, or None: [batch, kv_heads, padded, dim] each."""
    if "slots" not in facts:
      return None
    return [jnp.take_along_axis(x, facts["slots"][:, None, :, None], axis=2) for x in (key, value)]


def _slice(array, start, size, axis):
  return jax.lax.dynamic_slice_in_dim(array, start, size, axis)


def _slot(array, j):
  return _slice(array, j * SLOTS, SLOTS, 2)


def _write(array, part, start):
  return jax.lax.dynamic_update_slice_in_dim(array, part, start, 3)


def _columns(facts):
  """[batch or 1, keys] or [batch or 1, heads, keys] -> [batch or 1, heads or 1, 1, 1, keys]"""
  return facts[:, None, None, None] if facts.ndim == 2 else facts[:, :, None, None]


def _product(dimensions, *arrays):
  return jnp.einsum(dimensions, *arrays, preferred_element_type=jnp.float32)
