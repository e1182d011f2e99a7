"""A file of prompts, and the file of their answers, which is taken up again where it was cut off.

Both are JSON Lines. A prompt's line is an object with `prompt`, a text or a list of tokens, and maybe `max_new_tokens`.
Its fields are carried over to the line of its answer, which adds `line`, the number of the prompt's line from 1,
`generated`, the text, `tokens`, those that it was decoded from, and `finish`: "end" where the text ended, "length"
where it was cut.

Answers are appended as they come; once all are there the file is put into the order of the prompts. What stays in
memory is some 30 bytes a prompt.
"""

import contextlib
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np

from zoo.data.bad_records import BadRecord
from zoo.data.sources import json_object
from zoo.data.sources.files import read_part
from zoo.data.sources.jsonl import line_spans
from zoo.errors import UserError, shown
from zoo.json_files import read_json
from zoo.storage import is_remote, replacing

try:
  import fcntl
except ImportError:  # Windows has no lockf.
  fcntl = None

ADDED = ("line", "generated", "tokens", "finish")
SETTINGS = ".settings.json"  # What an answer's file is of, beside it.


class PromptFile:
  """The prompts of a file: `prompts[i]` are the fields of the i-th, which are read when they are asked for.

  Raises:
    UserError: the file cannot be read, or is empty.
  """

  def __init__(self, path: str | os.PathLike):
    self.path = pathlib.Path(path)
    if is_remote(path) or not self.path.is_file():
      raise UserError(f"--prompts is {shown(os.fspath(path))}, not a file. Name a file of JSON Lines.")
    self.lines, self._starts, self._ends = line_spans(self.path)

  def __len__(self) -> int:
    return len(self.lines)

  def __getitem__(self, index: int) -> dict[str, Any]:
    start, end = int(self._starts[index]), int(self._ends[index])
    where = self.where(index)
    try:
      fields = json_object(read_part(self.path, start, end - start), where)
    except BadRecord as error:
      raise UserError(str(error)) from error
    prompt, most = fields.get("prompt"), fields.get("max_new_tokens")
    of_tokens = isinstance(prompt, list) and all(type(token) is int for token in prompt) and prompt
    if not isinstance(prompt, str) and not of_tokens:
      what = f"has as prompt {shown(prompt, 60)}" if "prompt" in fields else f"has the fields {', '.join(fields)}"
      raise UserError(f"{where} {what}. Give every line a field prompt: a text, or a list of tokens.")
    if most is not None and (type(most) is not int or most < 1):
      raise UserError(f"{where}: max_new_tokens is {shown(most, 60)}. It must be an int, at least 1.")
    if taken := [name for name in ADDED if name in fields]:
      raise UserError(f"{where} has the field '{taken[0]}', which its answer is written to. Rename it.")
    return fields

  def where(self, index: int) -> str:
    """A prompt's name in messages."""
    return f"{self.path} line {int(self.lines[index]) + 1}"

  def digest(self) -> str:
    """Of the file's bytes."""
    with open(self.path, "rb") as file:
      return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def digest_of_folder(folder: pathlib.Path, block: int = 2**16) -> str:
  """A fingerprint of a model's files: their names, sizes, and three blocks of each."""
  digest = hashlib.blake2b(digest_size=16)
  for path in sorted(path for path in folder.rglob("*") if path.is_file()):
    size = path.stat().st_size
    digest.update(f"{path.relative_to(folder)}\0{size}\0".encode())
    with open(path, "rb") as file:
      for start in (0, size // 2, max(0, size - block)):
        file.seek(start)
        digest.update(file.read(block))
  return digest.hexdigest()


class AnswerFile:
  """The answers of a file of prompts, a context manager; `done` bool [prompts]: which are there.

  Args:
    path: of the file.
    prompts: what it answers.
    settings: how; those of a file that is there already must be the same.

  Raises:
    UserError: the file is of other prompts or settings, is damaged, or another process writes it.
  """

  def __init__(self, path: str | os.PathLike, prompts: PromptFile, settings: Mapping[str, Any]):
    self.path, self.prompts = pathlib.Path(path), prompts
    self.settings = json.loads(json.dumps({"prompts": prompts.digest(), "count": len(prompts), **settings}))
    if is_remote(path) or not self.path.absolute().parent.is_dir():
      raise UserError(f"--out is {shown(os.fspath(path))}, and its folder does not exist. Create it first.")
    if self.path.exists() and not self.path.is_file():
      raise UserError(f"--out is {self.path}, a folder or a device. Name a file, existing or new.")
    self._beside = self.path.with_name(self.path.name + SETTINGS)
    if self.path.exists() and self.path.samefile(prompts.path):
      raise UserError(f"--out is {self.path}, the file of the prompts. Name another file.")
    self._check_settings()
    self._file = self._locked()
    self.done = np.zeros(len(prompts), bool)
    size = 0
    try:
      for index, _, end in self._answers(self._file):
        self.done[index], size = True, end
      self._file.truncate(size)  # A line that was cut off.
      self._file.seek(size)
      with replacing(self._beside) as path:
        path.write_text(json.dumps(self.settings, indent=2) + "\n")
    except BaseException:
      self._file.close()
      raise

  def __enter__(self) -> "AnswerFile":
    return self

  def __exit__(self, *_: object) -> None:
    self._file.close()

  def write(self, index: int, text: str, tokens: Sequence[int], ended: bool) -> None:
    """Appends an answer."""
    added = {"generated": text, "tokens": list(tokens), "finish": "end" if ended else "length"}
    line = {**self.prompts[index], "line": int(self.prompts.lines[index]) + 1, **added}
    self._file.write((json.dumps(line, ensure_ascii=False) + "\n").encode("utf-8", "replace"))
    self._file.flush()
    self.done[index] = True

  def sort(self) -> None:
    """Puts the answers into the order of their prompts, where they are not."""
    spans = np.full((len(self.prompts), 2), -1, np.int64)
    for index, start, end in self._answers(self._file):
      spans[index] = (start, end) if spans[index, 0] < 0 else spans[index]
    if (np.diff(spans[:, 0]) > 0).all():
      return
    with replacing(self.path) as path, open(path, "wb") as file:
      for start, end in spans.tolist():
        self._file.seek(start)
        file.write(self._file.read(end - start))

  def _check_settings(self) -> None:
    if not self.path.exists() or not self.path.stat().st_size:
      return
    if not self._beside.is_file():
      raise UserError(
        f"{self.path} exists without {self._beside.name}, which records its settings. Name another --out."
      )
    there = read_json(self._beside)
    different = [name for name in {**self.settings, **there} if self.settings.get(name) != there.get(name)]
    if different:
      name = different[0]
      raise UserError(
        f"{self.path} was written with other settings: {name} is {shown(there.get(name), 60)} there and "
        f"{shown(self.settings.get(name), 60)} now. Name another --out, or remove the file."
      )

  def _locked(self) -> BinaryIO:
    try:
      file = open(self.path, "r+b" if self.path.exists() else "w+b")
    except OSError as error:
      raise UserError(f"--out is {self.path}, which cannot be written: {error.strerror}. Name another file.") from error
    if fcntl is not None:
      try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except OSError as error:
        file.close()
        raise UserError(
          f"{self.path} is being written by another process. Wait for it, or name another --out."
        ) from error
    return file

  def _answers(self, file: BinaryIO) -> Generator[tuple[int, int, int]]:
    """(which prompt, first byte, end) of every whole line."""
    file.seek(0)
    start = 0
    for number, content in enumerate(file, start=1):
      end = start + len(content)
      if not content.endswith(b"\n"):
        return
      line: Any = None
      with contextlib.suppress(ValueError, TypeError, AttributeError):
        line = json.loads(content).get("line")
      index = int(np.searchsorted(self.prompts.lines, line - 1)) if type(line) is int else len(self.prompts)
      if index >= len(self.prompts) or self.prompts.lines[index] != line - 1:
        raise UserError(
          f"{self.path} line {number} is not an answer of this program. Name another --out, or repair the file."
        )
      yield index, start, end
      start = end


def planned(
  prompts: PromptFile, tokens_of: Callable[[dict[str, Any]], Sequence[int]], limit_of: Callable[[int, int | None], int]
) -> tuple[np.ndarray, np.ndarray]:
  """Reads every prompt once -> int32 [prompts], how many tokens each has, and how many new ones it may get.

  Args:
    tokens_of: fields -> tokens.
    limit_of: (tokens of the prompt, max_new_tokens of its line) -> how many new ones.
  """
  lengths, limits = np.zeros(len(prompts), np.int32), np.zeros(len(prompts), np.int32)
  for index in range(len(prompts)):
    fields = prompts[index]
    try:
      lengths[index] = len(tokens_of(fields))
      limits[index] = limit_of(int(lengths[index]), fields.get("max_new_tokens"))
    except UserError as error:
      raise UserError(f"{prompts.where(index)}: {error}") from error
  return lengths, limits
