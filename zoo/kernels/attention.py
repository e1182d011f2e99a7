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
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from zoo.errors import UserError, did_you_mean
from zoo.kernels.per_device import Unsupported, no_bias, on_mesh, pad_to_multiple, rows_of, unshard_length
from zoo.kernels.ring import AXIS, ring
from zoo.kernels.splash import splash
from zoo.layers.attention import with_attentions
from zoo.layers.dense_attention import dense_attention
from zoo.layers.masks import AttentionMask, band
from zoo.layers.sparse_attention import attention as by_pattern
from zoo.layers.sparse_attention import pays, sparse_attention, supports

BY_PLATFORM = {"tpu": "splash", "gpu": "cudnn"}


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
    if getattr(self.other, "func", self.other) not in (dense_attention, by_pattern):
      raise Unsupported("the model has its own attention kernel")
    options = {**getattr(self.other, "keywords", {}), **options}
    if "on_logits" in options:
      raise Unsupported("its logits are transformed, e.g. soft-capped")
    if "on_weights" in options:
      raise Unsupported("its weights are dropped out or captured")


def xla(query, key, value, mask, bias, scale, mesh) -> jax.Array:
  """`jax.nn.dot_product_attention` with XLA's matmuls, which XLA shards by itself: [batch, queries, heads, head_dim].

  Shapes, here and of the other kernels: query [batch, queries, heads, head_dim], key and value [batch, keys, kv_heads,
  head_dim], bias broadcasts to [batch, heads, queries, keys].
  """
  options: dict[str, Any] = {"bias": bias, "mask": mask.array(), "scale": scale}
  return jax.nn.dot_product_attention(query, key, value, **options, implementation="xla")


def sparse(query, key, value, mask, bias, scale, mesh) -> jax.Array:
  """`zoo.layers.sparse_attention`: XLA's products of the tiles that a pattern lets through, on any platform; as `xla`.

  Raises:
    Unsupported: there is a bias, or it is no self-attention by a pattern.
  """
  no_bias(bias)
  if not supports(query, key, mask):
    raise Unsupported("it is no self-attention by a pattern over positions 0, 1, 2, ...")
  return sparse_attention(query, key, value, mask=mask, scale=scale)


def cudnn(query, key, value, mask, bias, scale, mesh) -> jax.Array:
  """cuDNN's flash attention: native causal masks and windows; packing and padding as one mask for all heads; as `xla`.

  Raises:
    Unsupported: the device, the dtype, head_dim, the mask or the bias is not one that cuDNN takes.

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
  no_bias(bias)
  if pays(query, key, mask) and (band(mask.rule) is None or band(mask.rule)[1] != 0 or mask.global_keys is not None):
    raise Unsupported("cuDNN's flash attention has no such pattern, and would take an array of all pairs")
  back, ahead = band(mask.rule) or (None, None)
  itself = mask.global_keys is None and mask.in_order and queries == keys and ahead == 0 and band(mask.rule) is not None
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
    raise Unsupported("cuDNN's flash attention cannot shard sequences: it takes no positions")
  rows = rows_of(mesh)
  return on_mesh(run, mesh, query, key, value, *((x, P(rows if len(x) == len(query) else None)) for x in masks))


KERNELS: dict[str, Callable] = {
  "dense": dense_attention,
  "sparse": sparse,
  "xla": xla,
  "cudnn": cudnn,
  "splash": splash,
  "ring": ring,
}


def _densely(attention: Any, path: str) -> Any:
  """The attention without the kernel that skips pairs."""
  kernel = attention.kernel
  if getattr(kernel, "func", kernel) is not by_pattern:
    return attention
  return attention.clone(kernel=functools.partial(dense_attention, **getattr(kernel, "keywords", {})))


def with_kernels(model: Any, name: str, mesh: Mesh, *, interpret: bool = False) -> tuple[Any, Notes]:
  """Replaces the attention kernel in every attention layer of a model.

  Args:
    model: from `zoo.build`, or any module.
    name: "dense" (plain products, weights in float32), "sparse" (the same of the pairs that a pattern lets through),
      "xla" (`jax.nn.dot_product_attention`), "cudnn" (its flash attention, on NVIDIA's GPUs), "splash" (Pallas' splash
      attention, on TPUs), "ring" (`zoo.kernels.ring`: over mesh axis "sequence", anywhere), or "auto": splash on TPUs,
      cudnn on GPUs, else the model's own: dense, or sparse for long sequences under a pattern that makes it cheaper.
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
  if name == "auto" and kernel_name == "dense":
    return model, notes
  if kernel_name == "dense":
    return with_attentions(model, _densely), notes
  run = functools.partial(KERNELS[kernel_name], **({"interpret": True} if interpret else {}))
  change = lambda attention, path: attention.clone(kernel=Kernel(run, attention.kernel, mesh, path, notes))
  return with_attentions(model, change), notes
