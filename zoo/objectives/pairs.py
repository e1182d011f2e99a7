"""Every image of a batch with every text of it, and who holds which of these pairs at what time.

A contrast needs sums over the rows and over the columns of a matrix [batch, batch] that need not exist as a whole: it
is made block by block, forgotten, and made again in the backward pass. `PAIRS` says what travels:

whole       nothing is said; the matrix is one array, and XLA decides. It is kept for the backward pass.
all_gather  a device compares its own images with the texts of all, which it gathers (as OpenCLIP does).
ring        the texts go around, device by device, so that a device holds two devices' rows of them at most (as SigLIP
            does: https://arxiv.org/abs/2303.15343, section 3.3).

Both of the latter take the texts that a device has `chunk` at a time: then images * chunk numbers exist, not images *
texts, on one device too. They make four products of matrices where the whole makes three.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from zoo.errors import UserError, did_you_mean
from zoo.objectives.row_sharding import axes_of, pieces

# logits, same, valid, axis -> what is summed over the axis, differentiable: "total" and "log_sum", the logarithm of a
# sum of exponentials.
Sums = Callable[[jax.Array, jax.Array, jax.Array, int], dict[str, jax.Array]]
PAIRS = ("whole", "all_gather", "ring")
NOBODY = -1e9  # The logit of a column or row of weight 0.
_LEARNT = ("total", "log_sum")


def comparison(
  sums: Sums, form: str = "whole", chunk: int | None = None, by_row: NamedSharding | None = None
) -> Callable:
  """-> compare(image, text, scale, bias, marks) -> what is known of every image, and of every text, from all pairs.

  logits = scale * image @ text.T + bias, in full float32: a scale of 100 magnifies the rounding of bfloat16 products.

  compare takes image, text float32 [batch, embed], scale, bias float32 [], and marks: group int32 [batch] (rows of the
  same belong together) and valid bool [batch] (whether a row is anybody's answer). Both dicts that it gives have
  what `sums` found, float32 [batch], picked float32 [batch] (1 where the highest logit is of its own group) and count
  (how many of its group there are).

  Args:
    sums: what the loss is made of. axis 1 sums over texts, 0 over images; valid [batch, 1] or [1, batch] is of those.
    form: of PAIRS. Values and gradients are the same but for rounding.
    chunk: how many texts a device compares at the same time; None: all that it has.
    by_row: how the rows of a batch are spread over devices; None: XLA decides.

  Raises:
    UserError: an unknown form, a chunk that is no count or that "whole" cannot use; rows that do not divide.
  """
  if form not in PAIRS:
    raise UserError(f"There are no pairs '{form}'.{did_you_mean(str(form), PAIRS)} There are: {', '.join(PAIRS)}.")
  if chunk is not None and chunk < 1:
    raise UserError(f"chunk is {chunk}. It must be 1 or more: how many texts a device compares at the same time.")
  if form == "whole" and chunk is not None:
    raise UserError(f"chunk is {chunk}, and pairs 'whole' have none. Set pairs to 'all_gather' or 'ring'.")
  if form == "whole":
    return lambda image, text, scale, bias, marks: block(sums, (image, text, scale, bias), *[with_place(marks)] * 2)
  axes, devices = axes_of(by_row), pieces(by_row)
  forward, backward = (_ring if form == "ring" else _all_gather)(sums, chunk, axes, devices)

  def on_devices(function: Callable, out_specs: Any, numbers: tuple, *rows: Any) -> Any:
    if devices == 1:
      return function(numbers, *rows)
    assert by_row is not None
    many = len(numbers[0])
    if many % devices:
      raise UserError(f"pairs '{form}': {many} rows do not divide over {devices} devices. Change batch_size or mesh.")
    specs = (P(axes), P(axes), P(), P()), *[P(axes)] * len(rows)
    # Nothing differentiates through it, so nobody needs to know what is alike on which device.
    options = {"in_specs": specs, "out_specs": out_specs, "axis_names": set(axes), "check_vma": False}
    return jax.shard_map(function, mesh=by_row.mesh, **options)(numbers, *rows)

  @jax.custom_vjp
  def run(numbers: tuple, marks: dict) -> tuple[dict, dict]:
    return on_devices(forward, (P(axes), P(axes)), numbers, marks)

  def keep(numbers: tuple, marks: dict) -> tuple:
    found = run(numbers, marks)
    return found, (numbers, marks, *(learnt(side) for side in found))

  def pull(kept: tuple, slopes: tuple) -> tuple:
    numbers, *rows = kept
    specs = (P(axes), P(axes), P(), P())
    return on_devices(backward, specs, numbers, *rows, *(learnt(side) for side in slopes)), None

  run.defvjp(keep, pull)
  return lambda image, text, scale, bias, marks: run((image, text, scale, bias), with_place(marks))


def with_place(marks: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
  """The marks of rows, with where each stands: of equal logits the first counts as the highest."""
  return {**marks, "place": jnp.arange(len(marks["valid"]))}


def learnt(side: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
  """What has a gradient."""
  return {name: side[name] for name in _LEARNT if name in side}


def block(sums: Sums, numbers: tuple, of_images: dict, of_texts: dict) -> tuple[dict, dict]:
  """What some images and some texts tell of each other.

  Args:
    numbers: image [images, embed], text [texts, embed], scale [], bias [].
    of_images, of_texts: group, valid, place of each.

  Returns:
    two dicts, of images and of texts: those of `sums`, "count", and "best", "place", "picked" of the highest logit.
  """
  image, text, scale, bias = numbers
  logits = jnp.matmul(image, text.T, precision=jax.lax.Precision.HIGHEST) * scale + bias
  same = of_images["group"][:, None] == of_texts["group"][None]

  def one_way(axis: int) -> dict[str, jax.Array]:
    others = of_texts if axis == 1 else of_images
    valid = jnp.expand_dims(others["valid"], 1 - axis)
    right = same & valid
    x = jax.lax.stop_gradient(jnp.where(valid, logits, NOBODY))
    first = x.argmax(axis, keepdims=True)
    picked = {
      "best": x.max(axis),
      "place": others["place"][first.squeeze(axis)],
      "picked": jnp.take_along_axis(right, first, axis).squeeze(axis).astype(jnp.float32),
    }
    found = sums(logits, right.astype(jnp.float32), valid, axis)
    return {**found, "count": right.sum(axis, dtype=jnp.float32), **picked}

  return one_way(1), one_way(0)


def merged(parts: dict[str, jax.Array]) -> dict[str, jax.Array]:
  """What blocks [blocks, rows] tell of the same rows, together: [rows]."""
  found = {"count": parts["count"].sum(0), "best": parts["best"].max(0)}
  highest = parts["best"] == found["best"][None]
  found["place"] = jnp.where(highest, parts["place"], jnp.iinfo(jnp.int32).max).min(0)
  found["picked"] = (parts["picked"] * (highest & (parts["place"] == found["place"][None]))).max(0)
  if "total" in parts:
    found["total"] = parts["total"].sum(0)
  if "log_sum" in parts:
    found["log_sum"] = jax.nn.logsumexp(parts["log_sum"], axis=0)
  return found


def _together(one: dict, other: dict) -> dict:
  return merged(jax.tree.map(lambda *x: jnp.stack(x), one, other))


def _nothing(like: dict) -> dict:
  """What is known before the first block, in the shapes of `like`."""
  least = {"best": -jnp.inf, "log_sum": -jnp.inf, "place": jnp.iinfo(jnp.int32).max}
  return {name: jnp.full(x.shape, least.get(name, 0), x.dtype) for name, x in like.items()}


def _blocks(sums: Sums, chunk: int | None) -> tuple[Callable, Callable]:
  """-> forward and backward of a device's images with some texts, `chunk` of them at a time."""

  def forward(rows: dict | None, numbers: tuple, of_images: dict, of_texts: dict) -> tuple[dict, dict]:
    """Adds to what is known of images -> that, and what these images tell of the texts."""
    image, text, *scalars = numbers
    if rows is None:
      rows = _nothing(jax.eval_shape(lambda: block(sums, numbers, of_images, of_texts))[0])

    def add(rows: dict, part: tuple) -> tuple[dict, dict]:
      of_image, of_text = block(sums, (image, part[0], *scalars), of_images, part[1])
      return _together(rows, of_image), of_text

    return _by_chunks(add, rows, (text, of_texts), chunk)

  def backward(slopes: tuple, numbers: tuple, rows: tuple, of_texts: dict, columns: tuple) -> tuple[tuple, jax.Array]:
    """Adds to the slopes of image, scale and bias -> those, and the slope of text.

    rows, columns: (marks of images,) and (marks of texts were given): each with what all blocks told, and its slopes.
    """
    image, text, *scalars = numbers
    of_images, *about_images = rows

    def add(slopes: tuple, part: tuple) -> tuple[tuple, jax.Array]:
      text, of_texts, *about_texts = part
      function = lambda *numbers: tuple(learnt(side) for side in block(sums, numbers, of_images, of_texts))
      found, pull = jax.vjp(function, image, text, *scalars)
      down = tuple(_share(*side) for side in zip(found, *zip(about_images, about_texts), strict=True))
      of_image, of_text, *others = pull(down)
      return jax.tree.map(jnp.add, slopes, (of_image, *others)), of_text

    return _by_chunks(add, slopes, (text, of_texts, *columns), chunk)

  return forward, backward


def _share(part: dict, whole: dict, slopes: dict) -> dict:
  """The slopes of what a block told, given those of what all told: log(sum of exp) passes on each one's share."""
  share = {"log_sum": jnp.exp(part["log_sum"] - whole["log_sum"])} if "log_sum" in part else {}
  return {name: slopes[name] * share.get(name, 1) for name in part}


def _by_chunks(add: Callable, carry: Any, columns: Any, chunk: int | None) -> tuple[Any, Any]:
  """carry, found = add(carry, columns), `chunk` columns at a time; what fills up the last chunk is nobody's answer."""
  many = len(jax.tree.leaves(columns)[0])
  if chunk is None or chunk >= many:
    return add(carry, columns)
  parts = -(-many // chunk)

  def split(x: jax.Array) -> jax.Array:
    x = jnp.pad(x, [(0, parts * chunk - many), *[(0, 0)] * (x.ndim - 1)])
    return x.reshape(parts, chunk, *x.shape[1:])

  carry, found = jax.lax.scan(add, carry, jax.tree.map(split, columns))
  return carry, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:many], found)


