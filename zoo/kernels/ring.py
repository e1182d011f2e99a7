"""Ring attention: sequences are sharded over devices, and blocks of keys and values rotate around the ring.

Ring Attention, https://arxiv.org/abs/2310.01889, section 3, with the blockwise softmax of
https://arxiv.org/abs/2205.14135: the state of a query is its largest logit, the sum of exponentials and the weighted
sum of values, in float32, which each block of keys updates. The backward pass recomputes the weights from the
logsumexp; keys and values rotate once more, together with their gradients.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from zoo.kernels.per_device import Unsupported, pad_to_multiple, rows_and_heads
from zoo.layers.masks import AttentionMask
from zoo.layers.patterns import Pattern
from zoo.sharding import axes_of

AXIS = "sequence"  # Mesh axis of the ring.
BLOCK = 512  # Largest number of keys per block, i.e. of logits per query and head at a time.
LEAST = float(jnp.finfo(jnp.float32).min)


def ring(query, key, value, mask, bias, scale, mesh: Mesh, *, block: int = BLOCK) -> jax.Array:
  """Ring attention, equal to `dense_attention` in values and gradients.

  A device holds the keys of two devices, and logits of `block` keys at a time. All mask rules, padding, packing and
  positions are supported: the inputs of the mask rotate with the keys.
  Blocks that are masked for all queries of a device are skipped; with a causal rule the first device has the least
  work, and all wait for the last. A bias stays with the queries, for all keys. Lengths are padded if necessary.

  Args:
    query, key, value: [batch, length, heads, head_dim]; rows are sharded as by `zoo.sharding.batch_sharding`, heads
      over "model", lengths over "sequence".
    mask: `zoo.layers.masks.AttentionMask`.
    bias: broadcastable to [batch, heads, queries, keys], or None.
    scale: multiplies the logits.
    mesh: with an axis "sequence".
    block: number of keys that a device compares with its queries at a time.

  Raises:
    Unsupported: rows or heads do not divide over their axes, or there are fewer tokens than devices.
  """
  batch, queries, heads = query.shape[:3]
  devices, keys = mesh.shape[AXIS], key.shape[1]
  if mask.global_keys is not None:
    raise Unsupported("its global tokens are inputs, of which ring attention knows nothing")
  if isinstance(mask.rule, Pattern) and mask.rule.heads is not None:
    raise Unsupported("its heads have patterns of their own")
  if min(queries, keys) < devices:
    raise Unsupported(f"{queries} queries see {keys} keys, fewer than the {devices} devices of mesh axis '{AXIS}'")
  of_rows, of_heads = rows_and_heads(query, key, mesh)
  keys_per_device = -(-keys // devices)
  blocks = -(-keys_per_device // block)
  size = -(-keys_per_device // blocks)
  filled = devices * blocks * size
  of_query, of_key = _mask_arrays(mask, keys, filled)
  of_query, of_key = (
    {name: pad_to_multiple(x, n, 1) for name, x in mask_arrays.items()}
    for mask_arrays, n in ((of_query, devices), (of_key, filled))
  )
  arrays = pad_to_multiple(query, devices, 1), pad_to_multiple(key, filled, 1), pad_to_multiple(value, filled, 1)
  if bias is not None:
    bias = jnp.broadcast_to(bias, (*(1, 1, 1, 1, *bias.shape)[-4:-2], queries, keys))
    arrays += (pad_to_multiple(pad_to_multiple(bias, devices, 2), filled, 3),)

  spec = P(of_rows, AXIS, of_heads, None)
  split = lambda x, axis, over, whole: over if x.shape[axis] == whole else None
  specs = (spec, spec, spec)
  bias_axes: tuple = ()
  if bias is not None:
    bias_spec = split(bias, 0, of_rows, batch), split(bias, 1, of_heads, heads)
    bias_axes = tuple(
      axis for all_of, some in zip((of_rows, of_heads), bias_spec) for axis in axes_of(all_of) if some is None
    )
    specs += (P(*bias_spec, AXIS, None),)
  of_marks = jax.tree.map(lambda x: P(split(x, 0, of_rows, batch), AXIS), (of_query, of_key))
  sums = P(of_rows, of_heads, None, AXIS, None)
  rule = mask.rule.at(keys) if isinstance(mask.rule, Pattern) else mask.rule
  shard = RingShard(rule, scale, keys, size, devices, bias_axes)

  def on_devices(function: Callable, in_specs: tuple, out_specs: tuple) -> Callable:
    # Nothing differentiates through it (custom_vjp), so replication need not be tracked.
    return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)

  forward = on_devices(shard.forward, (specs, of_marks), (spec, sums))
  backward = on_devices(shard.backward, (specs, of_marks, spec, sums, spec), specs)

  @jax.custom_vjp
  def run(arrays: tuple, mask_arrays: tuple) -> jax.Array:
    return forward(arrays, mask_arrays)[0]

  def forward_with_residuals(arrays: tuple, mask_arrays: tuple) -> tuple:
    y, log_sum = forward(arrays, mask_arrays)
    return y, (arrays, mask_arrays, y, log_sum)

  run.defvjp(forward_with_residuals, lambda residuals, cotangent: (backward(*residuals, cotangent), None))
  return run(arrays, (of_query, of_key))[:, :queries]


def _mask_arrays(mask: AttentionMask, keys: int, filled: int) -> tuple[dict, dict]:
  """Mask inputs of queries and of keys: arrays [batch or 1, length] by name; empty where nothing is masked."""
  rule, query_positions, key_positions, valid, of_query, of_key, *_ = mask
  if valid is None and filled > keys:
    valid = jnp.ones((1, keys), bool)
  mask_arrays = {}, {} if valid is None else {"valid": valid.astype(bool)}
  pairs = {"positions": (query_positions, key_positions)} if rule is not None else {}
  if of_query is not None and of_key is not None:
    pairs["segments"] = of_query, of_key
  for name, both in pairs.items():
    for side, array in zip(mask_arrays, both):
      side[name] = array
  return mask_arrays


@dataclasses.dataclass(frozen=True)
class RingShard:
  """The per-device program of ring attention, on its shards of all arrays.

  Queries are [batch, queries, kv_heads, heads per kv_head, head_dim] in here, logits [batch, kv_heads, heads per
  kv_head, queries, keys], and the rotating arrays have a leading axis of blocks.

  Args:
    rule: of the `AttentionMask`. scale: multiplies the logits.
    keys: number of keys on all devices, without padding.
    size: keys per block.
    devices: on the ring.
    bias_axes: mesh axes along which the bias is replicated.
  """

  rule: Callable | None
  scale: float
  keys: int
  size: int
  devices: int
  bias_axes: tuple

  def forward(self, arrays: tuple, mask_arrays: tuple[dict, dict]) -> tuple[jax.Array, jax.Array]:
    """-> the output, in the shape of the query, and the logsumexp; inf where all keys are masked."""
    # The mask is the same in all layers: for a scan over layers XLA would hoist it, and keep all of it in memory.
    arrays, mask_arrays = jax.lax.optimization_barrier((arrays, mask_arrays))
    query, key, value, *biases = arrays
    query = grouped(query, key)
    logits_of = self._logits(query, *biases)

    def add_block(state: tuple, index: jax.Array, part: dict, visible: jax.Array | None) -> tuple[tuple, tuple]:
      largest, total, y = state
      logits = logits_of(index, part, visible)
      new = jnp.maximum(largest, logits.max(-1, keepdims=True))
      weights = zero_masked(jnp.exp(logits - new), visible)
      before = jnp.exp(largest - new)
      more = product("bngqk,bknd->bngqd", weights.astype(value.dtype), part["value"])
      return (new, total * before + weights.sum(-1, keepdims=True), y * before + more), ()

    def visit(state: tuple, part: dict, key_grads: tuple, owner: jax.Array) -> tuple[tuple, tuple]:
      return self._scan_blocks(add_block, state, part, mask_arrays[0], owner)[0], key_grads

    shape = batch, kv_heads, group, queries, _ = *(query.shape[i] for i in (0, 2, 3, 1)), 1
    start = jnp.full(shape, LEAST), jnp.zeros(shape), jnp.zeros((*shape[:4], value.shape[-1]))
    (largest, total, y), _ = self._rotate(visit, start, self._part(key, value, mask_arrays[1]), ())
    fully_masked = total == 0
    y, log_sum = y / jnp.where(fully_masked, 1, total), jnp.where(fully_masked, jnp.inf, largest + jnp.log(total))
    if mask_arrays[1]:
      mean = jax.lax.psum(value.sum(1, dtype=jnp.float32), AXIS) / self.keys
      y = jnp.where(fully_masked, mean[:, :, None, None], y)
    return y.transpose(0, 3, 1, 2, 4).reshape(batch, queries, kv_heads * group, -1).astype(value.dtype), log_sum

  def backward(self, arrays: tuple, mask_arrays: tuple[dict, dict], y, log_sum, cotangent) -> tuple:
    """The gradients with respect to `arrays`, from the output's."""
    query, key, value, *biases = arrays
    d_y, query = grouped(cotangent, key), grouped(query, key)
    logits_of = self._logits(query, *biases)
    # The softmax term of the gradient: sum over keys of weight * its gradient.
    shared = (grouped(y, key).astype(jnp.float32) * d_y).sum(-1).transpose(0, 2, 3, 1)[..., None]

    def block_gradients(
      d_query: jax.Array, index: jax.Array, part: dict, visible: jax.Array | None
    ) -> tuple[jax.Array, tuple]:
      weights = zero_masked(jnp.exp(logits_of(index, part, visible) - log_sum), visible)
      d_value = product("bngqk,bqngd->bknd", weights.astype(d_y.dtype), d_y)
      d_logits = weights * (product("bqngd,bknd->bngqk", d_y, part["value"]) - shared)
      scaled = (d_logits * self.scale).astype(key.dtype)
      d_key = product("bngqk,bqngd->bknd", scaled, query)
      gradients = d_key, d_value, *(_summed(d_logits, bias) for bias in biases)
      return d_query + product("bngqk,bknd->bqngd", scaled, part["key"]), gradients

    def visit(state: tuple, part: dict, key_grads: tuple, owner: jax.Array) -> tuple[tuple, tuple]:
      d_query, *d_biases = state
      d_query, (d_key, d_value, *gradients) = self._scan_blocks(block_gradients, d_query, part, mask_arrays[0], owner)
      for i, gradient_of_bias in enumerate(gradients):
        full = jnp.moveaxis(gradient_of_bias, 0, 3).reshape(*gradient_of_bias.shape[1:4], -1)
        d_biases[i] = jax.lax.dynamic_update_slice_in_dim(d_biases[i], full, owner * full.shape[3], 3)
      return (d_query, *d_biases), (key_grads[0] + d_key, key_grads[1] + d_value)

    start = tuple(jnp.zeros(x.shape) for x in (query, *biases))
    part = self._part(key, value, mask_arrays[1])
    zeros = tuple(jnp.zeros(part[name].shape) for name in ("key", "value"))
    (d_query, *d_biases), key_grads = self._rotate(visit, start, part, zeros)
    d_key, d_value = (jnp.moveaxis(x, 0, 1).reshape(key.shape) for x in key_grads)
    if mask_arrays[1]:
      fully_masked = jnp.isposinf(log_sum).transpose(0, 3, 1, 2, 4)
      mean = jax.lax.psum(jnp.where(fully_masked, d_y, 0).sum((1, 3), dtype=jnp.float32), AXIS) / self.keys
      d_value += mean[:, None]
    if self.bias_axes:
      d_biases = jax.lax.psum(d_biases, self.bias_axes)
    gradients = d_query.reshape(cotangent.shape), d_key, d_value, *d_biases
    return tuple(gradient.astype(number.dtype) for gradient, number in zip(gradients, arrays, strict=True))

  def _rotate(self, visit: Callable, state: Any, part: Any, key_grads: Any) -> tuple[Any, Any]:
    """state, key_grads = visit(state, part, key_grads, owner) with every device's part -> state, own key_grads."""
    index, to_next = jax.lax.axis_index(AXIS), [(i, (i + 1) % self.devices) for i in range(self.devices)]
    send = lambda tree: jax.tree.map(lambda x: jax.lax.ppermute(x, AXIS, to_next), tree)

    def step(carry: tuple, number: jax.Array) -> tuple[tuple, None]:
      state, part, key_grads = carry
      following = send(part)  # Sent before the work, so that communication overlaps it.
      state, key_grads = visit(state, part, key_grads, (index - number) % self.devices)
      return (state, following, send(key_grads)), None

    (state, part, key_grads), _ = jax.lax.scan(step, (state, part, key_grads), jnp.arange(self.devices - 1))
    state, key_grads = visit(state, part, key_grads, (index + 1) % self.devices)
    return state, send(key_grads)

  def _part(self, key: jax.Array, value: jax.Array, mask_arrays: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """The rotating arrays, [blocks, batch or 1, size, ...] each."""
    split = lambda x: jnp.moveaxis(x.reshape(len(x), -1, self.size, *x.shape[2:]), 1, 0)
    return {name: split(x) for name, x in {"key": key, "value": value, **mask_arrays}.items()}

  def _scan_blocks(
    self, update: Callable, state: Any, part: dict, of_query: dict, owner: jax.Array
  ) -> tuple[Any, tuple]:
    """state, results = update(state, index, block, mask), scanned over blocks -> state, stacked results."""

    def step(state: Any, numbered: tuple) -> tuple[Any, tuple]:
      index, part = numbered
      mask_arrays: list[Any] = [of_query.get("positions"), *(part.get(name) for name in ("positions", "valid"))]
      segments = {"query_segments": of_query.get("segments"), "key_segments": part.get("segments")}
      mask_array = AttentionMask(self.rule, *mask_arrays, **segments).array()
      run = lambda: update(state, index, part, None if mask_array is None else mask_array[:, :, None])
      if mask_array is None:
        return run()
      zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(run)[1])
      return jax.lax.cond(mask_array.any(), run, lambda: (state, zeros))

    blocks = len(part["key"])
    return jax.lax.scan(step, state, (owner * blocks + jnp.arange(blocks), part))

  def _logits(self, query: jax.Array, bias: jax.Array | None = None) -> Callable:
    def logits_of(index: jax.Array, part: dict, visible: jax.Array | None) -> jax.Array:
      logits = product("bqngd,bknd->bngqk", query, part["key"]) * self.scale
      if bias is not None:
        block_bias = jax.lax.dynamic_slice_in_dim(bias, index * self.size, self.size, 3).astype(jnp.float32)
        of_heads = query.shape[2:4] if block_bias.shape[1] > 1 else (1, 1)
        logits += block_bias.reshape(len(block_bias), *of_heads, *block_bias.shape[2:])
      return logits if visible is None else jnp.where(visible, logits, LEAST)

    return logits_of


def product(dimensions: str, *arrays: jax.Array) -> jax.Array:
  """`jnp.einsum` with float32 accumulation and result."""
  return jnp.einsum(dimensions, *arrays, preferred_element_type=jnp.float32)


def zero_masked(weights: jax.Array, visible: jax.Array | None) -> jax.Array:
  """Zeroes the weights of masked keys: float [..., queries, keys], bool that broadcasts to it -> the same shape."""
  return weights if visible is None else jnp.where(visible, weights, 0)


def grouped(array: jax.Array, key: jax.Array) -> jax.Array:
  """[batch, queries, heads, head_dim] -> [batch, queries, kv_heads, heads that share one, head_dim]"""
  batch, queries, _, head_dim = array.shape
  return array.reshape(batch, queries, key.shape[2], -1, head_dim)


def _summed(d_logits: jax.Array, bias: jax.Array) -> jax.Array:
  """[batch, kv_heads, heads that share one, queries, keys], summed to the shape of the bias."""
  by_head = d_logits.reshape(len(d_logits), -1, *d_logits.shape[3:])
  return by_head.sum([axis for axis in (0, 1) if bias.shape[axis] == 1], keepdims=True)
