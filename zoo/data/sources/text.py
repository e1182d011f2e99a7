"""`text:FOLDER`, `text:notes/**/*.txt`: one document per file, as `{"text", "path"}`.

With fewer than 100 files, percentages are of bytes, so that `train[:99%]` of one file is its first 99 %: the
files are concatenated in order, and cut at the end of a paragraph, or else of a line. So are files of more
than 8 MB: each part is a document, so that tokenising takes some 100 MB of memory.
"""

import bisect
import itertools
import re
from typing import Any, NamedTuple

from zoo.data.bad_records import BadRecord
from zoo.data.sources import Source, file_fingerprint, read_file
from zoo.data.sources.files import StoragePath, at, read_part, status
from zoo.data.sources.splits import by_hash, files_of_split, folder_of_split, take
from zoo.errors import UserError
from zoo.storage import is_remote

ENDINGS = (".txt", ".md")
LINES = (".jsonl", ".ndjson")
TABLES = {".csv": "csv", ".tsv": "tsv", ".parquet": "parquet", ".arrow": "hf", ".tar": "webdataset"}
ONE = (
  "A file is one document. Give several files, or files with a document a line, lines:FILE or (JSON lines) jsonl:FILE."
)
LONGEST = 2**23  # Maximum bytes of a document: a longer file is split.
_LOOK = 2**16  # Bytes searched for the end of a paragraph before the end of a line is used.


class Piece(NamedTuple):
  """A byte range of a file; end None: all of it."""

  path: str
  start: int = 0
  end: int | None = None


def text(where: str, split: str, data_dir: str | None = None) -> "TextFiles":
  """Opens the .txt and .md files below a folder, or all files that match a pattern."""

  def files(name: str) -> list[StoragePath]:
    folder, listed = files_of_split(where, name, data_dir, (*ENDINGS, *LINES))
    texts = [file for file in listed if not file.lower().endswith((*LINES, *TABLES))]
    if not texts or len(texts) < len(listed) and folder_of_split(where, name, data_dir)[1]:  # Of a pattern.
      other = next(file for file in listed if file not in texts)
      kind = next((kind for ending, kind in TABLES.items() if other.lower().endswith(ending)), None)
      if kind is None:
        raise UserError(f"text:{where} holds JSON lines, {folder / other}. Write jsonl:{where}, a document a line.")
      raise UserError(f"text:{where} holds {folder / other}, not a text file. Write {kind}:{where}")
    return [folder / file for file in by_hash(texts)]

  def pieces(name: str) -> list[list[Piece]]:
    paths = files(name)
    if "%" not in split or len(paths) >= 100 or not any(status(path)[0] for path in paths):
      return [[Piece(str(path))] for path in paths]
    if re.search(r"[\[:]-?\d+[\]:]", split):
      raise UserError(f"text:{where}: split '{split}' mixes percents and numbers of files. Take either.")
    return hundredths(paths)

  chosen = take(split, pieces, f"text:{where}", ONE)
  whole = joined([piece for part in chosen for group in part for piece in group])
  if not whole:
    raise UserError(f"text:{where}: split '{split}' has no example: its part of the bytes has no full line. {ONE}")
  return TextFiles(f"text:{where}[{split}]", [part for piece in whole for part in parts(piece)])


class TextFiles(Source):
  """UTF-8 text files, or pieces of them."""

  def __init__(self, name: str, pieces: list[Piece]):
    self.name, self.pieces, self.class_names = name, pieces, {}
    cut = [piece for piece in pieces if piece.end is not None]
    self.fingerprint = file_fingerprint(piece.path for piece in pieces) + (f" {cut}" if cut else "")

  def __len__(self) -> int:
    return len(self.pieces)

  def __getitem__(self, index: int) -> dict[str, Any]:
    path, start, end = self.pieces[index]
    try:
      content = read_file(path) if end is None else read_part(path, start, end - start)
      return {"text": content.decode("utf-8-sig" if start == 0 else "utf-8"), "path": path}
    except OSError as error:
      raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
      place = start + error.start
      raise BadRecord(f"{path} is not UTF-8 text: {error.reason} at byte {place}. Convert or remove it.") from error

  def where(self, index: int) -> str:
    path, start, end = self.pieces[index]
    return path if end is None else f"{path} bytes {start} to {end}"


def hundredths(paths: list[StoragePath]) -> list[list[Piece]]:
  """100 groups of pieces, which together are all bytes of the files in order."""
  ends = list(itertools.accumulate(status(path)[0] for path in paths))
  borders = [(0, 0)]  # File, byte in it.
  for percent in range(1, 100):
    offset = ends[-1] * percent // 100
    file = bisect.bisect_right(ends, offset)
    first = ends[file - 1] if file else 0
    border = (file, _after_break(paths[file], offset - first, ends[file] - first)) if file < len(paths) else (file, 0)
    borders.append(max(borders[-1], border))
  borders.append((len(paths), 0))
  groups = []
  for (file, start), (last, end) in itertools.pairwise(borders):
    sizes = {
      number: ends[number] - (ends[number - 1] if number else 0) for number in range(file, min(last + 1, len(paths)))
    }
    spans = [
      (number, start if number == file else 0, end if number == last else size) for number, size in sizes.items()
    ]
    groups.append([Piece(str(paths[number]), begin, stop) for number, begin, stop in spans if stop > begin])
  return groups


def joined(pieces: list[Piece]) -> list[Piece]:
  """Merges adjacent pieces of a file, in order."""
  whole: list[Piece] = []
  for piece in pieces:
    last = whole[-1] if whole else None
    if last is not None and last.path == piece.path and last.end is not None and last.end == piece.start:
      whole[-1] = last._replace(end=piece.end)
    else:
      whole.append(piece)
  full = lambda piece: piece.start == 0 and piece.end == status(at(piece.path))[0]
  return [Piece(piece.path) if full(piece) else piece for piece in whole]


def parts(piece: Piece) -> list[Piece]:
  """Splits a piece of more than LONGEST bytes, so that no more is in memory."""
  if is_remote(piece.path) and piece.end is None:
    return [piece]  # The sizes of remote files are not looked up one by one.
  try:
    end = status(piece.path)[0] if piece.end is None else piece.end
  except OSError:
    return [piece]  # Reported on access.
  if end - piece.start <= LONGEST:
    return [piece]
  cuts = [_after_break(at(piece.path), start, end) for start in range(piece.start + LONGEST, end, LONGEST)]
  borders = sorted({piece.start, *cuts, end})
  return [Piece(piece.path, first, last) for first, last in itertools.pairwise(borders)]


def _after_break(path: StoragePath, start: int, size: int) -> int:
  """The first byte from `start` on after the end of a nearby paragraph, or of a line; else `size`."""
  if start == 0:
    return 0
  start -= 1  # It may be at the end of a line.
  while start < size:
    content = read_part(path, start, _LOOK)
    match = re.search(rb"\n\r?\n(?:\r?\n)*", content) or re.search(rb"\n", content)
    if match is not None:
      return start + match.end()
    start += _LOOK
  return size