def _all_gather(sums: Sums, chunk: int | None, axes: tuple, devices: int) -> tuple[Callable, Callable]:
  """What a device does with its rows: it gathers all texts, and hands back to their owners what it found of them."""
  forward_blocks, backward_blocks = _blocks(sums, chunk)

  def gathered(tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.lax.all_gather(x, axes, tiled=True), tree) if devices > 1 else tree

  def to_owners(x: jax.Array) -> jax.Array:
    x = x.reshape(devices, -1)
    return jax.lax.all_to_all(x, axes, 0, 0, tiled=True) if devices > 1 else x

  def forward(numbers: tuple, marks: dict) -> tuple[dict, dict]:
    image, text, *scalars = numbers
    rows, columns = forward_blocks(None, (image, gathered(text), *scalars), marks, gathered(marks))
    return rows, merged(jax.tree.map(to_owners, columns))

  def backward(numbers: tuple, marks: dict, rows: dict, columns: dict, d_rows: dict, d_columns: dict) -> tuple:
    image, text, *scalars = numbers
    every = gathered((text, marks, columns, d_columns))
    start = jax.tree.map(jnp.zeros_like, (image, *scalars))
    of_rows = marks, rows, d_rows
    (d_image, *d_scalars), d_text = backward_blocks(start, (image, every[0], *scalars), of_rows, every[1], every[2:])
    if devices > 1:
      d_text = jax.lax.psum_scatter(d_text, axes, scatter_dimension=0, tiled=True)
      d_scalars = jax.lax.psum(d_scalars, axes)
    return d_image, d_text, *d_scalars

  return forward, backward


