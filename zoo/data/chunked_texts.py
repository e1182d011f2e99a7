"""Documents cut into chunks, with class labels: batches of `tokens`, `valid` [batch, chunks, length] and `label`."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from zoo.data.bad_records import BadRecord
from zoo.data.class_labels import numbering
from zoo.data.columns import LABEL, TEXT, column
from zoo.data.columns import class_names as class_names_of
from zoo.data.fields import SourceRecords, encoder_for, first_record, text_info, text_of
from zoo.data.labelled_tokens import items_of
from zoo.data.padding import check_row
from zoo.data.pipeline import Example
from zoo.data.screening import open_checked
from zoo.errors import UserError

PROBE = "a"


def chunked_texts(
  source: str,
  split: str = "train",
  *,
  data_dir: str | None = None,
  tokenizer: str = "bert",
  max_length: int = 128,
  max_chunks: int = 32,
  overlap: int = 0,
  text_field: str | None = None,
  label_field: str | None = None,
  class_names: list[str] | None = None,
  classes: list[str] | None = None,
  labels: Mapping | None = None,
  cache: bool = True,
  bad_records: str | Mapping = "stop",
) -> "ChunkedTexts":
  """Labelled documents in chunks of tokens, each with the model's special tokens, for the family `hierarchical`.

  A document is a text, cut into chunks of as many tokens as fit, with one label; or a list of texts, each of which is
  a chunk, with one label or with a label for each chunk.

  Args:
    source, split, data_dir: see `zoo.data.sources.open_source`.
    tokenizer: name, or path of a tokenizer.json or of a published model's folder.
    max_length: tokens of a chunk, including special ones; a longer chunk of a list is truncated.
    max_chunks: of a document; the rest of a longer one is dropped.
    overlap: tokens that a chunk of a text repeats of the chunk before it.
    text_field: field of the text, or of the list of texts; None: `text`, or another usual name.
    label_field: field of the class, an int or a name, or of the list of classes, one for each chunk.
    class_names: names of the classes, in order of their indices; by default the source's, or those in `train`.
    classes, labels: names of a trained model's classes, and label of the data -> name or index; as in
      `labelled_texts`.
    cache: keep the tokens in memory.
    bad_records: "stop" at the first one, or {"action": "skip", "most": 0.01}; see `zoo.data.bad_records`.

  Each example: `tokens` int32 [max_chunks, max_length], `valid` bool, False on padding, likewise; `label` int32 [], or
  [max_chunks] of chunks, -1 for padding; `cut` int32 [], the number of chunks that are dropped. `info`: source,
  tokenizer, vocab_size, max_length, class_names (None if unknown), num_classes (None if unknown).

  Raises:
    UserError: the special tokens and the overlap fill a chunk.
  """
  check_row(max_length=max_length)
  check_row(max_chunks=max_chunks * max_length)
  raw, rule = open_checked(source, split, data_dir, bad_records)
  text_field = column(raw, "text_field", text_field, TEXT)
  label_field = column(raw, "label_field", label_field, LABEL)
  first = first_record(raw, rule, text_field, label_field)
  encoder = encoder_for(tokenizer, max_length)
  if not class_names and classes is None:
    class_names = class_names_of(raw, source, split, data_dir, label_field, first[label_field])
  number, names = numbering(raw, label_field, class_names, classes, labels)
  records = ChunkedTexts(raw, rule, cache)
  records.frame, records.shape, records.overlap = _frame(encoder), (max_chunks, max_length), overlap
  if max_chunks < 1 or overlap < 0 or records.room <= overlap:
    special = max_length - records.room
    raise UserError(
      f"chunked_texts: max_chunks {max_chunks}, max_length {max_length}, {special} special tokens and an overlap of "
      f"{overlap} leave no room for text. Raise max_length or lower overlap; max_chunks is at least 1."
    )
  records.tokenizer, records.fields, records.number = encoder, (text_field, label_field), number
  records.info = text_info(raw, encoder, max_length, class_names=names, num_classes=len(names) if names else None)
  return records


class ChunkedTexts(SourceRecords):
  """See `chunked_texts`."""

  tokenizer: Any
  frame: tuple[list[int], list[int]]
  shape: tuple[int, int]
  overlap: int
  fields: tuple[str, str]
  number: Callable[[Any, str], np.int32]

  @property
  def room(self) -> int:
    """Tokens of a chunk without its special tokens."""
    return self.shape[1] - sum(map(len, self.frame))

  def example(self, index: int, rng: np.random.Generator | None = None) -> Example:
    return self.prepared[index]

  def _prepare(self, raw: dict[str, Any], index: int) -> Example:
    what = self.source.where(index)
    self._check(raw, index, *self.fields)
    (text, label), listed = self.fields, [isinstance(raw[field], list | tuple | np.ndarray) for field in self.fields]
    chunks = self._chunks(raw[text], f"{what}: {text}", listed[0])
    example = self._padded(chunks)
    if not listed[1]:
      return {**example, "label": np.asarray(self.number(raw[label], what), np.int32)}
    numbers = [self.number(item, what) for item in items_of(raw[label], f"{what}: {label}")]
    if not listed[0] or len(numbers) != len(chunks):
      raise BadRecord(f"{what} has {len(chunks)} chunks and {len(numbers)} labels. Give each text of a list its own.")
    labels = np.full(self.shape[0], -1, np.int32)
    labels[: len(numbers)] = numbers[: self.shape[0]]
    return {**example, "label": labels}

  def _chunks(self, value: Any, what: str, listed: bool) -> list[list[int]]:
    """The ids of a document's chunks, without special tokens."""
    if listed:
      texts = [text_of(text, what) for text in items_of(value, what)]
      return [ids[: self.room] for ids in self.tokenizer.encode_batch(texts)]
    ids, step = self.tokenizer.encode(text_of(value, what)), self.room - self.overlap
    return [ids[start : start + self.room] for start in range(0, max(len(ids) - self.overlap, 1), step)]

  def _padded(self, chunks: list[list[int]]) -> Example:
    tokens = np.full(self.shape, self.tokenizer.pad or 0, np.int32)
    valid = np.zeros(self.shape, bool)
    for row, ids in enumerate(chunks[: self.shape[0]]):
      framed = [*self.frame[0], *ids, *self.frame[1]]
      columns = slice(-len(framed), None) if self.tokenizer.pads_left else slice(len(framed))
      tokens[row, columns], valid[row, columns] = framed, True
    return {"tokens": tokens, "valid": valid, "cut": np.asarray(max(len(chunks) - len(tokens), 0), np.int32)}


def _frame(tokenizer: Any) -> tuple[list[int], list[int]]:
  """The special tokens before and after a text."""
  framed, plain = tokenizer(PROBE)["tokens"][0].tolist(), tokenizer.encode(PROBE)
  for start in range(len(framed) - len(plain) + 1):
    if framed[start : start + len(plain)] == plain:
      return framed[:start], framed[start + len(plain) :]
  raise UserError(f"Tokenizer '{tokenizer}' adds special tokens within a text. Choose another, e.g. bert.")
