"""Attention kernels by platform or name: XLA's matmuls, ring attention, or flash attention on GPUs (cuDNN) and TPUs.

A kernel replaces `zoo.layers.attention.dense_attention` in every attention of a model. Flash kernels and the
ring never form all weights and do not support everything: an unsupported call goes to the kernel that they replaced,
and the reason is recorded during tracing. On a mesh they run on every device over its own rows and heads; XLA, to
which they are opaque, would gather the arrays.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from zoo.errors import UserError, did_you_mean
from zoo.kernels.per_device import Unsupported, on_mesh, pad_to_multiple, rows_of, unshard_length
from zoo.kernels.ring import AXIS, ring
from zoo.layers.attention import dense_attention, with_attentions
from zoo.layers.masks import AttentionMask, band

BY_PLATFORM = {"tpu": "splash", "gpu": "cudnn"}
LANES = 128  # Blocks of splash attention are multiples of this, the width of a TPU's vector registers.


class Notes:
  """Record of which attention calls got the requested kernel, and why others did not; filled during tracing.

  Attributes:
    name: of the requested kernel.
    reasons: (path of an attention, why it did not get the kernel, or ""), in the order of the calls.
  """

  def __init__(self, name: str):
    self.name, self.reasons = name, dict[tuple[str, str], None]()

  @property
  def keys(self) -> str | None:
    """The mesh axis that shards the length of keys and values; None: they are replicated along their length."""
    return AXIS if self.name == "ring" else None

  def add(self, where: str, why: str) -> None:
    """Records a traced call."""
    self.reasons[where, why] = None

  def lines(self) -> list[str]:
    """Human-readable lines: which kernel runs, and where and why another one does."""
    runs = any(not why for _, why in self.reasons)
    fallen = [f"attention: {self.name} -> dense in {where}: {why}" for where, why in self.reasons if why]
    return [f"attention: {self.name}"] * runs + fallen


@dataclasses.dataclass(frozen=True)
class Kernel:
  """An attention kernel with a fallback; same signature as `dense_attention`.

  Args:
    run: one of KERNELS.
    other: the kernel for calls that `run` does not support.
    mesh: the devices to run on.
    path: of the attention in the model, for the notes.
    notes: records the reasons.
  """

  run: Callable
  other: Callable
  mesh: Mesh
  path: str
  notes: Notes = dataclasses.field(compare=False, repr=False)

  def __call__(
    self, query, key, value, *, mask=None, bias=None, scale=None, on_logits=None, on_weights=None
  ) -> jax.Array:
    """As `dense_attention`."""
    hooks = {name: x for name, x in (("on_logits", on_logits), ("on_weights", on_weights)) if x is not None}
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    try:
      self._check(hooks)
      if mask is None:
        positions = (jnp.arange(x.shape[1], dtype=jnp.int32)[None] for x in (query, key))
        mask = AttentionMask(None, *positions, in_order=True)
      y = self.run(query, key, value, mask, bias, factor, self.mesh)
    except Unsupported as why:
      self.notes.add(self.path, str(why))
      if self.notes.keys is not None:
        key, value = unshard_length(key, self.mesh), unshard_length(value, self.mesh)
      return self.other(query, key, value, mask=mask, bias=bias, scale=scale, **hooks)
    self.notes.add(self.path, "")
    return y

  def _check(self, options: dict) -> None:
    if self.other is not dense_attention:
      if getattr(self.other, "func", None) is not dense_attention:
        raise Unsupported("the model has its own attention kernel")
      options = {**getattr(self.other, "keywords", {}), **options}
    if "on_logits" in options:
      raise Unsupported("its logits are transformed, e.g. soft-capped")
    if "on_weights" in options:
      raise Unsupported("its weights are dropped out or captured")


def xla(query, key, value, mask, bias, scale, mesh) -> jax.Array:
  """`jax.nn.dot_product_attention` with XLA's matmuls, which XLA shards by itself."""
  options: dict[str, Any] = {"bias": bias, "mask": mask.array(), "scale": scale}
  return jax.nn.dot_product_attention(query, key, value, **options, implementation="xla")


