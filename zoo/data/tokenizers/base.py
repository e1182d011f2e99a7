"""Tokenizers by two backends with the same ids: tiktoken, several times faster at byte pairs, and `tokenizers`."""

import contextlib
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np

from zoo.data.padding import check_row
from zoo.data.tokenizers.in_threads import encode_all
from zoo.errors import UserError, an, shown

ROLES = ("pad", "eos", "bos", "cls", "sep", "mask")
# Of GPT-2, https://github.com/openai/gpt-2/blob/master/src/encoder.py: words with the blank before, digits, symbols.
GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def check_text(text: Any, what: str = "A text") -> None:
  """UserError unless `text` is a str without lone surrogates, which occur in JSON that was cut within an emoji.

  `tokenizers` refuses a lone surrogate as transformers does, tiktoken replaces it by U+FFFD: here both refuse.

  Args:
    text: the text to encode.
    what: name of the text in messages.
  """
  if not isinstance(text, str):
    raise UserError(f"{what} is {shown(text)}, {an(type(text))}. It must be a str.")
  try:
    text.encode()
  except UnicodeEncodeError as error:
    around = shown(text[max(error.start - 40, 0) : error.start + 10])
    raise UserError(
      f"{what} contains half a character, {text[error.start]!r} at {error.start} in {around}, i.e. a lone surrogate. "
      "Remove it: text.encode('utf-16', 'surrogatepass').decode('utf-16', 'ignore')."
    ) from None


@contextlib.contextmanager
def readable(name: str) -> Generator[None]:
  """Context that raises UserError (`name` is corrupt) for a plain Exception of the `tokenizers` package or a panic
  of its Rust code, which is not an Exception."""
  try:
    yield
  except BaseException as error:
    if type(error) is not Exception and type(error).__name__ != "PanicException":
      raise
    raise UserError(f"The tokenizer {name} cannot be used: {str(error)[:200]}. Download its files again.") from None


