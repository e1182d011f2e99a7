"""A tokenised corpus: a text source as one token array, cached on disk."""

import array
import functools
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from zoo.data.blocks import VerifiedArray, block_sums
from zoo.data.cache import build_once, cache_folder, discard, is_cheap
from zoo.data.fields import texts_of
from zoo.data.sources import Source
from zoo.data.tokenizers.base import check_text
from zoo.errors import UserError
from zoo.progress import progress

TOKENS, BLOCKS = "tokens.bin", "blocks.npy"  # Files of a cache entry: tokens, and their `block_sums`.
_BATCH_CHARACTERS = 4_000_000  # Characters tokenised at a time: enough to keep all cores busy, with little memory.


class Corpus(NamedTuple):
  """A tokenised corpus: documents are runs of pieces (the full document, or its sentences); pieces are runs of tokens.

  Attributes:
    tokens: [tokens] uint16 or uint32, without special tokens; an array, or read from disk slice by slice.
    piece_ends: [pieces] int64: piece p is tokens[piece_ends[p - 1] : piece_ends[p]].
    document_ends: [documents] int64: document d is pieces document_ends[d - 1] to document_ends[d].
    num_bytes: bytes of the text in UTF-8.
  """

  tokens: np.ndarray | VerifiedArray
  piece_ends: np.ndarray
  document_ends: np.ndarray
  num_bytes: int


class Chunks:
  """The concatenated documents of a corpus, cut into chunks of `length` tokens: `chunks[i]` int32 [length].

  The last chunk overlaps the previous one, so that all have the same length.
  """

  def __init__(self, corpus: Corpus, length: int, source: str):
    if len(corpus.tokens) < length:
      raise UserError(f"{source} holds {len(corpus.tokens)} tokens, an example needs {length}. Lower data.max_length.")
    self.tokens, self.length = corpus.tokens, length

  def __len__(self) -> int:
    return -(-len(self.tokens) // self.length)

  def __getitem__(self, index: int) -> np.ndarray:
    if not 0 <= index < len(self):
      raise IndexError(f"There are {len(self)} chunks; index {index} is out of range.")
    first = min(index * self.length, len(self.tokens) - self.length)
    return self.tokens[first : first + self.length].astype(np.int32)


def tokenised(
  source: Source, tokenizer: Any, *, field: str, pieces: Callable[[str], list[str]] | None = None, cache: bool = True
) -> Corpus:
  """Tokenises all texts of `source`.

  Args:
    source: raw examples.
    tokenizer: from `zoo.data.tokenizers`.
    field: field that holds the text.
    pieces: splits a document, e.g. into sentences; None keeps it in one piece.
    cache: store the tokens on disk, for later runs and other processes. A cache of up to
      `zoo.data.cache.CHEAP` bytes is verified against its checksums each time, and rebuilt if it has changed;
      a larger one block by block on first access, so that no run waits for it. There a block
      that has changed ends the run, and the next run rebuilds the cache.
  """
  dtype = np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32
  if not cache or source.fingerprint is None:
    chunks: list[np.ndarray] = []
    ends = _encode(source, tokenizer, field, pieces, lambda ids: chunks.append(np.asarray(ids, dtype)))
    return Corpus(np.concatenate(chunks), *ends)

  def write(folder: Path) -> None:
    with open(folder / TOKENS, "wb") as file:
      ends = _encode(source, tokenizer, field, pieces, lambda ids: np.asarray(ids, dtype).tofile(file))
    np.save(folder / BLOCKS, block_sums(folder / TOKENS))
    np.savez(folder / "ends.npz", piece_ends=ends[0], document_ends=ends[1], num_bytes=ends[2])

  identity = [source.fingerprint, _fingerprint(tokenizer), field, getattr(pieces, "__qualname__", "")]
  key = hashlib.blake2b(json.dumps(identity).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
  folder = cache_folder() / "tokens" / key
  build_once(folder, write, verified_later=[TOKENS] if (folder / BLOCKS).exists() else [])
  with np.load(folder / "ends.npz") as ends:
    piece_ends, document_ends, num_bytes = ends["piece_ends"], ends["document_ends"], int(ends["num_bytes"])
  if is_cheap(folder / TOKENS) or not (folder / BLOCKS).exists():
    return Corpus(np.memmap(folder / TOKENS, dtype, "r"), piece_ends, document_ends, num_bytes)
  tokens = VerifiedArray(folder / TOKENS, dtype, np.load(folder / BLOCKS), functools.partial(discard, folder))
  return Corpus(tokens, piece_ends, document_ends, num_bytes)


def _encode(
  source: Source,
  tokenizer: Any,
  field: str,
  pieces: Callable[[str], list[str]] | None,
  write: Callable[[list[int]], None],
) -> tuple[np.ndarray, np.ndarray, int]:
  """Passes every piece's tokens to `write`; returns piece ends, document ends and the bytes of the text."""
  piece_lengths, document_lengths, num_bytes = array.array("q"), array.array("q"), 0  # A list takes 4 times as much.
  with progress(f"tokenising {source.name}", len(source), "documents") as advance:
    for documents in _batched(source, field):
      num_bytes += sum(len(document.encode()) for document in documents)
      split = [pieces(document) if pieces else [document] for document in documents]
      encoded = iter(tokenizer.encode_batch([part for parts in split for part in parts]))
      for parts in split:
        of_document = [ids for _, ids in zip(parts, encoded) if ids or pieces is None]  # A sentence may have no tokens.
        document_lengths.append(len(of_document))
        piece_lengths.extend(len(ids) for ids in of_document)
        for ids in of_document:
          write(ids)
      advance(len(documents))
  if not any(piece_lengths):
    raise UserError(f"{source.name} has no text in field '{field}'.")
  return _ends(piece_lengths), _ends(document_lengths), num_bytes


def _ends(lengths: array.array) -> np.ndarray:
  ends = np.frombuffer(lengths, np.int64)
  return np.cumsum(ends, out=ends)


def _batched(source: Source, field: str) -> Iterator[list[str]]:
  documents: list[str] = []
  size = 0
  for index in range(len(source)):
    raw = source[index]
    what = source.where(index)
    if field not in raw:
      raise UserError(f"{what} has no field '{field}'. It has: {', '.join(raw)}.")
    text = "\n\n".join(texts_of(raw[field], f"{what}: {field}"))
    check_text(text, f"{what}: {field}")
    documents.append(text)
    size += len(text)
    if size > _BATCH_CHARACTERS:
      yield documents
      documents, size = [], 0
  yield documents


def _fingerprint(tokenizer: Any) -> str:
  """A tokenizer's fingerprint, from some thousands of its tokens and an encoded sample."""
  tokens = [tokenizer.decode([token]) for token in range(0, tokenizer.vocab_size, 1 + tokenizer.vocab_size // 4096)]
  sample = "The year 1790: fellow-citizens, don\u2019t \u00e9conomise!\n\n\tANTIDISESTABLISHMENTARIANISM \u4f60\u597d"
  return repr([tokenizer.vocab_size, tokens, tokenizer.encode(sample)])