def cudnn(query, key, value, mask, bias, scale, mesh) -> jax.Array:
  """cuDNN's flash attention: native causal masks and windows; packing and padding as one mask for all heads.

  https://docs.nvidia.com/deeplearning/cudnn/frontend/latest/operations/Attention.html
  """
  device, (queries, keys) = mesh.devices.flat[0], (query.shape[1], key.shape[1])
  capability = float(getattr(device, "compute_capability", 0))
  if capability < 8:
    raise Unsupported(f"cuDNN's flash attention needs compute capability 8.0, {device.device_kind} has {capability}")
  if query.dtype not in (jnp.bfloat16, jnp.float16):
    raise Unsupported(f"cuDNN's flash attention computes in bfloat16 and float16, the model in {query.dtype}")
  max_head_dim = 256 if capability >= 9 else 128
  if query.shape[-1] % 8 or query.shape[-1] > max_head_dim:
    raise Unsupported(
      f"head_dim is {query.shape[-1]}, cuDNN's flash attention takes multiples of 8 up to {max_head_dim}"
    )
  _no_bias(bias)
  back, ahead = band(mask.rule) or (None, None)
  itself = mask.in_order and queries == keys and ahead == 0 and band(mask.rule) is not None
  rest = (mask._replace(rule=None) if itself else mask).array()
  options: dict[str, Any] = {"is_causal": True} if itself else {}
  if itself and back is not None:
    options["local_window_size"] = (back, 0)
  multiple = 0 if rest is None else 2  # With a mask, lengths must be even.
  masks = () if rest is None else (jnp.broadcast_to(rest, (rest.shape[0], 1, queries, keys)),)

  def run(query, key, value, *masks):
    query, key, value = (pad_to_multiple(x, multiple, 1) for x in (query, key, value))
    mask_array = pad_to_multiple(pad_to_multiple(masks[0], 2, 2), 2, 3) if masks else None
    keywords: dict[str, Any] = {"mask": mask_array, "scale": scale, **options}
    return jax.nn.dot_product_attention(query, key, value, **keywords, implementation="cudnn")[:, :queries]

  if mesh.shape.get("sequence", 1) > 1:
    raise Unsupported("cuDNN's flash attention cannot shard sequences: it knows no positions")
  rows = rows_of(mesh)
  return on_mesh(run, mesh, query, key, value, *((x, P(rows if len(x) == len(query) else None)) for x in masks))


