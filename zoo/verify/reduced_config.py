"""A smaller config whose parameters and texts a mesh splits as it does those of a given one.

Whether XLA partitions a program rightly depends on which dimensions are split over which axes, and on whether they
divide, not on how large they are. A size is reduced to one that has the same divisors in common with the mesh.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from zoo.build import build, sizes_of
from zoo.config.loading import without
from zoo.layers.stack import SCAN_FROM
from zoo.sharding import axes_of, num_row_shards, placements
from zoo.sharding.meshes import ROWS, row_axes
from zoo.tree import flatten

SHORTEST = 16  # Tokens of a text, at least: windows and chunks should have something to overlap.
NARROWEST = (4, 16, 64)  # Numbers of a head, at least: tried in turn.
FEW = 64  # Devices.
CHEAP = {"cpu": (3e10, 1e8), "tpu": (1e13, 1e9)}  # Operations, and numbers that wait for the backward pass.
PIXELS, HEADS = 64, 8  # Of a patch and of attention, for that.
TOWERS = ("", "image_", "text_", "decoder_")  # What the names of their sizes begin with.
TILE = 128  # On TPUs lengths stay multiples of what they were: kernels of attention choose by that.


class Reduced(NamedTuple):
  """A reduced config.

  Attributes:
    model: the section of that name, in float32.
    lengths: sequence length -> the length it is cut to.
    image_size: pixels of a side, or None if images stay as they are.
    rows: of a batch.
    accumulate: parts of a batch.
    what: in words, what was reduced.
    if_cheap: it is for models that compute little with it, see `is_cheap`: sizes may decide how XLA partitions, too.
  """

  model: dict[str, Any]
  lengths: dict[int, int]
  image_size: int | None
  rows: int
  accumulate: int
  what: str
  if_cheap: bool = False


def reduced_size(size: int, parts: int, least: int = 1) -> int:
  """The smallest size of at least `least` with the same divisors in common with `parts`; never above `size`.

  >>> reduced_size(768, 8), reduced_size(50257, 8, least=9), reduced_size(6, 8)
  (8, 9, 2)
  """
  common = math.gcd(size, parts)
  first = -(-least // common)
  return next((n * common for n in range(first, size // common) if math.gcd(n * common, parts) == common), size)


def congruent_size(size: int, modulus: int, least: int) -> int:
  """The smallest size of at least `least` that leaves the same remainder; `size` if none is smaller.

  >>> congruent_size(1025, 8, 16), congruent_size(12, 8, 16)
  (17, 12)
  """
  return min(size, least + (size - least) % modulus)


def lengths_modulus(mesh: Mesh, activations: list) -> int:
  """What lengths keep their remainder of: devices, or of many only the axes that may split a length.

  Those are the ones that do not split rows, and those that a user's rules name.
  """
  if mesh.size <= FEW:
    return mesh.size
  axes = {axis for _, placement in activations for part in placement for axis in axes_of(_hashable(part))}
  if "batch" in axes:
    axes |= set(row_axes(mesh.axis_names))
  return math.prod(size for axis, size in mesh.shape.items() if axis not in ROWS or axis in axes)


def reductions(config: Any, shapes: Any, batch: Mapping[str, np.ndarray], mesh: Mesh) -> Iterator[Reduced]:
  """Reduced configs, the best first: fewer layers alone, if they are cheap, then whatever is small.

  The last one has the full model, in float32, and full sequences.

  Args:
    config: as `train.py` has it.
    shapes: of its parameters, `jax.ShapeDtypeStruct`.
    batch: an example, [1, ...] each.
    mesh: that it is for.
  """
  model: dict[str, Any] = without(config.model, "preprocessing") | {"dtype": "float32"}
  sizes = sizes_of(build(**model))
  modulus = lengths_modulus(mesh, config.activations)
  modulus *= TILE if mesh.devices.flat[0].platform == "tpu" else 1
  batching = rows_of(config.batch_size, config.optimizer.get("accumulate", 1), mesh)
  pixels, depths = _pixels(sizes, batch, modulus), _depths(sizes, shapes, config.sharding, mesh)
  size, longest = pixels.get("image_size"), text_lengths(batch)

  def cut_to(least: int) -> dict[int, int]:
    return {length: congruent_size(length, modulus, max(least, 2 * modulus)) for length in longest}

  whole_batch = config.batch_size, config.optimizer.get("accumulate", 1)
  same_depth = all(sizes[name] == depth for name, depth in depths.items() if name != "scan")
  yield Reduced(model | depths, {}, None, *whole_batch, "nothing" if same_depth else "depth", if_cheap=True)
  yield Reduced(model | depths, {}, None, *batching, "rows" if same_depth else "depth and rows", if_cheap=True)
  for narrowest in NARROWEST:
    widths = _widths(sizes, mesh, narrowest)
    # Positions are as long as texts: where a table's longer dimension is split, it has to stay the longer one.
    for least in (SHORTEST, 2 + max((widths.get(f"{tower}dim", 0) for tower in TOWERS), default=0)):
      lengths = cut_to(least)
      texts = _texts(sizes, lengths, modulus)
      yield Reduced(model | depths | widths | texts | pixels, lengths, size, *batching, "depth, width and length")
  for narrowest in NARROWEST:
    settings = model | depths | _widths(sizes, mesh, narrowest) | pixels
    yield Reduced(settings, cut_to(SHORTEST), size, *batching, "depth, width and length, of positions but a part")
  yield Reduced(model | depths | pixels, cut_to(SHORTEST), size, *batching, "depth and length, of positions but a part")
  yield Reduced(model | depths, {}, None, *batching, "depth")
  yield Reduced(model, {}, None, *batching, "nothing")


def is_cheap(shapes: Any, batch: Mapping[str, np.ndarray], rows: int, platform: str) -> bool:
  """Rough estimate of whether loss and gradients take about a second and little memory.

  Args:
    shapes: of the parameters.
    batch: an example, of texts [..., length] and images [..., height, width, channels].
    rows: of the batch that is meant.
  """
  positions = sum(text_lengths(batch)) + sum(math.prod(x.shape[1:3]) // PIXELS for x in batch.values() if x.ndim == 4)
  sizes = [leaf.shape for leaf in flatten(shapes).values() if leaf.ndim > 1]
  operations = 6 * rows * positions * sum(map(math.prod, sizes))
  count = rows * positions * (max(map(max, sizes), default=0) + HEADS * positions)
  limit = CHEAP.get(platform, CHEAP["tpu"])
  return operations <= limit[0] and count <= limit[1]


def same_placements(shapes: Any, full: Any, strategy: Any, mesh: Mesh) -> bool:
  """Whether the parameters of a smaller model are placed by the same rules, and all kinds of the full one's appear."""
  return _classes(shapes, strategy, mesh).keys() == _classes(full, strategy, mesh).keys()


