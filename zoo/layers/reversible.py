"""Reversible residual layers: the backward pass recomputes every layer's inputs from its outputs.

Two streams take turns: first += attention(second), second += mlp(first). Each sum can be undone, so a stack keeps its
last two streams for the backward pass and nothing of its layers, however many. Each branch is computed once more, as
with rematerialisation. https://arxiv.org/abs/2001.04451, section 3; https://arxiv.org/abs/1707.04585
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import Scope

from zoo.layers.sequence import SequenceInfo
from zoo.layers.stack import SCAN_FROM, ScannedStack, Stack, kinds_of


class Streams(NamedTuple):
  """The two residual streams, [batch, length, dim] each: attention adds to the first, the MLP to the second."""

  first: jax.Array
  second: jax.Array


class Run(NamedTuple):
  """Layers that are run one after the other, or a scan over such cycles of layers.

  branches: (variables, key, kwargs, x, note) -> (y, note), which read and write the two streams in turn.
  scanned: whether variables and keys have a leading axis to scan over.
  """

  branches: tuple[Callable, ...]
  scanned: bool = False


def straight(runs, variables, keys, kwargs, streams):
  """Runs reversible layers, without a backward pass of their own.

  Args:
    runs: a tuple of `Run`.
    variables: of each run.
    keys: of each run, with one per branch; None: nothing is random.
    kwargs: passed to every branch.
    streams: (first, second), [..., dim] each.

  Returns:
    (first, second); and the notes of each run.
  """
  notes = []
  for run, tree, key in zip(runs, variables, keys, strict=True):
    cycle = lambda streams, xs, run=run: _cycle(run.branches, *xs, kwargs, streams)
    streams, note = jax.lax.scan(cycle, streams, (tree, key)) if run.scanned else cycle(streams, (tree, key))
    notes.append(note)
  return streams, tuple(notes)


def _cycle(branches, tree, keys, kwargs, streams):
  streams, notes = list(streams), []
  for i, branch in enumerate(branches):
    y, note = branch(tree, None if keys is None else keys[i], kwargs, streams[1 - i % 2], None)
    streams[i % 2] = streams[i % 2] + y
    notes.append(note)
  return tuple(streams), tuple(notes)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _reversible(runs, variables, keys, fixed, kwargs, streams):
  return straight(runs, variables, keys, _merged(fixed, kwargs), streams)[0]


def _forward(runs, variables, keys, fixed, kwargs, streams):
  streams, notes = straight(runs, variables, keys, _merged(fixed, kwargs), streams)
  return streams, (variables, keys, fixed, kwargs, notes, streams)


def _backward(runs, residuals, grads):
  variables, keys, fixed, kwargs, notes, streams = residuals
  carry, of_variables = (streams, grads, jax.tree.map(jnp.zeros_like, kwargs)), []
  for run, *xs in zip(reversed(runs), *map(reversed, (variables, keys, notes)), strict=True):
    cycle = lambda carry, xs, run=run: _undone(run.branches, *xs, fixed, kwargs, carry)
    carry, of_run = jax.lax.scan(cycle, carry, tuple(xs), reverse=True) if run.scanned else cycle(carry, xs)
    of_variables.append(of_run)
  _, grads, of_kwargs = carry
  return tuple(reversed(of_variables)), None, None, of_kwargs, grads


def _undone(branches, tree, keys, notes, fixed, kwargs, carry):
  """Subtracts what the branches added, last first, and takes gradients through each."""
  streams, grads, of_kwargs = (list(carry[0]), list(carry[1]), carry[2])
  of_tree = jax.tree.map(jnp.zeros_like, tree)
  for i in reversed(range(len(branches))):
    read, written, key = 1 - i % 2, i % 2, None if keys is None else keys[i]
    # XLA would share this computation with the forward pass, and keep its intermediates until now.
    streams, grads, of_tree = jax.lax.optimization_barrier((streams, grads, of_tree))

    def call(tree, kwargs, x, i=i, key=key):
      return branches[i](tree, key, _merged(fixed, kwargs), x, notes[i])[0]

    y, pull = jax.vjp(call, tree, kwargs, streams[read])
    streams[written] = streams[written] - y
    more, more_kwargs, dx = pull(grads[written].astype(y.dtype))
    grads[read] = grads[read] + dx
    of_tree, of_kwargs = jax.tree.map(jnp.add, (of_tree, of_kwargs), (more, more_kwargs))
  return (tuple(streams), tuple(grads), of_kwargs), of_tree


_reversible.defvjp(_forward, _backward)


def reversible(runs, variables, keys, kwargs, streams):
  """`straight`, whose backward pass keeps only `streams`, its arguments and the notes; -> (first, second)

  Gradients flow to `variables`, to arrays of floats in `kwargs`, and to `streams`. Memory for the backward pass is that
  of one branch, whatever the depth.

  >>> run = Run((lambda w, key, kwargs, x, note: (jnp.sin(w * x), None),) * 2)
  >>> f = lambda pure, w: sum(pure((run,) * 3, (w,) * 3, (None,) * 3, {}, (jnp.ones(2), jnp.ones(2)))[0])
  >>> plain = lambda *arguments: straight(*arguments)[0]
  >>> bool(jnp.allclose(jax.jacrev(f, 1)(reversible, 2.0), jax.jacrev(f, 1)(plain, 2.0), atol=1e-5))
  True
  """
  real = lambda x: jnp.issubdtype(jnp.result_type(x), jnp.floating)
  fixed = jax.tree.map(lambda x: None if real(x) else x, kwargs)
  return _reversible(runs, variables, keys, fixed, jax.tree.map(lambda x: x if real(x) else None, kwargs), streams)


def _merged(fixed, kwargs):
  one = lambda a, b: b if a is None else a
  return jax.tree.map(one, fixed, kwargs, is_leaf=lambda x: x is None)


class ReversibleBlock(nn.Module):
  """A reversible block: first += attention(norm(second)), second += mlp(norm(first)).

  Args:
    attention, mlp, norm: the parts, copied to `self_attention`, `feed_forward`, `attention_norm`, `mlp_norm`. An
      attention with a method `noted` returns a note with its output, and gets it by the keyword `note` when the
      backward pass repeats the call. Choices that rounding could turn, such as hash buckets, belong in it, as the
      recomputed input is equal up to rounding; it should be small, since each layer keeps its own.
    dropout: rate at which entries of a branch's output are dropped.
  """

  attention: nn.Module
  mlp: nn.Module
  norm: nn.Module
  dropout: float = 0.0

  def setup(self):
    self.self_attention, self.feed_forward = self.attention.copy(), self.mlp.copy()
    self.attention_norm, self.mlp_norm = self.norm.copy(), self.norm.copy()
    self.attention_dropout, self.mlp_dropout = nn.Dropout(self.dropout), nn.Dropout(self.dropout)

  def __call__(self, streams, *, info=SequenceInfo(), train=False, **kwargs):
    """`Streams` -> `Streams`; keywords go to the attention."""
    y, _ = self.attend(streams.second, info=info, train=train, **kwargs)
    first = streams.first + y
    return Streams(first, streams.second + self.feed(first, train=train)[0])

  def attend(self, x, *, train=False, **kwargs):
    """What is added to the first stream: [batch, length, dim] -> [batch, length, dim], note or None"""
    y, note = _noted(self.self_attention, self.attention_norm(x), train=train, **kwargs)
    return self.attention_dropout(y, deterministic=not train), note

  def feed(self, x, *, train=False, **kwargs):
    """What is added to the second stream: [batch, length, dim] -> [batch, length, dim], None"""
    y = self.feed_forward(self.mlp_norm(x), train=train)
    return self.mlp_dropout(y, deterministic=not train), None


def _noted(part, x, **kwargs):
  """What a part computes, and its note, if it takes any."""
  return part.noted(x, **kwargs) if hasattr(part, "noted") else (part(x, **kwargs), None)


def reversible_stack(block, depth, *, scan=None):
  """A stack of `depth` reversible blocks, as `zoo.layers.stack.stack`, with the same names of parameters.

  Args:
    block: a `ReversibleBlock`, or a tuple of alternating ones.
    depth, scan: as there.
  """
  scan = depth >= max(SCAN_FROM, 2 * len(kinds_of(block))) if scan is None else scan
  return (ReversibleScannedStack if scan else ReversibleStack)(block, depth)


class ReversibleStack(Stack):
  """A loop of reversible blocks. Where outputs are captured or cached, a plain one with the same values."""

  def __call__(self, streams, *, train=False, **kwargs):
    """`Streams` -> `Streams`"""
    kinds = kinds_of(self.block)
    layers = [(kinds[i % len(kinds)], f"layer_{i}") for i in range(self.depth)]
    return _called(self, super().__call__, streams, [([layer], False) for layer in layers], train, kwargs)


class ReversibleScannedStack(ScannedStack):
  """A scan over reversible blocks. Where outputs are captured or cached, a plain one with the same values."""

  def __call__(self, streams, *, train=False, **kwargs):
    """`Streams` -> `Streams`"""
    kinds, cycles = kinds_of(self.block), self.depth // len(kinds_of(self.block))
    names = ["layers"] if len(kinds) == 1 else [f"layers/layer_{i}" for i in range(len(kinds))]
    runs = [(list(zip(kinds, names, strict=True)), True)] if cycles else []
    runs += [([(kinds[i % len(kinds)], f"layer_{i}")], False) for i in range(cycles * len(kinds), self.depth)]
    return _called(self, super().__call__, streams, runs, train, kwargs)


def _called(stack, plain, streams, runs, train, kwargs):
  """Calls a stack: its blocks' branches as pure functions of their variables, or all of it as Linen does.

  Args:
    stack: the module, whose parameters are used.
    plain: the call of its class without reversible layers.
    runs: ([(block, its path in the stack's parameters)], whether they are scanned) of each `Run`.
  """
  wide = jnp.promote_types(jnp.result_type(*streams), jnp.float32)  # In fewer bits sums could not be undone.
  streams = Streams(*(x.astype(wide) for x in streams))
  seen = any(map(stack.is_mutable_collection, ("cache", "intermediates")))
  if stack.is_initializing() or seen or set(stack.variables) - {"params"}:
    return plain(streams, train=train, **kwargs)
  params, variables, keys = stack.variables["params"], [], []
  for layers, scanned in runs:
    tree = {path: functools.reduce(lambda inside, name: inside[name], path.split("/"), params) for _, path in layers}
    shape = (*([jax.tree.leaves(tree)[0].shape[0]] if scanned else []), 2 * len(layers))
    variables.append(tree)
    keys.append(jax.random.split(stack.make_rng("dropout"), shape) if train and stack.has_rng("dropout") else None)
  branches = [
    Run(
      tuple(_branch(block, path, stack.path, method, train) for block, path in layers for method in ("attend", "feed")),
      scanned,
    )
    for layers, scanned in runs
  ]
  return Streams(*reversible(tuple(branches), tuple(variables), tuple(keys), kwargs, tuple(streams)))


def _branch(block, path, stack_path, method, train):
  """A method of a block as a pure function, at the block's own path: hooks on modules' outputs know it by that."""
  place = (*stack_path, *path.split("/"))

  def call(variables, key, kwargs, x, note):
    scope = Scope({"params": variables[path]}, rngs=None if key is None else {"dropout": key}, path=place)
    kwargs = kwargs if note is None else {**kwargs, "note": note}
    return getattr(block.clone(parent=scope, name=None), method)(x, train=train, **kwargs)

  return call
