"""Merges a Whisper's transcripts of the windows of a recording.

Neighbouring windows hear the same few seconds. Their tokens are joined where they agree most; so does transformers'
pipeline for chunks (`_decode_asr` in its tokenization_whisper.py), with which this agrees token by token.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from zoo.data.tokenizers.base import Tokenizer
from zoo.hub.whisper_start import CODES

UNTIMED = "<|notimestamps|>"


class Marks(NamedTuple):
  """The special tokens of a Whisper.

  Attributes:
    special: all that are left out.
    languages: of these, the ones that name a language -> its code.
    times: the token of 0.00 s, after which come those of later times, a step apart; None: there are none.
    step: seconds.
  """

  special: frozenset[int]
  languages: Mapping[int, str]
  times: int | None
  step: float

  @classmethod
  def of(cls, tokenizer: Tokenizer, step: float) -> "Marks":
    """The special tokens of a tokenizer; without a backend only its roles."""
    backend = getattr(tokenizer, "backend", None)
    if backend is None:
      roles = (tokenizer.pad, tokenizer.eos, tokenizer.bos)
      return cls(frozenset(token for token in roles if token is not None), {}, None, step)
    special = frozenset(token for token, added in backend.get_added_tokens_decoder().items() if added.special)
    named = {code: backend.token_to_id(f"<|{code}|>") for code in CODES.values()}
    untimed = backend.token_to_id(UNTIMED)
    languages = {token: code for code, token in named.items() if token in special}
    return cls(special, languages, None if untimed is None else untimed + 1, step)

  def time(self, token: int) -> float | None:
    """Seconds from the start of a window; None for other tokens."""
    if self.times is None or token < self.times or token in self.special:
      return None
    return (token - self.times) * self.step


class Answer(NamedTuple):
  """The transcript of a window.

  Attributes:
    tokens: without those before and behind it.
    seconds: how long the window is.
    left, right: what of it the neighbours have too, in seconds.
  """

  tokens: Sequence[int]
  seconds: float
  left: float
  right: float


def joined(sequences: Sequence[Sequence[int]]) -> list[int]:
  """Sequences of tokens of which each overlaps the next, as one.

  Two are laid over each other in every way in which the end of the first can meet the start of the second. Best is
  where the largest share of tokens is equal, among equal shares the longest, and at least two tokens must be. The first
  counts up to the middle of what they share, the second from there on. Where nothing agrees, both are kept whole.

  >>> joined([[1, 2, 3, 4, 9], [8, 3, 4, 5, 6]])
  [1, 2, 3, 4, 5, 6]
  """
  text: list[int] = []
  left = np.asarray(sequences[0], np.int64)
  for sequence in sequences[1:]:
    right = np.asarray(sequence, np.int64)
    end_of_left, start_of_right = _middles(left, right)
    text += left[:end_of_left].tolist()
    left = right[start_of_right:]
  return text + left.tolist()


def _middles(left: np.ndarray, right: np.ndarray) -> tuple[int, int]:
  """The number of tokens of `left` to keep, and of `right` to drop."""
  if not len(left) or not len(right):
    return len(left), 0
  shifts = np.arange(1, len(left) + len(right))  # How far `right` reaches into `left`, and beyond.
  rows, columns = np.nonzero(left[:, None] == right[None])
  equal = np.bincount(len(left) - rows + columns, minlength=len(left) + len(right))[1:]
  scores = np.where(equal > 1, equal / shifts + shifts / 10_000, 0.0)
  best = int(scores.argmax())
  if scores[best] == 0:
    return len(left), 0
  shift = best + 1
  of_left = max(0, len(left) - shift), min(len(left), len(left) + len(right) - shift)
  of_right = max(0, shift - len(left)), min(len(right), shift)
  return sum(of_left) // 2, sum(of_right) // 2


def merged(answers: Iterable[Answer], marks: Marks, decode: Callable[[list[int]], str]) -> str:
  """The text of a recording by what was written for its windows, in order."""
  pieces = _Pieces(marks)
  for answer in answers:
    pieces.add(answer)
  return "".join(decode(tokens) for tokens in pieces.finished()).strip()


class _Pieces:
  """Tokens of finished pieces of text, and those of the windows that the piece at hand began in.

  Without times a recording is one piece. A token of a time, which a Whisper may write all the same, ends one where it
  closes what another opened, unless it lies where the next window hears better; a change of the language does, too.
  """

  def __init__(self, marks: Marks):
    self.marks = marks
    self.done: list[list[int]] = []
    self.waiting: list[list[int]] = []  # Of each window before, what belongs to the piece at hand.
    self.opened: float | None = None
    self.language: str | None = None
    self.offset, self.skips = 0.0, False

  def add(self, answer: Answer) -> None:
    """Takes in what was written for the next window."""
    self.offset -= answer.left
    first, last = answer.left / self.marks.step, self._last_time(answer)
    current: list[int] = []
    past = latest = before = 0.0  # Of the times of earlier windows within this answer, its last two times.
    for index, token in enumerate(answer.tokens):
      time = self.marks.time(token)
      if token in self.marks.special:
        code = self.marks.languages.get(token)
        if code is not None:
          if self.language not in (None, code):
            self._finish(current)
            current = []
          self.language = code
        continue
      if time is None:
        current.append(token)
        continue
      if time < latest:
        alone = index >= 2 and not all(self.marks.time(t) is not None for t in answer.tokens[index - 2 : index])
        if alone:
          past += 1500 * self.marks.step
        else:
          latest = before
          past += before
      before, latest = latest, time
      if self._closes(token, round(time + self.offset + past, 2), first, last):
        self._finish(current)
        current = []
    self.offset += answer.seconds - answer.right
    if current:
      self.waiting.append(current)
    elif not any(self.waiting):
      self.waiting, self.opened = [], None

  def finished(self) -> list[list[int]]:
    """The tokens of all pieces."""
    return [*self.done, joined(self.waiting)] if self.waiting else self.done

  def _last_time(self, answer: Answer) -> int | None:
    """The first of the times that lie where the next window hears better, or the last of all; None: there is none."""
    last = None
    for token in reversed(answer.tokens) if answer.right else ():
      time = self.marks.time(token)
      if time is not None:
        if last is not None and time < answer.seconds - answer.right:
          break
        last = token
    return last

  def _closes(self, token: int, time: float, first: float, last: int | None) -> bool:
    """Whether the token of a time ends the piece at hand; else it may open one."""
    if last is not None and token >= last:
      self.skips = True
    elif self.skips or self.waiting and token < first + (self.marks.times or 0):
      self.skips = False
    elif self.opened is None:
      self.opened = time
    elif time != self.opened:
      self.opened = None
      return True
    return False

  def _finish(self, current: list[int]) -> None:
    self.done.append(joined([*self.waiting, current]))
    self.waiting, self.opened = [], None
