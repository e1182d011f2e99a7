"""What a tokenizer is, and the two kinds: byte pairs on tiktoken, and all that the `tokenizers` package runs.

tiktoken is several times faster than `tokenizers` at byte pairs, and both give the same ids.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from zoo.errors import UserError

ROLES = ("pad", "eos", "bos", "cls", "sep", "mask")
# Of GPT-2, https://github.com/openai/gpt-2/blob/master/src/encoder.py: a word with a blank before it, digits, signs.
GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


class Tokenizer:
  """Text <-> ids. Signs that look like special tokens are text like any other: only a program inserts special ids.

  Attributes:
    name: what `tokenizer` was asked for.
    vocab_size: ids are 0 .. vocab_size - 1.
    pad, eos, bos, cls, sep, mask: ids of special tokens, None where there is none.
  """

  pad: int | None
  eos: int | None
  bos: int | None
  cls: int | None
  sep: int | None
  mask: int | None

  def __init__(self, name: str, vocab_size: int, roles: dict[str, int | None]):
    self.name, self.vocab_size = name, vocab_size
    for role in ROLES:
      setattr(self, role, roles.get(role))

  def encode(self, text: str) -> list[int]:
    """The ids of a text, without any special token."""
    raise NotImplementedError

  def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
    """The same as encoding one by one, on all cores."""
    return [self.encode(text) for text in texts]

  def decode(self, ids: Iterable[int] | np.ndarray) -> str:
    """The text of ids; special tokens appear by their names, bytes that are no UTF-8 as U+FFFD."""
    known = np.asarray(ids if isinstance(ids, np.ndarray) else list(ids), int).tolist()
    wrong = [token for token in known if not 0 <= token < self.vocab_size]
    if wrong:
      raise UserError(f"{wrong[0]} is no token of {self.name}: its ids are 0 to {self.vocab_size - 1}.")
    return self._decode(known)

  def word_starts(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
    """ids [length] -> bool [length]: True where a word begins. Special tokens and punctuation are words too."""
    ids = np.asarray(ids, int)
    opens, closes = self._borders
    starts = opens[ids]
    starts[1:] |= closes[ids[:-1]]
    starts[:1] = True
    return starts

  def __repr__(self) -> str:
    return self.name

  def __reduce__(self) -> tuple:
    from zoo.data.tokenizers import tokenizer  # Other processes open it themselves.

    return tokenizer, (self.name,)

  def _decode(self, ids: list[int]) -> str:
    raise NotImplementedError

  @cached_property
  def _borders(self) -> tuple[np.ndarray, np.ndarray]:
    """For each id: does its token open a word, and is the next token the beginning of one? bool [vocab_size] each."""
    special = {getattr(self, role) for role in ROLES}
    borders = [(True, True) if i in special else self._border(i) for i in range(self.vocab_size)]
    opens, closes = np.array(borders).T
    return opens, closes

  def _border(self, token: int) -> tuple[bool, bool]:
    raise NotImplementedError


class BytePairs(Tokenizer):
  """Byte-level byte-pair encoding by tiktoken: any text, exactly restored. Without merges: plain bytes."""

  def __init__(self, name: str, tokens: list[bytes], special: dict[str, int], roles: dict[str, int | None]):
    import tiktoken

    super().__init__(name, len(tokens) + len(special), roles)
    ranks = {token: rank for rank, token in enumerate(tokens)}
    # Made from what we ship; `tiktoken.get_encoding` would ask the network.
    self.encoding = tiktoken.Encoding(
      f"zoo-{name}", pat_str=GPT2_PATTERN, mergeable_ranks=ranks, special_tokens=special
    )

  def encode(self, text: str) -> list[int]:
    return self.encoding.encode_ordinary(text)

  def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
    return self.encoding.encode_ordinary_batch(list(texts))

  def _decode(self, ids: list[int]) -> str:
    return self.encoding.decode(ids)

  def _border(self, token: int) -> tuple[bool, bool]:
    piece = self.encoding.decode_single_token_bytes(token)
    return not _in_word(piece[0]), not _in_word(piece[-1])


class Pieces(Tokenizer):
  """Anything that the `tokenizers` package runs: word pieces, CLIP's byte pairs, sentence pieces, a tokenizer.json."""

  def __init__(self, name: str, backend: Any, roles: dict[str, int | None], clean: Callable[[str], str] | None = None):
    super().__init__(name, backend.get_vocab_size(), roles)
    self.backend, self.clean = backend, clean or str
    self.backend.encode_special_tokens = True
    self.backend.no_padding()
    self.backend.no_truncation()

  def encode(self, text: str) -> list[int]:
    return self.backend.encode(self.clean(text), add_special_tokens=False).ids

  def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
    encoded = self.backend.encode_batch_fast([self.clean(text) for text in texts], add_special_tokens=False)
    return [encoding.ids for encoding in encoded]

  def _decode(self, ids: list[int]) -> str:
    return self.backend.decode(ids, skip_special_tokens=False).strip()

  def _border(self, token: int) -> tuple[bool, bool]:
    piece = self.backend.id_to_token(token) or ""
    if type(self.backend.model).__name__ == "WordPiece":
      return not piece.startswith(self.backend.model.continuing_subword_prefix), False
    suffix = getattr(self.backend.model, "end_of_word_suffix", None)
    if suffix:
      return False, piece.endswith(suffix)
    letters = piece.encode("utf-8", "replace") or b" "
    return piece.startswith(("\u0120", "\u2581")) or not _in_word(letters[0]), not _in_word(letters[-1])


def _in_word(byte: int) -> bool:
  """Letters, digits, and every byte of a sign beyond ASCII."""
  return byte >= 128 or chr(byte).isalnum()