def _classes(shapes: Any, strategy: Any, mesh: Mesh) -> dict[tuple, int]:
  """(path without the numbers of layers, rule, placement) -> the first layer that has it."""
  first: dict[tuple, int] = {}
  for path, placed in placements({"params": shapes}, strategy, mesh).items():
    layer = max((int(number) for number in re.findall(r"layer_(\d+)", path)), default=0)
    kind = re.sub(r"layer_\d+", "layer_#", path), *_split(placed.spec)
    first[kind] = min(first.get(kind, layer), layer)
  return first


def _split(spec: Any) -> tuple:
  parts = list(spec)
  while parts and parts[-1] is None:
    parts.pop()
  return tuple(parts)


def rows_of(batch_size: int, accumulate: int, mesh: Mesh) -> tuple[int, int]:
  """-> rows of a smaller batch and the parts it is cut into: as even, or as uneven, over the mesh as the given ones."""
  pieces = num_row_shards(mesh)
  parts = accumulate if accumulate < 3 else 2 + accumulate % 2
  of_part = batch_size // accumulate
  for rows in range(pieces, batch_size, pieces):
    fits = rows % parts == 0 and math.gcd(rows // parts, pieces) == math.gcd(of_part, pieces)
    if fits and rows // parts >= min(of_part, 2 * pieces):
      return rows, parts
  return batch_size, accumulate


def text_lengths(batch: Mapping[str, np.ndarray]) -> list[int]:
  """Sequence lengths of a batch: second dimensions of integer and bool arrays, the longest first."""
  lengths = {x.shape[1] for x in batch.values() if x.ndim == 2 and x.dtype.kind in "iub"}
  return sorted(lengths, reverse=True)


def cut(batch: Mapping[str, np.ndarray], reduced: Reduced, rng: np.random.Generator) -> dict[str, np.ndarray]:
  """A batch with shorter texts and smaller images, whose pixels, and half of whose tokens, are drawn at random.

  Texts keep half of their columns from the beginning and some of the rest, in their order: what is padded stays at the
  end, and losses that begin late find something.
  """
  columns = {}
  for length, shorter in reduced.lengths.items():
    num_first = -(-shorter // 2)
    rest = rng.choice(np.arange(num_first, length), shorter - num_first, replace=False)
    columns[length] = np.concatenate([np.arange(num_first), np.sort(rest)])

  def smaller(name: str, x: np.ndarray) -> np.ndarray:
    if x.ndim == 2 and x.dtype.kind in "iub":
      x = x[:, columns[x.shape[1]]] if x.shape[1] in columns else x
      rest = rng.integers(x.min(), x.max() + 1, x.shape) if name.endswith("tokens") else x
      return np.where(rng.random(x.shape) < 0.5, x, rest).astype(x.dtype)
    if x.ndim != 4:
      return x
    side = reduced.image_size
    shape = x.shape if side is None else (len(x), side, side, x.shape[3])
    if x.dtype.kind == "f":
      return rng.uniform(-1, 1, shape).astype(x.dtype)
    return rng.integers(0, 256, shape).astype(x.dtype)

  return {name: smaller(name, x) for name, x in batch.items()}


def _texts(sizes: Mapping[str, Any], lengths: Mapping[int, int], modulus: int) -> dict[str, int]:
  """`max_length` as much shorter as the longest text is, so that a table of positions is read as far."""
  longest = max(lengths, default=0)
  max_length = sizes.get("max_length")
  if not isinstance(max_length, int) or not longest:
    return {}
  shorter = longest - lengths[longest]
  return {"max_length": max_length - shorter} if max_length > shorter and shorter % modulus == 0 else {}


def _pixels(sizes: Mapping[str, Any], batch: Mapping[str, np.ndarray], modulus: int) -> dict[str, int]:
  """A smaller `image_size`, of as many patches a side but for multiples of what they may be split into."""
  side, patch = sizes.get("image_size"), sizes.get("patch_size")
  images = [x for x in batch.values() if x.ndim == 4]
  if not side or not patch or any(x.shape[1:3] != (side, side) for x in images) or not images:
    return {}
  patches = congruent_size(side // patch, modulus, max(4, modulus))
  return {"image_size": patches * patch} if side % patch == 0 and patches < side // patch else {}


def _depths(sizes: Mapping[str, Any], shapes: Any, strategy: Any, mesh: Mesh) -> dict[str, Any]:
  """Fewer layers: as many as have one of every placement, at least two; of scanned ones as many as are scanned."""
  needed = max(2, 1 + max(_classes(shapes, strategy, mesh).values(), default=0))
  pattern = sizes.get("pattern")
  cycle = len(pattern) if isinstance(pattern, list | tuple) else 1
  layer_paths = [path for path in flatten(shapes) if "/layers/" in f"/{path}"]
  cycle = max([cycle, *(1 + int(n) for path in layer_paths for n in re.findall(r"/layers/layer_(\d+)/", path))])
  scan, least = sizes.get("scan"), max(SCAN_FROM, 2 * cycle)
  depths = {name: n for name, n in sizes.items() if name.endswith("depth") and isinstance(n, int)}
  scanned = {name: n >= least if scan is None else bool(scan) for name, n in depths.items()}
  depth_options: dict[str, Any] = {"scan": True} if scanned and all(scanned.values()) else {}
  for name, depth in depths.items():
    if scanned[name]:
      cycles = reduced_size(depth // cycle, mesh.size, 2 if depth_options.get("scan") else -(-least // cycle))
      depth_options[name] = min(depth, cycles * cycle + depth % cycle)
    else:
      depth_options[name] = min(depth, max(needed, cycle))
  return depth_options


def _widths(sizes: Mapping[str, Any], mesh: Mesh, narrowest: int) -> dict[str, int]:
  """Narrower heads, and with them what is as wide as all heads; other widths by themselves."""
  parts, narrowed = mesh.size, {}
  for tower in TOWERS:
    heads = sizes.get(f"{tower}num_heads") or sizes.get(f"{tower}heads")
    dim, head_dim = sizes.get(f"{tower}dim"), sizes.get(f"{tower}head_dim")
    if not heads or not dim:
      continue
    width = head_dim or dim // heads
    for narrow in range(narrowest, width):
      same_split = math.gcd(narrow, parts) == math.gcd(width, parts) and narrow % 2 == width % 2
      if same_split and (head_dim or math.gcd(narrow * heads, parts) == math.gcd(dim, parts)):
        break
    else:
      continue
    if head_dim:
      narrowed |= {f"{tower}head_dim": narrow, f"{tower}dim": reduced_size(dim, parts, min(dim, narrow * heads))}
    else:
      narrowed[f"{tower}dim"] = narrow * heads
  dims = {sizes[name]: width for name, width in narrowed.items() if name in {f"{tower}dim" for tower in TOWERS}}
  for name, width in sizes.items():
    if name.endswith(("mlp_dim", "embed_dim", "dense_dim", "projection_dim")) and isinstance(width, int) and dims:
      # What is wider stays wider, and what is as wide as wide: a strategy splits the largest dimension.
      wider = max((after + 1 for before, after in dims.items() if before < width), default=narrowest)
      narrowed[name] = dims.get(width) or reduced_size(width, parts, wider)
  return narrowed


def _hashable(part: Any) -> Any:
  return tuple(part) if isinstance(part, list) else part
