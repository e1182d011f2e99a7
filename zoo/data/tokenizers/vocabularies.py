"""Tokenizers from their vocabulary files alone: BERT's word pieces, the byte pairs of GPT-2, RoBERTa and CLIP.

Published folders have such files beside or instead of a tokenizer.json.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from zoo.errors import UserError
from zoo.json_files import check_file, read_json

# Of CLIP, https://github.com/openai/CLIP/blob/main/clip/simple_tokenizer.py: words, single digits, other signs.
CLIP_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class Kind(NamedTuple):
  """A tokenizer algorithm.

  Args:
    build: (folder, roles, settings) -> a backend of the `tokenizers` package, without special tokens.
    frame: (roles, settings) -> templates of a text and of a pair for `TemplateProcessing`: a text is
      $A or $B, with the suffix :1 for the second segment.
    roles: role -> default token string.
    settings: the entries of tokenizer_config.json that affect tokenisation, with their defaults.
  """

  build: Callable[[Path, Mapping[str, str], Mapping[str, Any]], Any]
  frame: Callable[[Mapping[str, str], Mapping[str, Any]], tuple[str, str]]
  roles: Mapping[str, str]
  settings: Mapping[str, Any]


def word_pieces(folder: Path, roles: Mapping[str, str], settings: Mapping[str, Any]) -> Any:
  """Word pieces from vocab.txt: https://github.com/google-research/bert, tokenization.py."""
  from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

  vocab = {line.rstrip("\r\n"): token for token, line in enumerate(_lines(folder / "vocab.txt"))}
  backend = Tokenizer(models.WordPiece(vocab, unk_token=roles["unk"]))
  backend.normalizer = normalizers.BertNormalizer(
    clean_text=True,
    handle_chinese_chars=settings["tokenize_chinese_chars"],
    strip_accents=settings["strip_accents"],
    lowercase=settings["do_lower_case"],
  )
  backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  backend.decoder = decoders.WordPiece("##")
  return backend


def byte_pairs(folder: Path, roles: Mapping[str, str], settings: Mapping[str, Any]) -> Any:
  """Byte pairs from vocab.json and merges.txt, for GPT-2 and RoBERTa."""
  from tokenizers import Tokenizer, decoders, models, pre_tokenizers

  backend = Tokenizer(models.BPE(*_vocab_and_merges(folder)))
  backend.pre_tokenizer = pre_tokenizers.ByteLevel(settings["add_prefix_space"])
  backend.decoder = decoders.ByteLevel()
  return backend


def clip_pairs(folder: Path, roles: Mapping[str, str], settings: Mapping[str, Any]) -> Any:
  """Byte pairs from vocab.json and merges.txt, for CLIP."""
  from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

  vocab, merges = _vocab_and_merges(folder)
  backend = Tokenizer(models.BPE(vocab, merges, end_of_word_suffix="</w>", unk_token=roles["unk"]))
  blanks = normalizers.Replace(Regex(r"\s+"), " ")
  backend.normalizer = normalizers.Sequence([normalizers.NFC(), blanks, normalizers.Lowercase()])
  pattern = rf"<\|startoftext\|>|<\|endoftext\|>|{CLIP_PATTERN}"
  split = pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True)
  backend.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False)])
  backend.decoder = decoders.ByteLevel()
  return backend


def _bert_frame(roles, settings):
  return "{cls} $A {sep}".format(**roles), "{cls} $A {sep} $B:1 {sep}:1".format(**roles)


def _gpt2_frame(roles, settings):
  bos = f"{roles['bos']} " if settings["add_bos_token"] else ""
  return f"{bos}$A", f"{bos}$A {bos.replace(' ', ':1 ')}$B:1"


def _roberta_frame(roles, settings):
  return "{cls} $A {sep}".format(**roles), "{cls} $A {sep} {sep} $B {sep}".format(**roles)


def _clip_frame(roles, settings):
  return "{bos} $A {eos}".format(**roles), "{bos} $A {eos} {eos} $B {eos}".format(**roles)


_GPT2 = {"unk": "<|endoftext|>", "bos": "<|endoftext|>", "eos": "<|endoftext|>"}
_ROBERTA = {"unk": "<unk>", "bos": "<s>", "eos": "</s>", "sep": "</s>", "cls": "<s>", "pad": "<pad>", "mask": "<mask>"}
_PIECES = {"do_lower_case": True, "tokenize_chinese_chars": True, "strip_accents": None}
KINDS = {
  "bert": Kind(
    word_pieces,
    _bert_frame,
    {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"},
    _PIECES,
  ),
  "mpnet": Kind(word_pieces, _roberta_frame, {**_ROBERTA, "unk": "[UNK]"}, _PIECES),
  "gpt2": Kind(byte_pairs, _gpt2_frame, _GPT2, {"add_prefix_space": False, "add_bos_token": False}),
  "roberta": Kind(
    byte_pairs,
    _roberta_frame,
    _ROBERTA,
    {"add_prefix_space": False},
  ),
  "clip": Kind(clip_pairs, _clip_frame, {**_GPT2, "bos": "<|startoftext|>", "pad": "<|endoftext|>"}, {}),
}
# Classes of the reference, without "Tokenizer" and "TokenizerFast", and values of model_type -> a kind.
OF_CLASS = {
  "Bert": "bert", "DistilBert": "bert", "Electra": "bert", "MobileBert": "bert", "ConvBert": "bert", "GPT2": "gpt2",
  "Roberta": "roberta", "Longformer": "roberta", "Bart": "roberta", "CLIP": "clip",
  "MPNet": "mpnet",
}  # fmt: skip
OF_MODEL_TYPE = {
  "bert": "bert", "distilbert": "bert", "electra": "bert", "mobilebert": "bert", "convbert": "bert", "gpt2": "gpt2",
  "roberta": "roberta", "longformer": "roberta", "bart": "roberta", "clip": "clip", "clip_text_model": "clip",
  "mpnet": "mpnet",
}  # fmt: skip


def framing(frame: tuple[str, str], backend: Any) -> Any:
  """The post-processor of a kind's frame."""
  from tokenizers import processors

  signs = {sign.removesuffix(":1") for part in frame for sign in part.split() if not sign.startswith("$")}
  ids = [(sign, backend.token_to_id(sign)) for sign in sorted(signs)]
  return processors.TemplateProcessing(single=frame[0], pair=frame[1], special_tokens=ids)


def _vocab_and_merges(folder: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
  path = folder / "vocab.json"
  vocab = read_json(path)
  if not all(isinstance(token, int) and 0 <= token < 2**31 for token in vocab.values()):
    raise UserError(f"{path} must map each token (str) to its id (int).")
  lines = [line.rstrip("\r\n") for line in _lines(folder / "merges.txt")]
  parts = [line.partition(" ") for line in lines if line and not line.startswith("#version")]
  return vocab, [(first, second) for first, _, second in parts]


def _lines(path: Path) -> list[str]:
  check_file(path)
  try:
    with path.open(encoding="utf-8", newline="\n") as file:
      return file.readlines()
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(f"{path} cannot be read: {error}.") from None
