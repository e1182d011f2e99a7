"""Reads safetensors files: indexed by their headers, one tensor at a time, without pickle or memory mapping.

A file's header is validated by the safetensors library; the bytes are read with plain reads, so that they
do not count as memory of the process, unlike the pages of a mapped file.
"""

import contextlib
import json
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from zoo.errors import UserError
from zoo.hub.msgpack import FlaxTensors, open_flax
from zoo.json_files import read_json

WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
GENERATION = "generation_config.json"
FLAX, FLAX_INDEX, FLAX_SHARDS = "flax_model.msgpack", "flax_model.msgpack.index.json", "flax_model-*.msgpack"
OPEN_CLIP = "open_clip_model.safetensors"
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt", ".h5")
LFS = b"version https://git-lfs"
DTYPES = {
  "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16,
  "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8, "U8": np.uint8, "BOOL": np.bool_,
  "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2,
}  # fmt: skip


class TensorLocation(NamedTuple):
  """The location of one tensor."""

  file: pathlib.Path
  dtype: np.dtype
  shape: tuple[int, ...]
  offset: int


class Tensors(Mapping):
  """Lazy tensors: name -> array, read from disk on every access. `shapes` reads nothing."""

  def __init__(self, locations: Mapping[str, TensorLocation]):
    self.places = dict(locations)

  def __getitem__(self, name: str) -> np.ndarray:
    file, dtype, shape, offset = self.places[name]
    count = int(np.prod(shape, dtype=np.int64))
    try:
      array = np.fromfile(file, dtype, count, offset=offset)
    except OSError as error:
      raise UserError(f"{file} cannot be read: {error.strerror}.") from error
    if len(array) != count:
      raise UserError(f"{file} ends within tensor '{name}'. It is truncated; download it again.")
    return array.reshape(shape)

  def __iter__(self) -> Iterator[str]:
    return iter(self.places)

  def __len__(self) -> int:
    return len(self.places)

  @property
  def shapes(self) -> dict[str, tuple[int, ...]]:
    """name -> shape."""
    return {name: location.shape for name, location in self.places.items()}

  @property
  def dtypes(self) -> dict[str, np.dtype]:
    """name -> dtype."""
    return {name: location.dtype for name, location in self.places.items()}

  def only(self, names: Iterable[str]) -> "Tensors":
    """The subset with these names."""
    return Tensors({name: self.places[name] for name in names})


def is_published(folder: pathlib.Path) -> bool:
  """Whether a folder is in the hub's layout, rather than a run or a model that `zoo.save` wrote."""
  return (folder / CONFIG).is_file() and "model_type" in read_json(folder / CONFIG)


def open_file(path: pathlib.Path) -> Tensors:
  """Opens one safetensors file. UserError if it is missing or corrupt."""
  return Tensors(_places(path))


def open_tensors(folder: pathlib.Path) -> Tensors | FlaxTensors:
  """Opens the tensors of a folder in the hub's layout: safetensors, or else an old Flax file, single or sharded.

  Raises:
    UserError: there are no weights or only pickles, a file is corrupt, or an index names files outside the folder.
  """
  if (folder / WEIGHTS).is_file():
    return Tensors(_places(folder / WEIGHTS))
  if (folder / INDEX).is_file():
    return Tensors(_indexed(folder))
  if (folder / FLAX).is_file():
    return open_flax(folder / FLAX)
  if (folder / FLAX_INDEX).is_file():
    return open_flax(*(folder / name for name in sorted(set(_weight_map(folder / FLAX_INDEX, "msgpack").values()))))
  files = sorted(path.name for path in folder.iterdir() if path.is_file())
  pickles = [name for name in files if name.endswith(PICKLES)]
  if pickles:
    raise UserError(
      f"{folder} has weights only as {pickles[0]}, and pickles are never read, as they can run code. If you trust "
      "them, convert them: AutoModel.from_pretrained(FOLDER).save_pretrained(FOLDER), with transformers and torch."
    )
  weight_files = [name for name in files if name.endswith(".safetensors")]
  hint = f" (there is {weight_files[0]}; rename it if it holds the weights)" if weight_files else ""
  raise UserError(f"{folder} has neither {WEIGHTS} nor {INDEX}{hint}. It holds: {', '.join(files[:5]) or 'nothing'}.")


def _indexed(folder: pathlib.Path) -> dict[str, TensorLocation]:
  where = folder / INDEX
  weight_map = _weight_map(where, "safetensors")
  by_file = {name: _places(folder / name) for name in sorted(set(weight_map.values()))}
  missing = [name for name, file in weight_map.items() if name not in by_file[file]]
  if missing:
    raise UserError(
      f"{where}: {missing[0]} is not in {weight_map[missing[0]]}, nor are {len(missing) - 1} others in their files."
    )
  return {name: by_file[file][name] for name, file in weight_map.items()}


def _weight_map(where: pathlib.Path, kind: str) -> dict[str, str]:
  """Tensor name -> file name, from an index."""
  weight_map = read_json(where).get("weight_map")
  if not isinstance(weight_map, dict) or not weight_map:
    raise UserError(f"{where} has no 'weight_map' of tensor names to file names.")
  for name in set(map(str, weight_map.values())):
    # Only names of files beside the index, without folders.
    if not re.fullmatch(rf"[\w][\w.-]*\.{kind}", name):
      raise UserError(f"{where} names the file {name[:100]!r}. It must be the bare name of a .{kind} file.")
  return weight_map


def _places(path: pathlib.Path) -> dict[str, TensorLocation]:
  try:
    if not path.is_file():
      raise UserError(f"{path} is missing. Fetch it again.")
    with safe_open(path, framework="np"):  # Validates the header.
      pass
    with open(path, "rb") as file:
      length = int.from_bytes(file.read(8), "little")
      header = json.loads(file.read(length))
  except UserError:
    raise
  except (SafetensorError, OSError, ValueError, RecursionError) as error:
    if os.path.exists(path) and not os.access(path, os.R_OK):
      raise UserError(f"{path}: permission denied. Let this user read it: chmod u+r.") from None
    if _is_pointer(path):
      raise UserError(
        f"{path} is a pointer of Git LFS, not the weights. Fetch them with git lfs pull in its repository."
      ) from None
    raise UserError(
      f"{path} is not a valid safetensors file: {str(error)[:200] or type(error).__name__}. Fetch it again."
    ) from None
  header.pop("__metadata__", None)
  locations = {}
  for name, entry in header.items():
    if entry["dtype"] not in DTYPES:
      raise UserError(f"{path}: tensor '{name}' has dtype {entry['dtype']}. The zoo reads: {', '.join(DTYPES)}.")
    begin, _ = entry["data_offsets"]
    locations[name] = TensorLocation(path, np.dtype(DTYPES[entry["dtype"]]), tuple(entry["shape"]), 8 + length + begin)
  return locations


def _is_pointer(path: pathlib.Path) -> bool:
  """Whether a file is what Git LFS leaves in place of a large file that was not fetched."""
  with contextlib.suppress(OSError), open(path, "rb") as file:
    return file.read(len(LFS)) == LFS
  return False


def local_folder(source: str | os.PathLike) -> pathlib.Path | None:
  """`source` as a path if it is a local folder, else None."""
  path = pathlib.Path(source).expanduser()
  return path if path.is_dir() else None
