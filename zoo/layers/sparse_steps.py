"""The steps of sparse attention, forward and backward: chunks of queries against the keys that a plan names.

The softmax goes over a chunk's keys step by step, as in https://arxiv.org/abs/2205.14135; the backward pass recomputes
the weights from the logsumexp. On CPUs, whose caches hold one head, heads are computed one after the other. Keys are
turned once, for a product of several rows would turn them in every step.
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

SLOTS = 32  # Global keys that are compared at a time, with all queries.
LEAST = float(jnp.finfo(jnp.float32).min)


@dataclasses.dataclass(frozen=True, eq=False)
class Steps:
  """The steps of a plan, of each key-value head over queries [batch, group, padded, dim].

  Keys and values are [batch, padded, dim] as the right side of a product over keys, [batch, dim, padded] over dim.

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
    """-> the output [batch, length, heads, dim], the logsumexp [kv_heads, batch, group, padded, 1], inf where none."""
    query, key, value = arrays
    given = self._of_queries(query, key.shape[2]), self._turned(key), self._of_keys(value)
    y, log_sum = self._of_each_head(self._forward, given, facts)
    return self._restored(y, (*arrays[0].shape[:3], arrays[2].shape[-1])), log_sum

  def backward(self, arrays, facts, y, log_sum, cotangent):
    """The gradients of query, key and value."""
    query, key, value = arrays
    of_queries = functools.partial(self._of_queries, kv_heads=key.shape[2])
    shared = _product("bqhd,bqhd->bqh", y, cotangent)[..., None]
    of_keys = self._of_keys(key), self._turned(key), self._turned(value)
    given = of_queries(query), *of_keys, of_queries(cotangent), log_sum, of_queries(shared)
    d_query, *of_keys = self._of_each_head(self._backward, given, facts)
    found = self._restored(d_query, query.shape), *(x[..., : self.length].transpose(1, 3, 0, 2) for x in of_keys)
    return tuple(gradient.astype(x.dtype) for gradient, x in zip(found, arrays, strict=True))

  def _of_each_head(self, run, arrays, facts):
    """run(arrays, the plan's arrays by name, facts) of every head, the first axis of the arrays."""
    each = {"query": jnp.asarray(self.plan.queries), "step": jnp.arange(len(self.plan.queries))}
    of_plan = {"keys": jnp.asarray(self.plan.keys), "used": jnp.asarray(self.plan.used)}
    of_head = {}
    if self.plan.keys.ndim == 3:
      of_head, of_plan = {name: x.swapaxes(0, 1) for name, x in of_plan.items()}, {}
    rng = jax.random.split(facts["rng"], len(arrays[0])) if self.rate else None

    def one(head):
      arrays, of_head, rng = head
      return run(*arrays, each | of_plan | of_head, facts if rng is None else facts | {"rng": rng})

    heads = arrays, of_head, rng
    return jax.lax.platform_dependent(heads, cpu=lambda heads: jax.lax.map(one, heads), default=jax.vmap(one))

  def _forward(self, query, turned_key, value, each, facts):
    def add(before, pairs, value):
      logits, kept = pairs
      largest, total, y = before
      new = jnp.maximum(largest, logits.max(-1, keepdims=True))
      weights, shrunk = jnp.exp(logits - new), jnp.exp(largest - new)
      total = total * shrunk + weights.sum(-1, keepdims=True)
      weights = (weights if kept is None else weights * kept).astype(value.dtype)
      return new, total, y * shrunk + _product("bgqk,bkd->bgqd", weights, value)

    def step(state, each):
      of_query, *before = (_slice(x, each["query"], self.plan.chunk, 2) for x in (query, *state))
      after = add(before, self._pairs(of_query, turned_key, facts, each), self._spans(value, each, 1))
      return [_write(x, part, each["query"]) for x, part in zip(state, after)], None

    rows = query.shape[:3]
    state = [jnp.full((*rows, 1), LEAST), jnp.zeros((*rows, 1)), jnp.zeros((*rows, value.shape[-1]))]
    state, _ = jax.lax.scan(step, state, each)
    if "slots" in facts:
      more = lambda j, state: add(state, self._slot_pairs(query, turned_key, facts, j), _slot(value, facts, j, 1))
      state = jax.lax.fori_loop(0, _trips(facts), more, tuple(state))
    largest, total, y = state
    some, total = total > 0, jnp.where(total > 0, total, 1)
    mean = value.sum(1, dtype=jnp.float32)[:, None, None] / self.length
    return jnp.where(some, y / total, mean).astype(value.dtype), jnp.where(some, largest + jnp.log(total), jnp.inf)

  def _backward(self, query, key, turned_key, turned_value, d_y, log_sum, shared, each, facts):
    """The gradients of query [batch, group, padded, dim], and of key and value, [batch, dim, padded] each."""

    def gradients(pairs, pull, of_query, of_key, of_value, of_y):
      logits, kept = pairs
      d_y, log_sum, shared = of_y
      weights = jnp.exp(logits - log_sum)
      d_weights = _product("bgqd,bdk->bgqk", d_y, of_value)
      d_logits = weights * ((d_weights if kept is None else d_weights * kept) - shared)
      weights = weights if kept is None else weights * kept
      d_logits = (d_logits if pull is None else pull(d_logits)[0]) * self.scale
      d_logits = d_logits.astype(of_key.dtype)
      d_value = _product("bgqd,bgqk->bdk", d_y, weights.astype(d_y.dtype))
      d_key = _product("bgqd,bgqk->bdk", of_query, d_logits)
      return _product("bgqk,bkd->bgqd", d_logits, of_key), d_key, d_value

    def step(sums, each):
      d_query, *of_keys = sums
      of_query, *of_y = (_slice(x, each["query"], self.plan.chunk, 2) for x in (query, d_y, log_sum, shared))
      pairs, pull = self._pairs(of_query, turned_key, facts, each, pull=True)
      of_key, of_value = self._spans(key, each, 1), self._spans(turned_value, each, 2)
      more, *of_spans = gradients(pairs, pull, of_query, of_key, of_value, of_y)
      d_query = _write(d_query, _slice(d_query, each["query"], self.plan.chunk, 2) + more, each["query"])
      return (d_query, *(self._add_spans(x, part, each) for x, part in zip(of_keys, of_spans))), None

    def more(j, sums):
      pairs, pull = self._slot_pairs(query, turned_key, facts, j, pull=True)
      of_key, of_value = _slot(key, facts, j, 1), _slot(turned_value, facts, j, 2)
      found = gradients(pairs, pull, query, of_key, of_value, (d_y, log_sum, shared))
      add = jax.vmap(lambda sums, tokens, more: sums.at[:, tokens].add(more))
      return sums[0] + found[0], *(add(x, _tokens(facts, j), part) for x, part in zip(sums[1:], found[1:]))

    sums = jnp.zeros(query.shape), *(jnp.zeros(x.shape) for x in (turned_key, turned_value))
    sums, _ = jax.lax.scan(step, sums, each)
    if "slots" in facts:
      sums = jax.lax.fori_loop(0, _trips(facts), more, sums)
    d_query, d_key, d_value = sums
    nothing = jnp.where(jnp.isposinf(log_sum), d_y, 0).sum((1, 2), dtype=jnp.float32) / self.length
    return d_query, d_key, d_value + nothing[..., None]

  def _pairs(self, of_query, turned_key, facts, each, pull=False):
    """Masked logits of a step and factors of its weights, or None; with `pull` also the transpose of `on_logits`."""
    visible, places = [], jnp.arange(self.plan.chunk, dtype=jnp.int32)
    spans = jnp.arange(self.plan.span, dtype=jnp.int32)
    if not self.plan.used.all():
      visible.append(_columns(jnp.repeat(each["used"], self.plan.span)[None]))
    if not self.plan.whole:
      keys = (each["keys"][:, None] + spans[None]).reshape(1, -1)
      visible.append(self.pattern((each["query"] + places)[:, None], keys)[None, None])
    if "is_global" in facts:
      visible.append(_columns(~self._spans(facts["is_global"], each, 1)))
    if "valid" in facts:
      visible.append(_columns(self._spans(facts["valid"], each, 1)))
    if "key_segments" in facts:
      of_query_ids = _slice(facts["query_segments"], each["query"], self.plan.chunk, 1)
      visible.append(_rows(of_query_ids) == _columns(self._spans(facts["key_segments"], each, 1)))
    rng = jax.random.fold_in(facts["rng"], each["step"]) if self.rate else None
    return self._logits(of_query, self._spans(turned_key, each, 2), visible, rng, pull)

  def _slot_pairs(self, query, turned_key, facts, j, pull=False):
    """As `_pairs`, of all queries and the global keys j * SLOTS and after."""
    places = j * SLOTS + jnp.arange(SLOTS, dtype=jnp.int32)
    visible = [_columns(places[None] < facts["slots_used"][:, None])]
    if "key_segments" in facts:
      ids = jnp.take_along_axis(facts["key_segments"], _tokens(facts, j), axis=1)
      visible.append(_rows(facts["query_segments"]) == _columns(ids))
    rng = jax.random.fold_in(facts["rng"], len(self.plan.queries) + j) if self.rate else None
    return self._logits(query, _slot(turned_key, facts, j, 2), visible, rng, pull)

  def _logits(self, of_query, of_key, visible, rng, pull):
    logits = _product("bgqd,bdk->bgqk", of_query, of_key) * self.scale
    back = None
    if self.on_logits is not None:
      logits, back = jax.vjp(self.on_logits, logits)
    if visible:
      logits = jnp.where(functools.reduce(operator.and_, visible), logits, -jnp.inf)
    kept = None
    if self.rate:
      kept = jax.random.bernoulli(rng, 1 - self.rate, logits.shape).astype(jnp.float32) / (1 - self.rate)
    return ((logits, kept), back) if pull else (logits, kept)

  def _of_queries(self, array, kv_heads):
    """[batch, length, heads, dim] -> [kv_heads, batch, group, padded, dim]"""
    batch, _, heads, dim = array.shape
    grouped = self._padded(array).reshape(batch, -1, kv_heads, heads // kv_heads, dim)
    return grouped.transpose(2, 0, 3, 1, 4)

  def _of_keys(self, array):
    return self._padded(array).transpose(2, 0, 1, 3)

  def _turned(self, array):
    return self._padded(array).transpose(2, 0, 3, 1)

  def _padded(self, array):
    return jnp.pad(array, ((0, 0), (0, self.plan.length - self.length), (0, 0), (0, 0)))

  def _restored(self, array, shape):
    """[kv_heads, batch, group, padded, dim] -> [batch, length, heads, dim]"""
    return array[:, :, :, : self.length].transpose(1, 3, 0, 2, 4).reshape(shape)

  def _spans(self, array, each, axis):
    """The part of an axis of all keys, padded, that belongs to those of a step."""
    return jnp.concatenate([_slice(array, start, self.plan.span, axis) for start in each["keys"]], axis=axis)

  def _add_spans(self, array, gradient, each):
    """Adds the gradient of a step's keys to that of all keys: [batch, dim, padded], [batch, dim, keys]"""
    for i, start in enumerate(each["keys"]):
      part = _slice(gradient, i * self.plan.span, self.plan.span, 2)
      array = _write(array, _slice(array, start, self.plan.span, 2) + part, start)
    return array


def _slice(array, start, size, axis):
  return jax.lax.dynamic_slice_in_dim(array, start, size, axis)


def _write(array, part, start):
  return jax.lax.dynamic_update_slice_in_dim(array, part, start, 2)


def _trips(facts):
  """How often SLOTS global keys are compared."""
  return -(-facts["slots_used"].max() // SLOTS)


def _tokens(facts, j):
  """The global tokens j * SLOTS and after, and others where there are no more: int32 [batch or 1, SLOTS]"""
  return _slice(facts["slots"], j * SLOTS, SLOTS, 1)


def _slot(array, facts, j, axis):
  """The part of an axis of all keys that belongs to `_tokens`."""
  tokens = jnp.expand_dims(_tokens(facts, j), 3 - axis)
  return jnp.take_along_axis(array, tokens, axis=axis)


def _columns(facts):
  """[batch or 1, keys] -> [batch or 1, 1, 1, keys]"""
  return facts[:, None, None]


def _rows(facts):
  """[batch or 1, queries] -> [batch or 1, 1, queries, 1]"""
  return facts[:, None, :, None]


def _product(dimensions, *arrays):
  return jnp.einsum(dimensions, *arrays, preferred_element_type=jnp.float32)
