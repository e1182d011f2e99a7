"""Contrastive sums over all image-text pairs of a batch, without the full [batch, batch] matrix.

A contrastive loss needs sums over the rows and the columns of a matrix [batch, batch], which is computed block by
block, and recomputed in the backward pass. `PAIRS` are the ways to shard it:

whole       the matrix is one array, saved for the backward pass; XLA shards it.
all_gather  a device compares its own images with all texts, which it gathers (as OpenCLIP does).
ring        texts rotate around the devices, so that a device holds those of at most two (as in SigLIP:
            https://arxiv.org/abs/2303.15343, section 3.3).

The latter two compare `chunk` texts at a time: images * chunk logits exist, not images * texts, even on one device.
They need four matrix products, "whole" three.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from zoo.errors import UserError, did_you_mean
from zoo.objectives.row_sharding import axes_of, num_row_shards

# logits, same, valid, axis -> differentiable sums over the axis: "total" and "log_sum", a logsumexp.
Sums = Callable[[jax.Array, jax.Array, jax.Array, int], dict[str, jax.Array]]
PAIRS = ("whole", "all_gather", "ring")
MASKED_LOGIT = -1e9  # The logit of a column or row of weight 0.
_DIFFERENTIABLE = ("total", "log_sum")


def comparison(
  sums: Sums, form: str = "whole", chunk: int | None = None, by_row: NamedSharding | None = None
) -> Callable:
  """-> compare(image, text, scale, bias, row_info) -> the sums of every image, and those of every text.

  logits = scale * image @ text.T + bias, in full float32: a scale of 100 magnifies the rounding of bfloat16 products.

  compare takes image, text float32 [batch, embed], scale, bias float32 [], and row_info: group int32 [batch] (rows of
  one group match) and valid bool [batch] (whether a row counts as an answer). Both returned dicts have the
  results of `sums`, float32 [batch], picked float32 [batch] (1 where the highest logit is of its own group) and count
  (how many of its group there are).

  Args:
    sums: the loss's sums. axis 1 sums over texts, 0 over images; valid [batch, 1] or [1, batch] belongs to them.
    form: one of PAIRS. Values and gradients are equal up to rounding.
    chunk: number of texts that a device compares at a time; None: all that it has.
    by_row: sharding of the rows of a batch; None: XLA decides.

  Raises:
    UserError: an unknown form, a chunk below 1 or with "whole"; rows that do not divide over the devices.
  """
  if form not in PAIRS:
    raise UserError(f"pairs is '{form}'.{did_you_mean(str(form), PAIRS)} It must be one of: {', '.join(PAIRS)}.")
  if chunk is not None and chunk < 1:
    raise UserError(f"chunk is {chunk}. It must be 1 or more: the number of texts that a device compares at a time.")
  if form == "whole" and chunk is not None:
    raise UserError(
      f"chunk is {chunk}, but pairs is 'whole', which has no chunks. Set pairs to 'all_gather' or 'ring'."
    )
  if form == "whole":
    return lambda image, text, scale, bias, row_info: block_sums(
      sums, (image, text, scale, bias), *[with_positions(row_info)] * 2
    )
  axes, devices = axes_of(by_row), num_row_shards(by_row)
  forward, backward = (_ring if form == "ring" else _all_gather)(sums, chunk, axes, devices)

  def on_devices(function: Callable, out_specs: Any, arrays: tuple, *rows: Any) -> Any:
    if devices == 1:
      return function(arrays, *rows)
    assert by_row is not None
    rows_of_batch = len(arrays[0])
    if rows_of_batch % devices:
      raise UserError(
        f"pairs '{form}': {rows_of_batch} rows do not divide over {devices} devices. Change batch_size or mesh."
      )
    specs = (P(axes), P(axes), P(), P()), *[P(axes)] * len(rows)
    # Nothing differentiates through it (custom_vjp), so replication need not be tracked.
    options = {"in_specs": specs, "out_specs": out_specs, "axis_names": set(axes), "check_vma": False}
    return jax.shard_map(function, mesh=by_row.mesh, **options)(arrays, *rows)

  @jax.custom_vjp
  def run(arrays: tuple, row_info: dict) -> tuple[dict, dict]:
    return on_devices(forward, (P(axes), P(axes)), arrays, row_info)

  def run_with_residuals(arrays: tuple, row_info: dict) -> tuple:
    results = run(arrays, row_info)
    return results, (arrays, row_info, *(differentiable(side) for side in results))

  def vjp(residuals: tuple, cotangents: tuple) -> tuple:
    arrays, *rows = residuals
    specs = (P(axes), P(axes), P(), P())
    return on_devices(backward, specs, arrays, *rows, *(differentiable(side) for side in cotangents)), None

  run.defvjp(run_with_residuals, vjp)
  return lambda image, text, scale, bias, row_info: run((image, text, scale, bias), with_positions(row_info))


def with_positions(row_info: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
  """Adds "position", int32 [batch], the index of each row: among equal logits the first counts as the highest."""
  return {**row_info, "position": jnp.arange(len(row_info["valid"]))}


def differentiable(side: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
  """Selects the differentiable sums of one side: name -> float32 [rows]"""
  return {name: side[name] for name in _DIFFERENTIABLE if name in side}


def block_sums(sums: Sums, arrays: tuple, of_images: dict, of_texts: dict) -> tuple[dict, dict]:
  """Sums over all pairs of some images and some texts.

  Args:
    arrays: image [images, embed], text [texts, embed], scale [], bias [].
    of_images, of_texts: group, valid, position of each.

  Returns:
    two dicts, for images and for texts: `sums`, "count", and "best", "position", "picked" of the highest logit.
  """
  image, text, scale, bias = arrays
  logits = jnp.matmul(image, text.T, precision=jax.lax.Precision.HIGHEST) * scale + bias
  same = of_images["group"][:, None] == of_texts["group"][None]

  def one_way(axis: int) -> dict[str, jax.Array]:
    columns = of_texts if axis == 1 else of_images
    valid = jnp.expand_dims(columns["valid"], 1 - axis)
    right = same & valid
    x = jax.lax.stop_gradient(jnp.where(valid, logits, MASKED_LOGIT))
    first = x.argmax(axis, keepdims=True)
    picked = {
      "best": x.max(axis),
      "position": columns["position"][first.squeeze(axis)],
      "picked": jnp.take_along_axis(right, first, axis).squeeze(axis).astype(jnp.float32),
    }
    sums_of_side = sums(logits, right.astype(jnp.float32), valid, axis)
    return {**sums_of_side, "count": right.sum(axis, dtype=jnp.float32), **picked}

  return one_way(1), one_way(0)


def merged(parts: dict[str, jax.Array]) -> dict[str, jax.Array]:
  """Merges the sums of several blocks of the same rows: [blocks, rows] -> [rows]."""
  total = {"count": parts["count"].sum(0), "best": parts["best"].max(0)}
  highest = parts["best"] == total["best"][None]
  total["position"] = jnp.where(highest, parts["position"], jnp.iinfo(jnp.int32).max).min(0)
  total["picked"] = (parts["picked"] * (highest & (parts["position"] == total["position"][None]))).max(0)
  if "total" in parts:
    total["total"] = parts["total"].sum(0)
  if "log_sum" in parts:
    total["log_sum"] = jax.nn.logsumexp(parts["log_sum"], axis=0)
  return total


def _merged_pair(one: dict, other: dict) -> dict:
  return merged(jax.tree.map(lambda *x: jnp.stack(x), one, other))


def _empty(like: dict) -> dict:
  """Sums over no pairs, in the shapes of `like`."""
  least = {"best": -jnp.inf, "log_sum": -jnp.inf, "position": jnp.iinfo(jnp.int32).max}
  return {name: jnp.full(x.shape, least.get(name, 0), x.dtype) for name, x in like.items()}


def _blocks(sums: Sums, chunk: int | None) -> tuple[Callable, Callable]:
  """-> forward and backward of a device's images with some texts, `chunk` at a time."""

  def forward(rows: dict | None, arrays: tuple, of_images: dict, of_texts: dict) -> tuple[dict, dict]:
    """Adds a block to the sums of images -> those, and the sums of the texts over these images."""
    image, text, *scalars = arrays
    if rows is None:
      rows = _empty(jax.eval_shape(lambda: block_sums(sums, arrays, of_images, of_texts))[0])

    def add(rows: dict, part: tuple) -> tuple[dict, dict]:
      of_image, of_text = block_sums(sums, (image, part[0], *scalars), of_images, part[1])
      return _merged_pair(rows, of_image), of_text

    return _by_chunks(add, rows, (text, of_texts), chunk)

  def backward(
    cotangents: tuple, arrays: tuple, rows: tuple, of_texts: dict, columns: tuple
  ) -> tuple[tuple, jax.Array]:
    """Adds a block to the cotangents of image, scale and bias -> those, and the cotangent of text.

    rows, columns: row_info of images (that of texts is of_texts), each with the merged sums and their cotangents.
    """
    image, text, *scalars = arrays
    of_images, *about_images = rows

    def add(cotangents: tuple, part: tuple) -> tuple[tuple, jax.Array]:
      text, of_texts, *about_texts = part
      function = lambda *arrays: tuple(differentiable(side) for side in block_sums(sums, arrays, of_images, of_texts))
      results, pull = jax.vjp(function, image, text, *scalars)
      scaled = tuple(_scaled_cotangents(*side) for side in zip(results, *zip(about_images, about_texts), strict=True))
      of_image, of_text, *d_scalars = pull(scaled)
      return jax.tree.map(jnp.add, cotangents, (of_image, *d_scalars)), of_text

    return _by_chunks(add, cotangents, (text, of_texts, *columns), chunk)

  return forward, backward