def splash(query, key, value, mask, bias, scale, mesh, *, interpret=False) -> jax.Array:
  """Splash attention of Pallas, which skips masked blocks: causal, windowed or full attention, with packed sequences.

  https://github.com/jax-ml/jax/tree/main/jax/experimental/pallas/ops/tpu/splash_attention
  """
  from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
  from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

  _no_bias(bias)
  queries, keys = query.shape[1], key.shape[1]
  if min(queries, keys) < LANES:
    raise Unsupported(f"{queries} queries see {keys} keys, splash attention takes {LANES} or more")
  limits = band(mask.rule)
  if limits is None:
    raise Unsupported("its mask is a rule of the model's own")
  if limits != (None, None) and not (mask.in_order and queries == keys):
    raise Unsupported("positions are not 0, 1, 2, ...: they are passed, or come from a cache")
  parts = mesh.shape.get("sequence", 1)
  if parts > 1 and queries % (parts * LANES):
    raise Unsupported(
      f"{queries} queries do not divide into {parts} shards of mesh axis 'sequence' that are multiples of {LANES}"
    )
  shape = tuple(size + -size % LANES for size in (queries, keys))
  shard_shape = (shape[0] // parts, shape[1])
  block_mask, shards = masks.FullMask(shard_shape), 1
  if limits != (None, None):
    # The blocks that a device reads depend on the position of its shard of the queries.
    block_mask, shards = (
      masks.CausalMask(shape) if limits == (None, 0) else masks.LocalMask(shape, limits, offset=0),
      parts,
    )
  heads = masks.MultiHeadMask([block_mask] * (query.shape[2] // mesh.shape.get("model", 1)))
  sizes = _blocks(kernels, *shard_shape, query.shape[-1])
  attend = kernels.make_splash_mha(heads, block_sizes=sizes, head_shards=1, q_seq_shards=shards, interpret=interpret)

  def run(query, key, value, attend, *ids):
    query, key, value = (pad_to_multiple(x, LANES, 1).swapaxes(1, 2) for x in (query * scale, key, value))
    segments = kernels.SegmentIds(*ids) if ids else None
    return jax.vmap(attend, in_axes=(0, 0, 0, 0 if ids else None))(query, key, value, segments).swapaxes(1, 2)[
      :, :queries
    ]

  length = "sequence" if parts > 1 else None
  specs = attend.manual_sharding_spec(NamedSharding(mesh, P(None, length if shards > 1 else None)))
  ids = _ids(mask, query.shape[0], queries, keys)
  rows = rows_of(mesh)
  of_ids = (P(rows, length), P(rows, None)) if ids else ()
  return on_mesh(run, mesh, query, key, value, (attend, specs), *zip(ids, of_ids), length=length)


KERNELS: dict[str, Callable] = {"dense": dense_attention, "xla": xla, "cudnn": cudnn, "splash": splash, "ring": ring}


def _no_bias(bias: Any) -> None:
  if bias is not None:
    raise Unsupported("it has a bias")


def _ids(mask: AttentionMask, batch: int, queries: int, keys: int) -> tuple:
  """Segment ids int32 [batch, queries] and [batch, keys], both with padding: a query attends to keys of its id.

  None if all ids are equal and no padding is visible to a query.
  """
  of_query, of_key, valid = mask.query_segments, mask.key_segments, mask.valid
  hidden = keys % LANES == 0 or (mask.rule is not None and band(mask.rule)[1] == 0)
  if of_query is None and valid is None and hidden:
    return ()
  filled_ids = lambda ids, size: (
    jnp.ones((batch, size), jnp.int32) if ids is None else jnp.broadcast_to(ids, (batch, size))
  )
  of_query, of_key = filled_ids(of_query, queries), filled_ids(of_key, keys)
  of_key = of_key if valid is None else jnp.where(valid, of_key, -1)  # Segment ids are never negative.
  of_key = jnp.pad(of_key, ((0, 0), (0, -keys % LANES)), constant_values=-1)
  return pad_to_multiple(of_query, LANES, 1), of_key


def _blocks(kernels: Any, queries: int, keys: int, head_dim: int) -> Any:
  """Block sizes: the largest that divide the lengths, at most 512, MaxText's choice for every TPU so far."""
  q, kv = (next(size for size in (512, 384, 256, LANES) if length % size == 0) for length in (queries, keys))
  block_sizes = {f"block_q{part}": q for part in ("", "_dkv", "_dq")} | {
    f"block_kv{part}": kv for part in ("", "_dkv", "_dq")
  }
  # The last dimension is padded to full registers: heads of 64, saved for the backward pass, would take twice as much.
  layout = kernels.QKVLayout.SEQ_MINOR if head_dim % LANES else kernels.QKVLayout.HEAD_DIM_MINOR
  layouts = {f"{part}_layout": layout for part in "qkv"}
  return kernels.BlockSizes(**block_sizes, **layouts, block_kv_compute=kv, block_kv_dkv_compute=kv)


def with_kernels(model: Any, name: str, mesh: Mesh, *, interpret: bool = False) -> tuple[Any, Notes]:
  """Replaces the attention kernel in every attention layer of a model.

  Args:
    model: from `zoo.build`, or any module.
    name: "dense" (plain products, weights in float32), "xla" (`jax.nn.dot_product_attention`), "cudnn"
      (its flash attention, on NVIDIA's GPUs), "splash" (Pallas' splash attention, on TPUs), "ring" (`zoo.kernels.ring`:
      over mesh axis "sequence", anywhere), or "auto": splash on TPUs, cudnn on GPUs, else dense.
    mesh: the mesh that the model will run on.
    interpret: runs splash on any device, slowly, for tests.

  Returns:
    the model, and notes that are filled when it is traced.

  Raises:
    UserError: no kernel has this name, or the mesh's devices cannot run it; "ring" without an axis "sequence" above 1.
  """
  platform = mesh.devices.flat[0].platform
  kernel_name = BY_PLATFORM.get(platform, "dense") if name == "auto" else name
  if kernel_name not in KERNELS:
    offered = ("auto", *KERNELS)
    raise UserError(f"There is no attention '{name}'.{did_you_mean(name, offered)} There are: {', '.join(offered)}.")
  needs = {kernel: where for where, kernel in BY_PLATFORM.items()}.get(kernel_name, platform)
  if needs != platform and not interpret:
    raise UserError(
      f"attention is '{kernel_name}', which needs a {needs}; the mesh is of {platform} devices. Use auto."
    )
  notes = Notes(kernel_name)
  if notes.keys is not None and mesh.shape.get(notes.keys, 1) == 1:
    raise UserError(
      f"attention is '{kernel_name}', which needs mesh axis '{notes.keys}'; the mesh is {dict(mesh.shape)}. Set "
      f"mesh.{notes.keys} to 2 or more, or attention to auto."
    )
  if kernel_name == "dense":
    return model, notes
  run = functools.partial(KERNELS[kernel_name], **({"interpret": True} if interpret else {}))
  change = lambda attention, path: attention.clone(kernel=Kernel(run, attention.kernel, mesh, path, notes))
  return with_attentions(model, change), notes
