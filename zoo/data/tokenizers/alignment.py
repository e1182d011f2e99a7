"""Tokens with where they come from: the word of a list, or the characters of a text."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from zoo.data.tokenizers.base import Pieces, Tokenizer, check_text, readable
from zoo.errors import UserError


class Row(NamedTuple):
  """One row of tokens.

  Attributes:
    tokens: its ids, special ones counted.
    segments: int [tokens], which of two texts each is of, as the model counts them.
    origin: int [tokens] the word each is of; or int [tokens, 2] its first character and the end; -1: of nothing.
  """

  tokens: list[int]
  segments: list[int]
  origin: np.ndarray


def row_of_words(tokenizer: Tokenizer, words: Sequence[str], length: int) -> Row:
  """The tokens of a text that is split into words already, each tokenised as a word behind a blank.

  Args:
    tokenizer: one of the `tokenizers` package.
    words: of the text.
    length: most tokens; words that do not fit are left out.
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
  """A pair of texts in as many rows as the second text needs; the first is in each.

  Args:
    tokenizer: one of the `tokenizers` package.
    first, second: e.g. a question, and the text that it is about; origin is the place in the second.
    length: most tokens of a row.
    overlap: tokens of the second text that a row has in common with the one before it.

  Raises:
    UserError: `first` leaves no room for more of `second` than `overlap`.
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
    raise UserError(f"Tokenizer {tokenizer.name} does not tell which {what} a token is of. Use one from a folder.")
  return tokenizer


def _lacks_blanks(backend: Any) -> bool:
  """Whether words are to be given the blank before them: byte pairs that take a text as it stands."""
  from tokenizers import pre_tokenizers

  split = backend.pre_tokenizer
  return isinstance(split, pre_tokenizers.ByteLevel) and not split.add_prefix_space