def _scaled_cotangents(part: dict, total: dict, cotangents: dict) -> dict:
  """Cotangents of the sums of one block, given those of the merged sums: logsumexp passes on its share."""
  share = {"log_sum": jnp.exp(part["log_sum"] - total["log_sum"])} if "log_sum" in part else {}
  return {name: cotangents[name] * share.get(name, 1) for name in part}


def _by_chunks(add: Callable, carry: Any, columns: Any, chunk: int | None) -> tuple[Any, Any]:
  """Scans carry, results = add(carry, columns) over chunks of columns; the padding of the last chunk is not valid."""
  count = len(jax.tree.leaves(columns)[0])
  if chunk is None or chunk >= count:
    return add(carry, columns)
  parts = -(-count // chunk)

  def split(x: jax.Array) -> jax.Array:
    x = jnp.pad(x, [(0, parts * chunk - count), *[(0, 0)] * (x.ndim - 1)])
    return x.reshape(parts, chunk, *x.shape[1:])

  carry, results = jax.lax.scan(add, carry, jax.tree.map(split, columns))
  return carry, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:count], results)


def _all_gather(sums: Sums, chunk: int | None, axes: tuple, devices: int) -> tuple[Callable, Callable]:
  """Per-device program that gathers all texts and returns their sums to their owners."""
  forward_blocks, backward_blocks = _blocks(sums, chunk)

  def gathered(tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.lax.all_gather(x, axes, tiled=True), tree) if devices > 1 else tree

  def to_owners(x: jax.Array) -> jax.Array:
    x = x.reshape(devices, -1)
    return jax.lax.all_to_all(x, axes, 0, 0, tiled=True) if devices > 1 else x

  def forward(arrays: tuple, row_info: dict) -> tuple[dict, dict]:
    image, text, *scalars = arrays
    rows, columns = forward_blocks(None, (image, gathered(text), *scalars), row_info, gathered(row_info))
    return rows, merged(jax.tree.map(to_owners, columns))

  def backward(arrays: tuple, row_info: dict, rows: dict, columns: dict, d_rows: dict, d_columns: dict) -> tuple:
    image, text, *scalars = arrays
    everywhere = gathered((text, row_info, columns, d_columns))
    start = jax.tree.map(jnp.zeros_like, (image, *scalars))
    of_rows = row_info, rows, d_rows
    (d_image, *d_scalars), d_text = backward_blocks(
      start, (image, everywhere[0], *scalars), of_rows, everywhere[1], everywhere[2:]
    )
    if devices > 1:
      d_text = jax.lax.psum_scatter(d_text, axes, scatter_dimension=0, tiled=True)
      d_scalars = jax.lax.psum(d_scalars, axes)
    return d_image, d_text, *d_scalars

  return forward, backward