class Tokenizer:
  """Tokenizer: text <-> ids, and texts -> a batch for a model.

  In `encode`, strings that look like special tokens are plain text: only a program inserts special ids. A call,
  `tokenizer(texts)`, adds the special tokens that the model expects and recognises those in a text.

  Attributes:
    name: the argument of `tokenizer`.
    vocab_size: ids are 0 .. vocab_size - 1.
    pad, eos, bos, cls, sep, mask: ids of special tokens, None if there is none.
    max_length: maximum tokens of its model, including special ones; None if unknown.
    pads_left, cuts_left: whether padding is added, and long texts are truncated, on the left.
  """

  pad: int | None
  eos: int | None
  bos: int | None
  cls: int | None
  sep: int | None
  mask: int | None
  max_length: int | None = None
  pads_left = cuts_left = False
  opener: ClassVar[Callable[[str], "Tokenizer"]]  # `tokenizer`, set by named.py.

  def __init__(self, name: str, vocab_size: int, roles: dict[str, int | None]):
    self.name, self.vocab_size = name, vocab_size
    for role in ROLES:
      setattr(self, role, roles.get(role))

  def __call__(
    self,
    texts: str | Sequence[str],
    pairs: str | Sequence[str] | None = None,
    *,
    length: int | None = None,
    cut: bool = True,
    special: bool = True,
  ) -> dict[str, np.ndarray]:
    """Tokenises texts, or pairs of texts, with the model's special tokens to a batch.

    Args:
      texts: one or several.
      pairs: the second text of each.
      length: columns; by default those of the longest row.
      cut: whether texts longer than `length`, by default max_length, are truncated, of a pair the longer
        one; else UserError.
      special: whether strings such as [MASK] in a text become special tokens; else they are plain text.

    Returns:
      tokens: int32 [batch, length]
      valid: bool [batch, length], False on padding
      segments: int32 [batch, length], for pairs: segment ids as in the model
    """
    several = lambda text: [text] if isinstance(text, str) or not isinstance(text, Iterable) else list(text)
    texts, pairs = several(texts), None if pairs is None else several(pairs)
    if pairs is not None and len(pairs) != len(texts):
      raise UserError(
        f"There are {len(texts)} texts and {len(pairs)} second texts. Give one second text for each text."
      )
    for text in [*texts, *(pairs or ())]:
      check_text(text)
    check_row(length=length or 0)
    limit = length or self.max_length
    rows = self._framed(texts, pairs, limit if cut else None, special)
    longest = max((len(ids) for ids, _ in rows), default=0)
    if limit is not None and longest > limit:
      raise UserError(f"A text has {longest} tokens, the limit is {limit}. Shorten it, or truncate: cut=True.")
    shape = (len(rows), length or longest)
    batch = {"tokens": np.full(shape, self.pad or 0, np.int32), "valid": np.zeros(shape, bool)}
    batch |= {} if pairs is None else {"segments": np.zeros(shape, np.int32)}
    for row, (ids, segments) in enumerate(rows):
      columns = slice(shape[1] - len(ids), None) if self.pads_left else slice(len(ids))
      batch["tokens"][row, columns], batch["valid"][row, columns] = ids, True
      if pairs is not None:
        batch["segments"][row, columns] = segments
    return batch

  def encode(self, text: str) -> list[int]:
    """The ids of a text, without special tokens. UserError for lone surrogates; see `check_text`."""
    raise NotImplementedError

  def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
    """Encodes several texts, on all cores."""
    return [self.encode(text) for text in texts]

  def decode(self, ids: Iterable[int] | np.ndarray, *, special: bool = True) -> str:
    """The text of ids; invalid UTF-8 becomes U+FFFD.

    Args:
      ids: int [length]
      special: whether special tokens appear by name; else they are skipped.
    """
    tokens = np.asarray(ids if isinstance(ids, np.ndarray) else list(ids), int).tolist()
    wrong = [token for token in tokens if not 0 <= token < self.vocab_size]
    if wrong:
      raise UserError(f"{wrong[0]} is not a token id of {self.name}: its ids are 0 to {self.vocab_size - 1}.")
    return self._decode(tokens, special)

  def text_of(self, ids: Iterable[int] | np.ndarray, *, special: bool = True) -> str:
    """As `decode`, of int [length] from a model: ids past the vocabulary, which pad its embedding, are left out."""
    return self.decode([token for token in ids if token < self.vocab_size], special=special)

  def word_starts(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
    """ids [length] -> bool [length]: True where a word begins. Special tokens and punctuation are words too."""
    ids = np.asarray(ids, int)
    opens, closes = self._borders
    starts = opens[ids]
    starts[1:] |= closes[ids[:-1]]
    starts[:1] = True
    return starts

  def changed(self, **attributes: Any) -> Self:
    """A copy with other attributes. Unpickling reopens the tokenizer by its name."""
    copied = object.__new__(type(self))
    copied.__dict__.update(self.__dict__, **attributes)
    return copied

  def __repr__(self) -> str:
    return self.name

  def __reduce__(self) -> tuple:
    return type(self).opener, (self.name,)  # Unpickling opens it by name.

  def _decode(self, ids: list[int], special: bool) -> str:
    raise NotImplementedError

  def _framed(
    self, texts: list[str], pairs: list[str] | None, limit: int | None, special: bool
  ) -> list[tuple[list[int], list[int]]]:
    """(ids, segments) of each row with its special tokens, truncated to `limit`."""
    raise NotImplementedError

  @cached_property
  def _borders(self) -> tuple[np.ndarray, np.ndarray]:
    """For each id: whether its token starts a word, and whether the next one must. bool [vocab_size] each."""
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
    # From packaged files; `tiktoken.get_encoding` would use the network.
    self.encoding = tiktoken.Encoding(
      f"zoo-{name}", pat_str=GPT2_PATTERN, mergeable_ranks=ranks, special_tokens=special
    )

  def encode(self, text: str) -> list[int]:
    check_text(text)
    return self.encoding.encode_ordinary(text)

  def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
    for text in texts:
      check_text(text)
    return encode_all(self.encoding.encode_ordinary, texts)

  def _framed(self, texts, pairs, limit, special):
    if pairs is not None:
      raise UserError(f"Tokenizer {self.name} does not encode pairs of texts. Try bert.")
    begin, end = ([], []) if self.bos == self.eos else ([self.bos], [self.eos])
    budget = None if limit is None else max(limit - len(begin) - len(end), 0)
    allowed = "all" if special else set()
    encoded = self.encoding.encode_batch(texts, allowed_special=allowed, disallowed_special=())
    return [([*begin, *ids[:budget], *end], []) for ids in encoded]

  def _decode(self, ids: list[int], special: bool) -> str:
    return self.encoding.decode([token for token in ids if special or not self.encoding.is_special_token(token)])

  def _border(self, token: int) -> tuple[bool, bool]:
    piece = self.encoding.decode_single_token_bytes(token)
    return not _in_word(piece[0]), not _in_word(piece[-1])


class Pieces(Tokenizer):
  """Tokenizer by the `tokenizers` package: word pieces, CLIP's byte pairs, sentence pieces, a tokenizer.json.

  The backend's post-processor adds special tokens.
  """

  def __init__(self, name: str, backend: Any, roles: dict[str, int | None], clean: Callable[[str], str] | None = None):
    super().__init__(name, max(backend.get_vocab().values(), default=-1) + 1, roles)
    self.backend, self.clean = backend, clean or str
    self.backend.encode_special_tokens = True
    self.backend.no_padding()
    self.backend.no_truncation()
    self._lock = threading.Lock()

  def encode(self, text: str) -> list[int]:
    check_text(text)
    with self._lock, readable(self.name):
      return self.backend.encode(self.clean(text), add_special_tokens=False).ids

  def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
    for text in texts:
      check_text(text)
    with self._lock, readable(self.name):
      return [row.ids for row in self.backend.encode_batch_fast(list(map(self.clean, texts)), add_special_tokens=False)]

  def _framed(self, texts, pairs, limit, special):
    added = self.backend.num_special_tokens_to_add(pairs is not None)
    if limit is not None and limit <= added:
      raise UserError(f"length is {limit}, of which {added} are special tokens. Make it larger.")
    firsts = [self.clean(text) for text in texts]
    rows = firsts if pairs is None else list(zip(firsts, map(self.clean, pairs)))
    with self._set(special, limit) as backend, readable(self.name):
      encoded = backend.encode_batch_fast(rows)
    return [(encoding.ids, encoding.type_ids) for encoding in encoded]

  @contextlib.contextmanager
  def _set(self, special: bool, limit: int | None) -> Generator[Any]:
    """Configures the backend for a call. Its settings are mutable state, so only one thread at a time."""
    with self._lock:
      self.backend.encode_special_tokens = not special
      if limit is not None:
        self.backend.enable_truncation(limit, direction="left" if self.cuts_left else "right")
      try:
        yield self.backend
      finally:
        self.backend.encode_special_tokens = True
        self.backend.no_truncation()

  def _decode(self, ids: list[int], special: bool) -> str:
    with readable(self.name):
      return self.backend.decode(ids, skip_special_tokens=not special).strip()

  def _border(self, token: int) -> tuple[bool, bool]:
    piece = self.backend.id_to_token(token) or ""
    if type(self.backend.model).__name__ == "WordPiece":
      return not piece.startswith(self.backend.model.continuing_subword_prefix), False
    if suffix := getattr(self.backend.model, "end_of_word_suffix", None):
      return False, piece.endswith(suffix)
    letters = piece.encode("utf-8", "replace") or b" "
    return piece.startswith(("\u0120", "\u2581")) or not _in_word(letters[0]), not _in_word(letters[-1])


def _in_word(byte: int) -> bool:
  """Whether a byte belongs to a word: letters, digits, and all non-ASCII bytes."""
  return byte >= 128 or chr(byte).isalnum()
