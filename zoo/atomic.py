"""Files that are either the old one or the new one, whatever happens while they are written."""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Generator

from etils import epath

from zoo.errors import UserError
from zoo.places import is_remote


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Generator[pathlib.Path]:
  """A temporary path to write to, in the folder of `path`; renamed to `path` when the block ends well, else removed.

  For a file in a bucket it is here, and sent there when the block ends well: buckets show an object once it is whole.

  Raises:
    UserError: the disk is full, or the folder may not be written to. `path` is then what it was.
  """
  if is_remote(path):
    with tempfile.TemporaryDirectory() as folder:
      try:
        yield (temporary := pathlib.Path(folder) / "file")
        epath.Path(temporary).copy(path, overwrite=True)
      except OSError as error:
        raise UserError(f"{path} cannot be written: {error}. What was there before is intact.") from error
    return
  path = pathlib.Path(path)
  temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
  try:
    temporary.touch()
    mode = temporary.stat().st_mode  # That of any new file here: safetensors would let nobody else read its own.
    yield temporary
    temporary.chmod(mode)
    with open(temporary, "rb") as written:
      os.fsync(written.fileno())
    os.replace(temporary, path)
  except OSError as error:
    raise UserError(f"{path} cannot be written: {error.strerror or error}. What was there before is intact.") from error
  finally:
    with contextlib.suppress(OSError):  # On a disk that may only be read not even this is allowed.
      temporary.unlink(missing_ok=True)