def _ring(sums: Sums, chunk: int | None, axes: tuple, devices: int) -> tuple[Callable, Callable]:
  """What a device does with its rows: texts come by, with what is known of them, and are home again at the end."""
  forward_blocks, backward_blocks = _blocks(sums, chunk)
  onward = [(i, (i + 1) % devices) for i in range(devices)]

  def passed_on(tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.lax.ppermute(x, axes, onward), tree) if devices > 1 else tree

  def forward(numbers: tuple, marks: dict) -> tuple[dict, dict]:
    image, text, *scalars = numbers
    empty = [_nothing(side) for side in jax.eval_shape(lambda: block(sums, numbers, marks, marks))]

    def visit(state: tuple, _: None) -> tuple[tuple, None]:
      rows, columns, *visitors = state
      following = passed_on(visitors)  # Before the work, so that they travel while it is done.
      rows, found = forward_blocks(rows, (image, visitors[0], *scalars), marks, visitors[1])
      return (rows, passed_on(_together(columns, found)), *following), None

    (rows, columns, *_), _ = jax.lax.scan(visit, (*empty, text, marks), None, length=devices)
    return rows, columns

  def backward(numbers: tuple, marks: dict, rows: dict, columns: dict, d_rows: dict, d_columns: dict) -> tuple:
    image, text, *scalars = numbers
    start = jax.tree.map(jnp.zeros_like, (image, *scalars))
    of_rows = marks, rows, d_rows

    def visit(state: tuple, _: None) -> tuple[tuple, None]:
      slopes, d_text, *visitors = state
      following = passed_on(visitors)
      text, of_texts, *about = visitors
      slopes, found = backward_blocks(slopes, (image, text, *scalars), of_rows, of_texts, about)
      return (slopes, passed_on(d_text + found), *following), None

    state = start, jnp.zeros_like(text), text, marks, columns, d_columns
    ((d_image, *d_scalars), d_text, *_), _ = jax.lax.scan(visit, state, None, length=devices)
    return d_image, d_text, *(jax.lax.psum(d_scalars, axes) if devices > 1 else d_scalars)

  return forward, backward
