"""Tokenizers by name: `tokenizer("gpt2").encode("Hello")`. Vocabularies are packaged; nothing is downloaded."""

import html
import os
from functools import lru_cache
from pathlib import Path

from zoo.data import package_data
from zoo.data.tokenizers import open_clip
from zoo.data.tokenizers.base import BytePairs, Pieces, Tokenizer, readable
from zoo.data.tokenizers.folder import from_folder, guessed_roles
from zoo.data.tokenizers.vocabularies import CLIP_PATTERN, KINDS, framing
from zoo.errors import UserError, did_you_mean
from zoo.json_files import check_file


def tokenizer(name: str) -> Tokenizer:
  """Opens the tokenizer `name`: gpt2, clip, bert, bytes, sotu (trained on the speeches), or a path of a tokenizer.json
  or of a published model's folder.

  Raises:
    UserError: there is no tokenizer of this name or at this path.
  """
  if name in NAMED:
    return _open(name, 0)
  path = Path(str(name)).expanduser()
  if path.is_dir():
    # A copy of a repository may contain broken links, for which exists() is False.
    return _open(str(path), max((file.stat().st_mtime_ns for file in path.iterdir() if file.exists()), default=0))
  if path.suffix == ".json" or os.sep in str(name):
    if not path.is_file():
      raise UserError(
        f"There is no tokenizer file {path}. Check the path, or name one of: {', '.join(NAMED)}. For a hub id use "
        "zoo.load_tokenizer, or name it in a config."
      )
    return _open(str(path), path.stat().st_mtime_ns)
  raise UserError(
    f"There is no tokenizer '{name}'.{did_you_mean(str(name), NAMED)} "
    f"There are: {', '.join(NAMED)}, any path of a tokenizer.json or of a published model's folder, and where a config "
    "names it a hub id, with its owner: google-bert/bert-base-uncased."
  )


@lru_cache(maxsize=16)
def _open(name: str, stamp: int) -> Tokenizer:
  """Opens a tokenizer once per process, and again if a file's time stamp has changed."""
  if name in NAMED:
    return NAMED[name]()
  path = Path(name)
  if not path.is_dir():
    return _from_file(name)
  return open_clip.from_folder(path, _clip) if open_clip.is_open_clip(path) else from_folder(path)


def _gpt2() -> Tokenizer:
  tokens = _byte_pairs("gpt2.bpe.xz")
  end = len(tokens)  # <|endoftext|> both starts and ends a document.
  return BytePairs("gpt2", tokens, {"<|endoftext|>": end}, {"eos": end, "bos": end})


def _sotu() -> Tokenizer:
  return BytePairs("sotu", *_with_special(_byte_pairs("sotu.bpe.xz")))


def _bytes() -> Tokenizer:
  return BytePairs("bytes", *_with_special([bytes([byte]) for byte in range(256)]))


def _with_special(tokens: list[bytes]) -> tuple[list[bytes], dict[str, int], dict[str, int | None]]:
  """Adds our own special tokens, for GPT, BERT and CLIP alike: pad, begin (bos, cls), end (eos, sep), mask."""
  pad, begin, end, mask = range(len(tokens), len(tokens) + 4)
  special = {"<|pad|>": pad, "<|begin|>": begin, "<|end|>": end, "<|mask|>": mask}
  return tokens, special, {"pad": pad, "bos": begin, "cls": begin, "eos": end, "sep": end, "mask": mask}


def _clip() -> Tokenizer:
  """OpenAI's CLIP tokenizer: lower case, HTML entities resolved, straight quotes; but without ftfy."""
  from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers
  from tokenizers import Tokenizer as Backend

  merges = _merges("clip.bpe.xz")
  letters = list(_byte_letters().values())
  words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges)]
  vocab = {word: token for token, word in enumerate(words)}
  backend = Backend(models.BPE(vocab, merges, end_of_word_suffix="</w>"))
  straight = [("[\u02bc\u2018-\u201b]", "'"), ("[\u201c-\u201f]", '"'), (r"\s+", " ")]
  replace = [normalizers.Replace(Regex(pattern), new) for pattern, new in straight]
  backend.normalizer = normalizers.Sequence([normalizers.NFC(), *replace, normalizers.Lowercase()])
  split = pre_tokenizers.Split(Regex(CLIP_PATTERN), behavior="removed", invert=True)
  backend.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
  backend.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Replace("</w>", " ")])
  backend.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
  backend.post_processor = framing(KINDS["clip"].frame(KINDS["clip"].roles, {}), backend)
  begin, end = len(words), len(words) + 1
  # CLIP pads with 0 and pools at the highest id, the end token.
  roles: dict[str, int | None] = {"pad": 0, "bos": begin, "eos": end}
  tokenizer = Pieces("clip", backend, roles, clean=lambda text: html.unescape(html.unescape(text)))
  tokenizer.max_length = 77
  return tokenizer


def _bert() -> Tokenizer:
  """Lower-case English word pieces (bert-base-uncased)."""
  from tokenizers import Tokenizer as Backend
  from tokenizers import decoders, models, normalizers, pre_tokenizers

  vocab = {piece: token for token, piece in enumerate(package_data.lines("vocab/bert.txt.xz"))}
  backend = Backend(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
  backend.normalizer = normalizers.BertNormalizer(lowercase=True)
  backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  backend.decoder = decoders.WordPiece("##")
  special = {role: f"[{role.upper()}]" for role in ("pad", "cls", "sep", "mask")}
  backend.add_special_tokens([*special.values(), "[UNK]"])
  backend.post_processor = framing(KINDS["bert"].frame(KINDS["bert"].roles, {}), backend)
  tokenizer = Pieces("bert", backend, {role: vocab[token] for role, token in special.items()})
  tokenizer.max_length = 512
  return tokenizer


def _from_file(path: str) -> Tokenizer:
  """Opens a tokenizer.json; special tokens are detected by their usual names."""
  from tokenizers import Tokenizer as Backend

  check_file(path)
  with readable(path):
    backend = Backend.from_file(path)
  return Pieces(path, backend, guessed_roles(backend))


def _byte_pairs(file: str) -> list[bytes]:
  """The tokens of a byte-level encoding in order of ids: 256 bytes, then the results of merges."""
  byte_of = {letter: byte for byte, letter in _byte_letters().items()}
  merged = [bytes(byte_of[letter] for letter in "".join(pair)) for pair in _merges(file)]
  return [*(bytes([byte]) for byte in _byte_letters()), *merged]


def _byte_letters() -> dict[int, str]:
  """GPT-2's mapping of bytes to printable characters, in order of ids: printable bytes, then 256, 257 ..."""
  printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
  unprintable = [byte for byte in range(256) if byte not in printable]
  return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(unprintable)}


def _merges(file: str) -> list[tuple[str, str]]:
  pairs = [line.split(" ") for line in package_data.lines(f"vocab/{file}")]
  return [(first, second) for first, second in pairs]


NAMED = {"gpt2": _gpt2, "clip": _clip, "bert": _bert, "bytes": _bytes, "sotu": _sotu}
Tokenizer.opener = staticmethod(tokenizer)
