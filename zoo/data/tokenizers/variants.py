"""Variants of a tokenizer that differ in one step."""

import threading
from typing import Any

from zoo.data.tokenizers.base import Pieces, Tokenizer
from zoo.errors import UserError


def lower_cased(tokenizer: Tokenizer) -> Tokenizer:
  """A copy that lower-cases texts first; special tokens in them stay as they are."""
  from tokenizers import normalizers

  backend = _copy(tokenizer)
  before, lower = backend.normalizer, normalizers.Lowercase()
  backend.normalizer = lower if before is None else normalizers.Sequence([lower, before])
  return tokenizer.changed(backend=backend, _lock=threading.Lock())


def without_special(tokenizer: Tokenizer) -> Tokenizer:
  """A copy that adds no special tokens."""
  backend = _copy(tokenizer)
  backend.post_processor = None
  return tokenizer.changed(backend=backend, _lock=threading.Lock())


def _copy(tokenizer: Tokenizer) -> Any:
  from tokenizers import Tokenizer as Backend

  if not isinstance(tokenizer, Pieces):
    raise UserError(f"Tokenizer {tokenizer} has no normalizer and no post-processor to change. Choose another.")
  backend = Backend.from_str(tokenizer.backend.to_str())
  backend.encode_special_tokens = True  # A setting that is lost when the backend is serialised.
  return backend
