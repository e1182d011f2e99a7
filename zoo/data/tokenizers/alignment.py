"""Tokens aligned with their origin: the word of a list, or the characters of a text."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from zoo.data.tokenizers.base import Pieces, Tokenizer, check_text, readable
from zoo.errors import UserError


class Row(NamedTuple):
  """One row of aligned tokens.

  Attributes:
    tokens: token ids, including special ones.
    segments: int [tokens], segment ids as in the model.
    origin: int [tokens], index of the word; or int [tokens, 2], character span; -1 for special tokens.
  """

  tokens: list[int]
  segments: list[int]
  origin: np.ndarray


def row_of_words(tokenizer: Tokenizer, words: Sequence[str], length: int) -> Row:
  """Tokenises a text that is already split into words, each as a word after a blank.

  Args:
    tokenizer: a tokenizer of the `tokenizers` package.
    words: the words.
    length: maximum tokens; words that do not fit are dropped.
  """
  pieces = _pieces(tokenizer, "words")
  words = [pieces.clean(_checked(word)) for word in words]
  with pieces._set(True, length) as backend, readable(pieces.name):
    if _lacks_blanks(backend):
      words = [f" {word}" for word in words]
    encoding = backend.encode(words, is_pretokenized=True)
  origin = np.array([-1 if word is None else word for word in encoding.word_ids])
  return Row(encoding.ids, encoding.type_ids, origin)


def rows_of_windows(tokenizer: Tokenizer, first: str, second: str, length: int, overlap: int) -> list[Row]:
  """Tokenises a pair of texts in as many windows of the second as needed, each with the first.

  Args:
    tokenizer: a tokenizer of the `tokenizers` package.
    first, second: e.g. a question and its context; origin refers to the second.
    length: maximum tokens of a row.
    overlap: tokens of the second text that adjacent rows share.

  Raises:
    UserError: `first` leaves no space for more of `second` than `overlap`.
  """
  pieces = _pieces(tokenizer, "characters")
  for text in (first, second):
    _checked(text)
  with pieces._set(True, None) as backend, readable(pieces.name):
    size = len(backend.encode(first, add_special_tokens=False).ids) + backend.num_special_tokens_to_add(True)
    if length - size <= overlap:
      raise UserError(
        f"The question {first[:60]!r} takes {size} of {length} tokens, which leaves no room for windows that overlap "
        f"by {overlap}. Raise max_length or lower stride."
      )
    backend.enable_truncation(length, stride=overlap, strategy="only_second")
    encoding = backend.encode(first, second)
  rows = []
  for part in (encoding, *encoding.overflowing):
    of_second = np.array([sequence == 1 for sequence in part.sequence_ids])
    rows.append(Row(part.ids, part.type_ids, np.where(of_second[:, None], np.array(part.offsets), -1)))
  return rows


def _checked(text: Any) -> str:
  check_text(text)
  return text


def _pieces(tokenizer: Tokenizer, what: str) -> Pieces:
  if not isinstance(tokenizer, Pieces):
    raise UserError(f"Tokenizer {tokenizer.name} does not map tokens to {what}. Use one from a folder.")
  return tokenizer


def _lacks_blanks(backend: Any) -> bool:
  """Whether words need a blank prepended: byte-pair tokenizers that do not add one themselves."""
  from tokenizers import pre_tokenizers

  split = backend.pre_tokenizer
  return isinstance(split, pre_tokenizers.ByteLevel) and not split.add_prefix_space
