"""Reduces a config to small sizes that a mesh partitions in the same way.

Whether XLA partitions a program correctly depends on which dimensions are sharded over which axes, and on whether they
divide, not on their size. A size is reduced to one that has the same divisors in common with the mesh.
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

SHORTEST = 16  # Minimum sequence length: windows and chunks should overlap.
NARROWEST = (4, 16, 64)  # Minimum head widths, tried in turn.
FEW = 64  # Devices.
CHEAP = {"cpu": (3e10, 1e8), "tpu": (1e13, 1e9)}  # FLOPs, and values saved for the backward pass.
PIXELS, HEADS = 64, 8  # Estimates per patch and for attention.
TOWERS = ("", "image_", "text_", "decoder_")  # Prefixes of their sizes' names.
TILE = 128  # On TPUs lengths keep their multiples, on which the choice of attention kernels depends.


class Reduced(NamedTuple):
  """A reduced config.

  Attributes:
    model: the section `model`, in float32.
    lengths: sequence length -> reduced length.
    image_size: pixels of a side, or None if images stay as they are.
    rows: of a batch.
    accumulate: number of parts of a batch.
    what: description of what was reduced.
    if_cheap: to be used only if it is cheap, see `is_cheap`: sizes may also affect XLA's partitioning.
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
  """The modulus whose remainder lengths keep: the number of devices, or of many only the axes that may shard a length.

  Those are the axes that do not shard rows, and those named in the user's rules.
  """
  if mesh.size <= FEW:
    return mesh.size
  axes = {axis for _, placement in activations for part in placement for axis in axes_of(_hashable(part))}
  if "batch" in axes:
    axes |= set(row_axes(mesh.axis_names))
  return math.prod(size for axis, size in mesh.shape.items() if axis not in ROWS or axis in axes)


def reductions(config: Any, shapes: Any, batch: Mapping[str, np.ndarray], mesh: Mesh) -> Iterator[Reduced]:
  """Reduced configs, the best first: fewer layers only, if that is cheap, then smaller sizes too.

  The last one has the full model, in float32, and full sequences.

  Args:
    config: as `train.py` has it.
    shapes: of its parameters, `jax.ShapeDtypeStruct`.
    batch: an example, [1, ...] each.
    mesh: the devices.
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
    # Position tables are as long as sequences: a sharded longer dimension has to stay the longer one.
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
    rows: number of rows of the batch.
  """
  positions = sum(text_lengths(batch)) + sum(math.prod(x.shape[1:3]) // PIXELS for x in batch.values() if x.ndim == 4)
  positions += max((math.prod(x.shape[1:]) for x in batch.values() if x.ndim == 3), default=0)  # Of chunks, of choices.
  sizes = [leaf.shape for leaf in flatten(shapes).values() if leaf.ndim > 1]
  operations = 6 * rows * positions * sum(map(math.prod, sizes))
  count = rows * positions * (max(map(max, sizes), default=0) + HEADS * positions)
  limit = CHEAP.get(platform, CHEAP["tpu"])
  return operations <= limit[0] and count <= limit[1]


def same_placements(shapes: Any, full: Any, strategy: Any, mesh: Mesh) -> bool:
  """Whether the parameters of a smaller model are placed by the same rules, and all kinds of the full one's appear."""
  return _classes(shapes, strategy, mesh).keys() == _classes(full, strategy, mesh).keys()


def _classes(shapes: Any, strategy: Any, mesh: Mesh) -> dict[tuple, int]:
  """Kinds of parameters: (path without layer numbers, rule, placement) -> their first layer."""
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
  """-> rows and accumulation of a smaller batch that divide over the mesh as the given ones do."""
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

  int and bool [batch, length] -> [batch, shorter length]; images [batch, height, width, channels] likewise.

  Sequences keep half of their columns from the start and some of the rest, in order: padding stays at the
  end, and losses on later tokens are not empty.
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
  """Reduces `max_length` by as much as the longest sequence."""
  longest = max(lengths, default=0)
  max_length = sizes.get("max_length")
  if not isinstance(max_length, int) or not longest:
    return {}
  shorter = longest - lengths[longest]
  return {"max_length": max_length - shorter} if max_length > shorter and shorter % modulus == 0 else {}


def _pixels(sizes: Mapping[str, Any], batch: Mapping[str, np.ndarray], modulus: int) -> dict[str, int]:
  """Reduces `image_size` to a number of patches per side that divides alike."""
  side, patch = sizes.get("image_size"), sizes.get("patch_size")
  images = [x for x in batch.values() if x.ndim == 4]
  if not side or not patch or any(x.shape[1:3] != (side, side) for x in images) or not images:
    return {}
  patches = congruent_size(side // patch, modulus, max(4, modulus))
  return {"image_size": patches * patch} if side % patch == 0 and patches < side // patch else {}


def _depths(sizes: Mapping[str, Any], shapes: Any, strategy: Any, mesh: Mesh) -> dict[str, Any]:
  """Reduces depths: one layer of every placement, at least two; scanned stacks stay scanned."""
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
  """Reduces head widths, and with them widths equal to all heads; other widths independently."""
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
      # The order of widths is kept: a strategy shards the largest dimension.
      wider = max((after + 1 for before, after in dims.items() if before < width), default=narrowest)
      narrowed[name] = dims.get(width) or reduced_size(width, parts, wider)
  return narrowed


def _hashable(part: Any) -> Any:
  return tuple(part) if isinstance(part, list) else part
