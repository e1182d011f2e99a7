"""Text files as UTF-8: checked by their first bytes, and converted once, in the cache, from other encodings."""

import codecs
import hashlib
from pathlib import Path

from zoo.data.bad_records import BadRecord
from zoo.data.cache import build_once, cache_folder
from zoo.data.sources import file_fingerprint
from zoo.data.sources.copies import nearby
from zoo.data.sources.files import StoragePath, opened, read_part
from zoo.errors import UserError

_BLOCK = 2**22
_COMPRESSED = {
  b"\x1f\x8b": "gzip",
  b"PK\x03\x04": "zip",
  b"BZh": "bzip2",
  b"\xfd7zXZ": "xz",
  b"\x28\xb5\x2f\xfd": "zstd",
}
_MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF16_LE: "utf-16"}
_MARKS |= {codecs.BOM_UTF16_BE: "utf-16"}


def utf8_file(path: StoragePath, encoding: str | None, source: str) -> StoragePath:
  """`path` itself, a local copy of a remote one, or, for another `encoding` than UTF-8, a copy in UTF-8.

  Args:
    path: a text file.
    encoding: None: UTF-8.
    source: the source string, for the way out in messages.

  Raises:
    UserError: it is compressed, in UTF-16 or UTF-32, or not valid in this encoding.
  """
  try:
    head = read_part(path, 0, 8)
  except OSError as error:
    raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
  packed = next((name for mark, name in _COMPRESSED.items() if head.startswith(mark)), None)
  if packed is not None:
    raise UserError(f"{path} is compressed ({packed}). Decompress it.")
  if encoding is None:
    marked = next((name for mark, name in _MARKS.items() if head.startswith(mark)), None)
    if marked is not None or b"\0" in head:
      raise UserError(f"{path} is not UTF-8: it begins with {head!r}. Write {source}?encoding={marked or 'utf-16-le'}.")
    return nearby(path)
  try:
    codec = codecs.lookup(encoding)
    "".encode(encoding)  # LookupError if it is not a text encoding.
  except (LookupError, UnicodeError) as error:  # UnicodeError: Python's "undefined".
    raise UserError(f"{source}: encoding '{encoding}' is unknown. Some are: cp1252, latin-1, utf-16.") from error
  if codec.name in ("utf-8", "ascii", "utf-8-sig"):
    return nearby(path)

  def write(folder: Path) -> None:
    decoder, size = codec.incrementaldecoder(), 0
    with opened(path) as file, open(folder / "utf8", "wb") as copy:
      while True:
        block = file.read(_BLOCK)
        try:
          copy.write(decoder.decode(block, final=not block).encode())
        except UnicodeError as error:  # A missing byte order mark has neither a start nor a reason.
          place, reason = size + getattr(error, "start", 0), getattr(error, "reason", error)
          raise UserError(f"{path} is not {encoding}: {reason} near byte {place:,}. Name another.") from error
        size += len(block)
        if not block:
          return

  key = hashlib.blake2b(f"text 1 {file_fingerprint([path])} {codec.name}".encode(), digest_size=16).hexdigest()
  return build_once(cache_folder() / "text" / key, write) / "utf8"


def decoded(content: bytes, start: int, what: str, source: str) -> str:
  """Decodes UTF-8, without a byte order mark; BadRecord, which names the byte, if it is invalid.

  Args:
    content: bytes of a file.
    start: offset of the first of them in the file.
    what: the file and the line, for the message.
    source: the source string, for the way out in messages.
  """
  try:
    return content.decode().removeprefix("\ufeff" if start == 0 else "")
  except UnicodeDecodeError as error:
    byte, place = content[error.start], start + error.start
    raise BadRecord(
      f"{what} is not UTF-8: byte {place:,} of the file is 0x{byte:02x} ({error.reason}). Fix it, or name the "
      f"encoding of the file: {source}?encoding=cp1252"
    ) from error
