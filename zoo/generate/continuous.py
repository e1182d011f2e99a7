"""Continuous batching: rows whose text has ended make room for the next prompts.

Prompts are read longest first, in groups padded to few lengths; the caches are as long as the longest prompt that is
still to come needs them, so that a few compiled programs serve all. https://www.usenix.org/conference/osdi22/presentation/yu
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from zoo.errors import UserError
from zoo.generate import checks, rules, slots
from zoo.generate.prepared import prepared
from zoo.generate.prompts import Settings, bucket
from zoo.generate.starts import first_tokens
from zoo.generate.steps import encodes, with_caches_for
from zoo.sharding import mesh_of


class Request(NamedTuple):
  """A prompt, and how it is to be continued.

  number: which one it is; draws follow from it.
  tokens: of the prompt, or of what an encoder-decoder answers.
  max_new_tokens: how many tokens at most.
  """

  number: int
  tokens: Sequence[int]
  max_new_tokens: int


class Answer(NamedTuple):
  """A result: the request's number, the new tokens, and whether the text ended before its limit."""

  number: int
  tokens: list[int]
  ended: bool


def continuous(
  model: Any,
  params: Any,
  requests: Iterable[Request],
  *,
  longest: int,
  max_new_tokens: int,
  batch_size: int = 32,
  temperature: float = 0.0,
  top_k: int | None = None,
  top_p: float | None = None,
  min_p: float | None = None,
  eos: int | Sequence[int] | None = None,
  stop: Sequence[Sequence[int]] = (),
  pad: int | None = None,
  rng: Any = None,
  start_token: int | Sequence[int] | None = None,
  cache_dtype: str | None = None,
  **constraints: Unpack[rules.Constraints],
) -> Iterator[Answer]:
  """Answers requests in the order in which they end; each as `generate` would alone, with `fold_in(rng, number)`.

  Args:
    model, params: as of `generate`; parameters may be sharded over a mesh, whose axis `data` then splits the rows.
    requests: the longest prompts first. They are taken when there is room for them.
    longest: tokens of the longest prompt.
    max_new_tokens: the largest of all requests.
    batch_size: texts at a time.
    temperature, top_k, top_p, min_p, eos, stop, pad, rng, start_token, cache_dtype, constraints: as of `generate`.

  Raises:
    UserError: the model does not decode, a request exceeds a limit, or an argument is out of its range.

  >>> import zoo
  >>> model = zoo.build("gpt", vocab_size=7, max_length=8, dim=8, depth=1, num_heads=2)
  >>> params = model.init(jax.random.key(0), *model.example())["params"]
  >>> requests = [Request(0, [1, 2, 3], 2), Request(1, [4], 3)]
  >>> answers = continuous(model, params, requests, longest=3, max_new_tokens=3)
  >>> sorted((answer.number, len(answer.tokens)) for answer in answers)
  [(0, 2), (1, 3)]
  """
  checks.decodes(model)
  checks.cache_dtype_is_known(cache_dtype)
  checks.numbers(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, rng=rng)
  checks.constraints_fit(model, constraints)
  checks.number("batch_size", batch_size, integer=True, minimum=1)
  settings = Settings.of(
    model, max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, min_p=min_p, eos=eos, stop=stop,
    pad=pad, rng=rng, constraints=constraints,
  )  # fmt: skip
  static = {"top_k": None if top_k is None else min(top_k, model.vocab_size), "greedy": temperature == 0}
  return _Batch(model, params, settings, static, longest, max_new_tokens, batch_size, start_token, cache_dtype).run(
    iter(requests)
  )


