"""Tokenisation as in lm-evaluation-harness."""

import functools
from typing import Any

from zoo.errors import UserError


class HarnessTokenizer:
  """A tokenizer with optional special tokens around a text, which recognises special tokens in it.

  Attributes:
    end: the end-of-text token, None if there is none; end_sign: its string.
    prefix: the token before a text without context.
  """

  def __init__(self, tokenizer: Any, vocab_size: int, add_bos_token: bool | None, prefix_token_id: int | None):
    """UserError unless there is a prefix among the model's `vocab_size` tokens; see `zoo.evaluate.harness.adapter`."""
    self.tokenizer, self.vocab_size = tokenizer.changed(max_length=None), min(tokenizer.vocab_size, vocab_size)
    self.add = add_bos_token
    self.end = tokenizer.eos if tokenizer.eos is not None else tokenizer.sep
    begin = tokenizer.bos if tokenizer.bos is not None else self.end
    prefix = begin if prefix_token_id is None else prefix_token_id
    if not isinstance(prefix, int) or isinstance(prefix, bool) or not 0 <= prefix < vocab_size:
      raise UserError(
        f"Texts without context follow the token {prefix}, not a token of the model. Choose one from 0 to "
        f"{vocab_size - 1} as prefix_token_id."
      )
    self.prefix = prefix
    self.prefix_sign = self._sign(prefix)
    self.end_sign = None if self.end is None else self._sign(self.end)
    framed, plain = self._framed("a"), self.tokenizer.encode("a")
    starts = range(len(framed) - len(plain) + 1)
    self._opens = next((start for start in starts if framed[start : start + len(plain)] == plain), 0)
    self._closes = max(len(framed) - len(plain) - self._opens, 0)

  def encode(self, text: str, special: bool | None = None) -> list[int]:
    """The ids of a text.

    Args:
      text: any.
      special: whether to add the tokens around a text; None: as in add_bos_token, else as in the tokenizer, but
        never around a text that begins with the prefix.
    """
    add = self.add if special is None else special
    if special is None and self.prefix_sign and text.startswith(self.prefix_sign):
      add = False
    ids = self._framed(text)
    return ids if add is None or add else ids[self._opens : len(ids) - self._closes]

  def decode(self, ids: list[int]) -> str:
    """The text of ids, without special tokens and ids beyond the vocabulary, such as padding of an embedding."""
    return self.tokenizer.text_of(ids, special=False)

  @functools.lru_cache(maxsize=8)  # noqa: B019  It lives as long as an evaluation.
  def stops(self, until: tuple[str, ...]) -> list[list[int]]:
    """Token sequences that stop generation at the strings `until`: their encodings, and all tokens that contain one.

    Texts are truncated as strings afterwards; this only saves computation. Repeated up to a power of two, so
    that other stops do not recompile.
    """
    signs = [sign for sign in until if sign]
    encoded = [tuple(self.tokenizer.encode(sign)) for sign in signs]
    holding = [(token,) for token, piece in enumerate(self._pieces) if any(sign in piece for sign in signs)]
    stops = [list(ids) for ids in dict.fromkeys([*encoded, *holding]) if ids]
    return [*stops, *[stops[-1]] * (power_above(len(stops), 2) - len(stops))] if stops else []

  @functools.cached_property
  def _pieces(self) -> list[str]:
    """The string of each token."""
    before = self.tokenizer.encode("a")
    start = self.tokenizer.decode(before)
    return [self.tokenizer.decode([*before, token]).removeprefix(start) for token in range(self.vocab_size)]

  def _sign(self, token: int) -> str:
    return self.tokenizer.text_of([token])

  def _framed(self, text: str) -> list[int]:
    return self.tokenizer([text])["tokens"][0].tolist()


def power_above(size: int, base: int) -> int:
  """The smallest power of `base` that is at least `size`.

  >>> power_above(5, 2), power_above(1, 4)
  (8, 1)
  """
  power = 1
  while power < size:
    power *= base
  return power