def _ring(sums: Sums, chunk: int | None, axes: tuple, devices: int) -> tuple[Callable, Callable]:
  """Per-device program in which texts rotate with their sums, until they are back at their owners."""
  forward_blocks, backward_blocks = _blocks(sums, chunk)
  onward = [(i, (i + 1) % devices) for i in range(devices)]

  def send(tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.lax.ppermute(x, axes, onward), tree) if devices > 1 else tree

  def forward(arrays: tuple, row_info: dict) -> tuple[dict, dict]:
    image, text, *scalars = arrays
    empty = [_empty(side) for side in jax.eval_shape(lambda: block_sums(sums, arrays, row_info, row_info))]

    def visit(state: tuple, _: None) -> tuple[tuple, None]:
      rows, columns, *travelling = state
      following = send(travelling)  # Sent before the work, so that communication overlaps it.
      rows, results = forward_blocks(rows, (image, travelling[0], *scalars), row_info, travelling[1])
      return (rows, send(_merged_pair(columns, results)), *following), None

    (rows, columns, *_), _ = jax.lax.scan(visit, (*empty, text, row_info), None, length=devices)
    return rows, columns

  def backward(arrays: tuple, row_info: dict, rows: dict, columns: dict, d_rows: dict, d_columns: dict) -> tuple:
    image, text, *scalars = arrays
    start = jax.tree.map(jnp.zeros_like, (image, *scalars))
    of_rows = row_info, rows, d_rows

    def visit(state: tuple, _: None) -> tuple[tuple, None]:
      cotangents, d_text, *travelling = state
      following = send(travelling)
      text, of_texts, *about = travelling
      cotangents, results = backward_blocks(cotangents, (image, text, *scalars), of_rows, of_texts, about)
      return (cotangents, send(d_text + results), *following), None

    state = start, jnp.zeros_like(text), text, row_info, columns, d_columns
    ((d_image, *d_scalars), d_text, *_), _ = jax.lax.scan(visit, state, None, length=devices)
    return d_image, d_text, *(jax.lax.psum(d_scalars, axes) if devices > 1 else d_scalars)

  return forward, backward