class _Batch:
  """The slots, and on the host what is in them."""

  def __init__(self, model, params, settings, static, longest, max_new_tokens, size, start_token, cache_dtype):
    self.model, self.params, self.settings = model, params, settings
    self.encodes, self.start_token = encodes(model), start_token
    self.start = 1 if not isinstance(start_token, Sequence) else len(start_token)
    checks.length_fits(model, self.start if self.encodes else longest, max_new_tokens)
    self.source_limit = model.encoder.max_length if self.encodes else model.max_length
    self.static = static | {"room": bucket(max_new_tokens, model.max_length)}
    self.mesh = mesh_of(params)
    self.size, self.group = size, max(1, size // 8)
    self.columns = self._columns(longest)
    # The kind of a layer's cache stays, whatever its length is later.
    self.reads, self.steps = prepared(with_caches_for(model, self.columns["columns"], cache_dtype), params)
    self.requests: list[Any] = [None] * size  # The Request in each slot.
    self.slots: Any = None

  def run(self, requests: Iterator[Request]) -> Iterator[Answer]:
    """See `continuous`."""
    waiting = next(requests, None)
    while waiting is not None or any(self.requests):
      free = [row for row, request in enumerate(self.requests) if request is None]
      self._narrow(waiting)
      while waiting is not None and len(free) >= self.group:  # A smaller group would cost as much as a full one.
        group = []
        while waiting is not None and len(group) < self.group:
          group.append(waiting)
          waiting = next(requests, None)
        self._join(group, [free.pop(0) for _ in group])
      wanted = self.group if waiting is not None else self.size
      self.slots = slots.advance(*self.steps, self.slots, self.settings, jnp.int32(wanted), **self.static)
      yield from self._ended()

  def _join(self, group, rows):
    """Reads the prompts of `group` into the slots `rows`."""
    longest = max(len(request.tokens) for request in group)
    if longest > self.columns["longest"] or max(request.max_new_tokens for request in group) > self.static["room"]:
      raise UserError("A request is longer than `longest` and `max_new_tokens` say. Give the largest of all.")
    shape = (self.group, bucket(longest, self.source_limit))
    tokens, valid = np.zeros(shape, np.int32), np.zeros(shape, bool)
    for row, request in enumerate([*group, *group[:1] * (self.group - len(group))]):
      tokens[row, : len(request.tokens)], valid[row, : len(request.tokens)] = request.tokens, True
    inputs = self._put({"tokens": tokens, "valid": valid})
    if self.encodes:
      inputs |= self._starts(inputs)
    filled = lambda values, value: np.array([*values, *[value] * (self.group - len(values))], np.int32)
    numbers = filled([request.number for request in group], 0)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(self.settings.rng, numbers)
    limit = filled([request.max_new_tokens for request in group], 1)
    if self.slots is None:
      args = (*self.reads, inputs, limit, keys, self.settings)
      shapes = jax.eval_shape(lambda *args: slots.first(self.reads[0], *args, **self.static), *args[1:])
      self.slots = self._place(slots.empty(shapes, self.size, **self._shape()))
    place = filled(rows, self.size)  # No such slot: dropped.
    self.slots = slots.join(*self.reads, self.slots, inputs, place, limit, keys, self.settings, **self.static)
    for row, request in zip(rows, group, strict=True):
      self.requests[row] = request

  def _starts(self, inputs):
    """The start tokens of an encoder-decoder's answers."""
    batch = inputs["tokens"].shape[0]
    if self.start_token is None:
      tokens = jnp.full((batch, 1), self.model.start_token, jnp.int32)
    else:
      tokens, _ = first_tokens(self.model, self.params, inputs["tokens"], inputs["valid"], self.start_token)
    return {"decoder_tokens": tokens, "decoder_valid": jnp.ones(tokens.shape, bool)}

  def _ended(self) -> Iterator[Answer]:
    """The answers of the slots whose text has ended, which are free then."""
    done, count = np.asarray(self.slots.done), np.asarray(self.slots.count)
    rows = [row for row, request in enumerate(self.requests) if request is not None and done[row]]
    if not rows:
      return
    new = np.asarray(self.slots.text)[:, -self.static["room"] :]
    ended = np.asarray(self.slots.ended)
    for row in rows:
      request, self.requests[row] = self.requests[row], None
      yield Answer(request.number, new[row, : count[row]].tolist(), bool(ended[row]))

  def _columns(self, longest):
    """Sizes that hold a prompt of so many tokens."""
    padded = bucket(longest, self.source_limit)
    prompt = self.start if self.encodes else padded
    sizes = {"columns": prompt + self.static["room"], "text_columns": prompt + self.static["room"]}
    return sizes | {"source_columns": padded if self.encodes else 0, "longest": longest}

  def _shape(self):
    return {name: size for name, size in self.columns.items() if name != "longest"}

  def _narrow(self, waiting):
    """Shortens the caches where neither the prompts to come nor those in the slots need their length."""
    if self.slots is None:
      return
    live = [len(request.tokens) for request in [*self.requests, waiting] if request is not None]
    sizes = self._columns(max(live))
    if sizes["columns"] + sizes["source_columns"] < self.columns["columns"] + self.columns["source_columns"]:
      self.columns = sizes
      self.slots = self._place(slots.narrowed(self.slots, **self._shape()))

  def _put(self, arrays):
    """A few rows, on all devices."""
    if self.mesh is None:
      return {name: jnp.asarray(array) for name, array in arrays.items()}
    return jax.device_put(arrays, NamedSharding(self.mesh, PartitionSpec()))

  def _place(self, state):
    """The slots, divided over the axis `data` of a mesh where they divide."""
    mesh = self.mesh
    if mesh is None:
      return state
    parts = mesh.shape.get("data", 1)
    rows = lambda x: PartitionSpec("data") if x.ndim and parts > 1 and self.size % parts == 0 else PartitionSpec()
    return jax.device_put(state, jax.tree.map(lambda x: NamedSharding(mesh, rows(x)), state))
