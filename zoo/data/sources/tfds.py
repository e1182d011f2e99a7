"""`tfds:NAME[/CONFIG][:VERSION]`: any TFDS dataset, by `data_source` and array_record, without TensorFlow."""

import contextlib
import importlib
import importlib.util
import io
import pkgutil
from pathlib import Path
from typing import Any

from zoo.data import builders
from zoo.data.bad_records import BadRecord
from zoo.data.cache import locked
from zoo.data.sources import Source, file_fingerprint
from zoo.data.sources.splits import NoSplit
from zoo.errors import UserError, did_you_mean
from zoo.progress import progress


def tfds(where: str, split: str, data_dir: str | None = None) -> "TFDSSource":
  """Opens the dataset, preparing it first if it is missing and its builder can do so without TensorFlow.

  Args:
    where: name, config and version in TFDS's notation, e.g. `emoji/style` or `mnist:3.0.1`.
    split: in TFDS's split syntax.
    data_dir: folder of prepared datasets; by default TFDS's own (`~/tensorflow_datasets` or `$TFDS_DATA_DIR`).
  """
  with _quiet():
    builder = _builder(where, data_dir)
    if not builder.is_prepared():
      _prepare(builder, where)
      builder = _builder(where, data_dir)  # Another process may have prepared it meanwhile.
    return TFDSSource(builder, where, split)


class TFDSSource(Source):
  """A split of a prepared dataset. Images stay encoded: pipelines decode them with their own checks."""

  def __init__(self, builder: Any, where: str, split: str):
    import tensorflow_datasets as tfds

    self.name = f"tfds:{where}[{split}]"
    features = builder.info.features
    images = [name for name in features if isinstance(features[name], tfds.features.Image)]
    labels = [name for name in features if isinstance(features[name], tfds.features.ClassLabel)]
    self.class_names = {name: features[name].names for name in labels}
    try:
      self.data = builder.as_data_source(split, decoders={name: tfds.decode.SkipDecoding() for name in images})
    except NotImplementedError as error:
      raise UserError(
        f"tfds:{where} in {builder.data_path} has a format that only TensorFlow reads. Where TensorFlow is installed, "
        "run: tfds convert_format --root_data_dir=FOLDER --out_file_format=array_record"
      ) from error
    except ValueError as error:
      choices = ", ".join(builder.info.splits)
      raise NoSplit(f"tfds:{where} has no split '{split}'. It has: {choices}, and parts like train[:90%].") from error
    self.folder = str(builder.data_path)
    is_local = Path(self.folder).is_dir()  # Not for gs://...
    self.fingerprint = f"{split} {file_fingerprint(sorted(Path(self.folder).iterdir())) if is_local else self.folder}"

  def __len__(self) -> int:
    return len(self.data)

  def __getitem__(self, index: int) -> dict[str, Any]:
    if not 0 <= index < len(self):
      raise IndexError(f"{self.name} has {len(self)} records; index {index} is out of range.")
    try:
      return self.data[index]
    except Exception as error:  # array_record, TFDS and protobuf each raise their own exceptions for a corrupt record.
      reason = str(error).strip().split("\n")[0][:200]
      raise BadRecord(
        f"{self.name}: record {index}, in {self._file(index)}, cannot be read ({reason}). "
        "The file is corrupt: delete its folder and prepare the dataset again."
      ) from error

  def _file(self, index: int) -> str:
    files = self.data.data_source
    if not hasattr(files, "_reader_idx_and_position"):  # parquet
      return self.folder
    return files._paths[files._reader_idx_and_position(index)[0]]


def _builder(where: str, data_dir: str | None) -> Any:
  import tensorflow_datasets as tfds

  name, _, config = where.partition(":")[0].partition("/")
  own_builders = [module.name for module in pkgutil.iter_modules(builders.__path__)]
  if name in own_builders:
    importlib.import_module(f"zoo.data.builders.{name}")  # Importing a builder registers it with TFDS.
  try:
    return tfds.builder(where, data_dir=data_dir)
  except tfds.core.DatasetNotFoundError as error:
    unimported = {path.stem for path in Path(tfds.__file__).parent.glob("*/[a-z]*")}  # Builders that import TensorFlow.
    if name in unimported:
      raise UserError(_needs_tensorflow(where, data_dir)) from error
    choices = [*own_builders, *tfds.core.registered.list_imported_builders(), *unimported]
    folder = data_dir or tfds.core.constants.DATA_DIR
    raise UserError(f"There is no dataset '{name}' in tfds or in {folder}.{did_you_mean(name, choices)}") from error
  except ModuleNotFoundError as error:
    raise UserError(_needs_tensorflow(where, data_dir)) from error
  except Exception as error:  # An unknown config or version: ValueError or AssertionError, with a long message.
    configs = tfds.builder_cls(name).builder_configs
    if config and config not in configs:
      offered = ", ".join(configs) or "none"
      raise UserError(
        f"tfds:{name} has no config '{config}'.{did_you_mean(config, configs)} It has: {offered}."
      ) from error
    reason = str(error).strip().split("\n")[0].rpartition('}": ')[2]
    raise UserError(f"tfds:{where} cannot be opened: {reason}") from error


def _prepare(builder: Any, where: str) -> None:
  """Prepares a dataset in place; other processes of the machine wait for the first."""
  import tensorflow_datasets as tfds

  by_tfds = type(builder).__module__.startswith("tensorflow_datasets.")
  if by_tfds and importlib.util.find_spec("tensorflow") is None:
    raise UserError(_needs_tensorflow(where, builder.data_path))
  folder = Path(builder.data_path)
  is_local = "://" not in str(builder.data_path)
  try:
    with locked(folder.parent / f".{folder.name}.lock") if is_local else contextlib.nullcontext():
      if not builder.is_prepared():
        config = tfds.download.DownloadConfig(try_download_gcs=False)
        with progress(f"preparing tfds:{where}"):
          builder.download_and_prepare(download_config=config, file_format="array_record")
  except ModuleNotFoundError as error:
    raise UserError(_needs_tensorflow(where, builder.data_path)) from error
  except OSError as error:
    if builder.is_prepared():  # By another process, if the file system has no locks.
      return
    raise UserError(f"tfds:{where} cannot be prepared in {folder}: {error.strerror or error}. Set data_dir.") from error


def _needs_tensorflow(where: str, path: str | None) -> str:
  name = where.partition("/")[0].partition(":")[0]
  return (
    f"tfds:{where} is not prepared in {path or 'the data_dir'}, which takes TensorFlow. Where that is installed, run: "
    f"tfds build {name} --file_format=array_record --data_dir=FOLDER, and set data_dir to FOLDER or a copy of it."
  )


@contextlib.contextmanager
def _quiet():
  """Silences TFDS and absl: relevant errors are raised as UserError."""
  import tensorflow_datasets as tfds
  from absl import logging

  level = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  tfds.disable_progress_bar()
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    tfds.enable_progress_bar()
    logging.set_verbosity(level)
