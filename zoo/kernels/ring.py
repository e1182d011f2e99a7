"""Ring attention: sequences are sharded over devices, and blocks of keys and values rotate around the ring.

Ring Attention, https://arxiv.org/abs/2310.01889, section 3, with the softmax of blocks of
https://arxiv.org/abs/2205.14135: what is known of a query's softmax is its largest logit, the sum of exponentials and
the sum of values, in float32, and each block of keys adds to that. The backward pass makes the weights again, from the
logarithm of that sum; keys and values go around once more, and their gradients with them.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from zoo.kernels.per_device import Unsupported, pad_to_multiple, rows_and_heads
from zoo.layers.masks import Visibility
from zoo.sharding import axes_of

AXIS = "sequence"  # Of the mesh, around which they go.
BLOCK = 512  # Keys at the same time, at most: so many logits of every query and head exist.
LEAST = float(jnp.finfo(jnp.float32).min)


def ring(query, key, value, visibility, bias, scale, mesh: Mesh, *, block: int = BLOCK) -> jax.Array:
  """As `dense_attention`, values and gradients. A device holds two devices' keys, and logits of `block` of them.

  Any rule, padding, texts that share a row and positions do: what a rule looks at travels with the keys. Blocks that
  none of a device's queries sees are passed on without work; with a causal rule the first device has the least, and all
  wait for the last. A bias stays where the queries are, with all its keys. Lengths that do not divide are filled up.

  Args:
    query, key, value: [batch, length, heads, head_dim]; rows lie over the axes that `zoo.sharding.batch_sharding`
      names, heads over "model", lengths over "sequence".
    visibility: `zoo.layers.masks.Visibility`.
    bias: broadcastable to [batch, heads, queries, keys], or None.
    scale: multiplies the logits.
    mesh: with an axis "sequence".
    block: how many keys a device compares with its queries at the same time.

  Raises:
    Unsupported: rows or heads do not divide over their axes, or there are fewer tokens than devices.
  """
  batch, queries, heads = query.shape[:3]
  devices, keys = mesh.shape[AXIS], key.shape[1]
  if min(queries, keys) < devices:
    raise Unsupported(f"{queries} queries see {keys} keys, fewer than the {devices} devices of mesh axis '{AXIS}'")
  of_rows, of_heads = rows_and_heads(query, key, mesh)
  keys_per_device = -(-keys // devices)
  blocks = -(-keys_per_device // block)
  size = -(-keys_per_device // blocks)
  filled = devices * blocks * size
  of_query, of_key = _marks(visibility, keys, filled)
  of_query, of_key = (
    {name: pad_to_multiple(x, n, 1) for name, x in marks.items()}
    for marks, n in ((of_query, devices), (of_key, filled))
  )
  numbers = pad_to_multiple(query, devices, 1), pad_to_multiple(key, filled, 1), pad_to_multiple(value, filled, 1)
  if bias is not None:
    bias = jnp.broadcast_to(bias, (*(1, 1, 1, 1, *bias.shape)[-4:-2], queries, keys))
    numbers += (pad_to_multiple(pad_to_multiple(bias, devices, 2), filled, 3),)

  lies = P(of_rows, AXIS, of_heads, None)
  split = lambda x, axis, over, whole: over if x.shape[axis] == whole else None
  specs = (lies, lies, lies)
  alike: tuple = ()
  if bias is not None:
    places = split(bias, 0, of_rows, batch), split(bias, 1, of_heads, heads)
    alike = tuple(axis for all_of, some in zip((of_rows, of_heads), places) for axis in axes_of(all_of) if some is None)
    specs += (P(*places, AXIS, None),)
  of_marks = jax.tree.map(lambda x: P(split(x, 0, of_rows, batch), AXIS), (of_query, of_key))
  sums = P(of_rows, of_heads, None, AXIS, None)
  turns = Turns(visibility.rule, scale, keys, size, devices, alike)

  def on_devices(function: Callable, in_specs: tuple, out_specs: tuple) -> Callable:
    # Nothing differentiates through it (custom_vjp), so replication need not be tracked.
    return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)

  forward = on_devices(turns.forward, (specs, of_marks), (lies, sums))
  backward = on_devices(turns.backward, (specs, of_marks, lies, sums, lies), specs)

  @jax.custom_vjp
  def run(numbers: tuple, marks: tuple) -> jax.Array:
    return forward(numbers, marks)[0]

  def keep(numbers: tuple, marks: tuple) -> tuple:
    y, log_sum = forward(numbers, marks)
    return y, (numbers, marks, y, log_sum)

  run.defvjp(keep, lambda residuals, slope: (backward(*residuals, slope), None))
  return run(numbers, (of_query, of_key))[:, :queries]


def _marks(visibility: Visibility, keys: int, filled: int) -> tuple[dict, dict]:
  """Mask inputs of queries and of keys: arrays [batch or 1, length] by name; empty where nothing is masked."""
  rule, query_positions, key_positions, valid, of_query, of_key, _ = visibility
  if valid is None and filled > keys:
    valid = jnp.ones((1, keys), bool)
  marks = {}, {} if valid is None else {"valid": valid.astype(bool)}
  pairs = {"positions": (query_positions, key_positions)} if rule is not None else {}
  if of_query is not None and of_key is not None:
    pairs["segments"] = of_query, of_key
  for name, both in pairs.items():
    for side, array in zip(marks, both):
      side[name] = array
  return marks


@dataclasses.dataclass(frozen=True)
class Turns:
  """The per-device program of ring attention, on its shards of all arrays.

  Queries are [batch, queries, kv_heads, heads of the query that share one, head_dim] in here, logits [batch, kv_heads,
  heads that share one, queries, keys], and what travels has its blocks in front.

  Args:
    rule: of `Visibility`. scale: multiplies the logits.
    keys: of all devices, those that are real.
    size: of a block.
    devices: that take turns.
    alike: axes of the mesh along which devices have the same part of the bias.
  """

  rule: Callable | None
  scale: float
  keys: int
  size: int
  devices: int
  alike: tuple

  def forward(self, numbers: tuple, marks: tuple[dict, dict]) -> tuple[jax.Array, jax.Array]:
    """-> the output, as the query is, and the logarithms of the sums of exponentials; inf where no key is seen."""
    # Who sees whom is the same in all layers: for a scan over them JAX would find it out once, and keep all of it.
    numbers, marks = jax.lax.optimization_barrier((numbers, marks))
    query, key, value, *biases = numbers
    query = grouped(query, key)
    logits_of = self._logits(query, *biases)

    def see(state: tuple, index: jax.Array, part: dict, seen: jax.Array | None) -> tuple[tuple, tuple]:
      largest, total, y = state
      logits = logits_of(index, part, seen)
      new = jnp.maximum(largest, logits.max(-1, keepdims=True))
      weights = hidden(jnp.exp(logits - new), seen)
      before = jnp.exp(largest - new)
      more = product("bngqk,bknd->bngqd", weights.astype(value.dtype), part["value"])
      return (new, total * before + weights.sum(-1, keepdims=True), y * before + more), ()

    def meet(state: tuple, part: dict, gained: tuple, owner: jax.Array) -> tuple[tuple, tuple]:
      return self._by_blocks(see, state, part, marks[0], owner)[0], gained

    shape = batch, kv_heads, group, queries, _ = *(query.shape[i] for i in (0, 2, 3, 1)), 1
    start = jnp.full(shape, LEAST), jnp.zeros(shape), jnp.zeros((*shape[:4], value.shape[-1]))
    (largest, total, y), _ = self._around(meet, start, self._part(key, value, marks[1]), ())
    blind = total == 0
    y, log_sum = y / jnp.where(blind, 1, total), jnp.where(blind, jnp.inf, largest + jnp.log(total))
    if marks[1]:
      mean = jax.lax.psum(value.sum(1, dtype=jnp.float32), AXIS) / self.keys
      y = jnp.where(blind, mean[:, :, None, None], y)
    return y.transpose(0, 3, 1, 2, 4).reshape(batch, queries, kv_heads * group, -1).astype(value.dtype), log_sum

  def backward(self, numbers: tuple, marks: tuple[dict, dict], y, log_sum, slope) -> tuple:
    """The gradients with respect to `numbers`, from the output's."""
    query, key, value, *biases = numbers
    d_y, query = grouped(slope, key), grouped(query, key)
    logits_of = self._logits(query, *biases)
    # What every weight loses as the weights of a query sum to 1.
    shared = (grouped(y, key).astype(jnp.float32) * d_y).sum(-1).transpose(0, 2, 3, 1)[..., None]

    def see(d_query: jax.Array, index: jax.Array, part: dict, seen: jax.Array | None) -> tuple[jax.Array, tuple]:
      weights = hidden(jnp.exp(logits_of(index, part, seen) - log_sum), seen)
      d_value = product("bngqk,bqngd->bknd", weights.astype(d_y.dtype), d_y)
      d_logits = weights * (product("bqngd,bknd->bngqk", d_y, part["value"]) - shared)
      scaled = (d_logits * self.scale).astype(key.dtype)
      d_key = product("bngqk,bqngd->bknd", scaled, query)
      gradients = d_key, d_value, *(_summed(d_logits, bias) for bias in biases)
      return d_query + product("bngqk,bknd->bqngd", scaled, part["key"]), gradients

    def meet(state: tuple, part: dict, gained: tuple, owner: jax.Array) -> tuple[tuple, tuple]:
      d_query, *d_biases = state
      d_query, (d_key, d_value, *gradients) = self._by_blocks(see, d_query, part, marks[0], owner)
      for i, one in enumerate(gradients):
        whole = jnp.moveaxis(one, 0, 3).reshape(*one.shape[1:4], -1)
        d_biases[i] = jax.lax.dynamic_update_slice_in_dim(d_biases[i], whole, owner * whole.shape[3], 3)
      return (d_query, *d_biases), (gained[0] + d_key, gained[1] + d_value)

    start = tuple(jnp.zeros(x.shape) for x in (query, *biases))
    part = self._part(key, value, marks[1])
    nothing = tuple(jnp.zeros(part[name].shape) for name in ("key", "value"))
    (d_query, *d_biases), gained = self._around(meet, start, part, nothing)
    d_key, d_value = (jnp.moveaxis(x, 0, 1).reshape(key.shape) for x in gained)
    if marks[1]:
      blind = jnp.isposinf(log_sum).transpose(0, 3, 1, 2, 4)
      mean = jax.lax.psum(jnp.where(blind, d_y, 0).sum((1, 3), dtype=jnp.float32), AXIS) / self.keys
      d_value += mean[:, None]
    if self.alike:
      d_biases = jax.lax.psum(d_biases, self.alike)
    gradients = d_query.reshape(slope.shape), d_key, d_value, *d_biases
    return tuple(gradient.astype(number.dtype) for gradient, number in zip(gradients, numbers, strict=True))

  def _around(self, meet: Callable, state: Any, part: Any, gained: Any) -> tuple[Any, Any]:
    """state, gained = meet(state, part, gained, owner) with every device's part -> state, and what one's own gained."""
    here, onward = jax.lax.axis_index(AXIS), [(i, (i + 1) % self.devices) for i in range(self.devices)]
    send = lambda tree: jax.tree.map(lambda x: jax.lax.ppermute(x, AXIS, onward), tree)

    def turn(carry: tuple, number: jax.Array) -> tuple[tuple, None]:
      state, part, gained = carry
      following = send(part)  # Before the work, so that it travels while that is done.
      state, gained = meet(state, part, gained, (here - number) % self.devices)
      return (state, following, send(gained)), None

    (state, part, gained), _ = jax.lax.scan(turn, (state, part, gained), jnp.arange(self.devices - 1))
    state, gained = meet(state, part, gained, (here + 1) % self.devices)
    return state, send(gained)

  def _part(self, key: jax.Array, value: jax.Array, marks: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """What travels, [blocks, batch or 1, size, ...] each."""
    split = lambda x: jnp.moveaxis(x.reshape(len(x), -1, self.size, *x.shape[2:]), 1, 0)
    return {name: split(x) for name, x in {"key": key, "value": value, **marks}.items()}

  def _by_blocks(self, see: Callable, state: Any, part: dict, of_query: dict, owner: jax.Array) -> tuple[Any, tuple]:
    """state, found = see(state, index, block, who is seen), block by block -> state, and all that was found."""

    def one(state: Any, numbered: tuple) -> tuple[Any, tuple]:
      index, part = numbered
      marks: list[Any] = [of_query.get("positions"), *(part.get(name) for name in ("positions", "valid"))]
      mask = Visibility(self.rule, *marks, of_query.get("segments"), part.get("segments")).array()
      look = lambda: see(state, index, part, None if mask is None else mask[:, :, None])
      if mask is None:
        return look()
      none = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(look)[1])
      return jax.lax.cond(mask.any(), look, lambda: (state, none))

    blocks = len(part["key"])
    return jax.lax.scan(one, state, (owner * blocks + jnp.arange(blocks), part))

  def _logits(self, query: jax.Array, bias: jax.Array | None = None) -> Callable:
    def logits_of(index: jax.Array, part: dict, seen: jax.Array | None) -> jax.Array:
      logits = product("bqngd,bknd->bngqk", query, part["key"]) * self.scale
      if bias is not None:
        block_bias = jax.lax.dynamic_slice_in_dim(bias, index * self.size, self.size, 3).astype(jnp.float32)
        of_heads = query.shape[2:4] if block_bias.shape[1] > 1 else (1, 1)
        logits += block_bias.reshape(len(block_bias), *of_heads, *block_bias.shape[2:])
      return logits if seen is None else jnp.where(seen, logits, LEAST)

    return logits_of


def product(dimensions: str, *arrays: jax.Array) -> jax.Array:
  """`jnp.einsum` with float32 accumulation and result."""
  return jnp.einsum(dimensions, *arrays, preferred_element_type=jnp.float32)


def hidden(weights: jax.Array, seen: jax.Array | None) -> jax.Array:
  """Zeroes the weights of masked keys."""
  return weights if seen is None else jnp.where(seen, weights, 0)


def grouped(array: jax.Array, key: jax.Array) -> jax.Array:
  """[batch, queries, heads, head_dim] -> [batch, queries, kv_heads, heads that share one, head_dim]"""
  batch, queries, _, head_dim = array.shape
  return array.reshape(batch, queries, key.shape[2], -1, head_dim)


def _summed(d_logits: jax.Array, bias: jax.Array) -> jax.Array:
  """[batch, kv_heads, heads that share one, queries, keys], over what a bias is the same for: as the bias is."""
  whole = d_logits.reshape(len(d_logits), -1, *d_logits.shape[3:])
  return whole.sum([axis for axis in (0, 1) if bias.shape[axis] == 1], keepdims=True)
