"""The tokenizer in a folder of the hub's layout: tokenizer.json, or vocabulary files, and its special tokens.

Files are interpreted as in transformers: tokenizer_config.json names the special tokens, the tokens added to
the vocabulary, lower-casing, and the maximum length; special_tokens_map.json is the fallback.
"""

import os
import re
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.data.tokenizers.base import ROLES, Pieces, Tokenizer, readable
from zoo.data.tokenizers.vocabularies import KINDS, OF_CLASS, OF_MODEL_TYPE, Kind, framing
from zoo.errors import UserError, shown
from zoo.json_files import check_file, read_json

FAST, CONFIG, SIGNS, ADDED = "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
# Tokenizer files of published folders.
FILES = (FAST, CONFIG, SIGNS, ADDED, "vocab.txt", "vocab.json", "merges.txt", "tokenizer.model", "spiece.model")
FILES += ("sentencepiece.bpe.model", "source.spm", "target.spm", "chat_template.jinja")
GENERIC = ("PreTrainedTokenizerFast", "TokenizersBackend")
LEFT = ("Gemma", "Siglip2")  # Classes of the reference that pad on the left by default.
NONE = 10**9  # A model_max_length above this means no limit.
FIXES = [(f" {sign}", sign) for sign in ".?!,"] + [(" ' ", "'")]
FIXES += [(f" {end}", end) for end in ("n't", "'m", "'s", "'ve", "'re")]


def from_folder(folder: Path) -> Tokenizer:
  """The tokenizer of a published model's folder. See `zoo.load_tokenizer`.

  Raises:
    UserError: its files are missing, corrupt, or readable by transformers alone.
  """
  model = _read_json(folder / "config.json")
  config = _read_json(folder / CONFIG)
  if "added_tokens_decoder" not in config:
    config |= _read_json(folder / SIGNS)
  kind = _kind(folder, config, model)
  signs = dict(kind.roles if kind else {}) | _signs(config)
  settings = None
  try:
    if (folder / FAST).is_file():
      backend = _from_json(folder / FAST, {} if _is_generic(config, model) else config)
      _simplify(backend, config, model)
      if kind is not None and backend.post_processor is None and not _is_generic(config, model):
        settings = _settings(kind, config, folder)
    elif kind is not None and has_tokenizer(folder):
      settings = _settings(kind, config, folder)
      backend = kind.build(folder, signs, settings)
    else:
      raise _refusal(folder, config)
    _add(backend, folder, config, signs)
    if kind is not None and settings is not None:
      backend.post_processor = framing(kind.frame(signs, settings), backend)
    roles = {role: backend.token_to_id(signs[role]) if role in signs else None for role in ROLES}
    tokenizer = Published(str(folder), backend, roles if signs else guessed_roles(backend))
    tokenizer.encode("\ua66e")  # A letter in hardly any vocabulary: the unknown token must exist.
    tokenizer(["a"])  # The special tokens around a text may be missing too.
  except UserError:
    raise
  except BaseException as error:  # The package raises plain Exception, and panics of its Rust code are not one.
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
      raise
    raise UserError(
      f"The tokenizer in {folder} cannot be read: {str(error)[:200]}. Download its files again."
    ) from None
  tokenizer.max_length = _max_length(config, model, tokenizer, folder)
  tokenizer.splits_special = bool(config.get("split_special_tokens"))
  tokenizer.pads_left = config.get("padding_side", "left" if _class(config, model) in LEFT else "right") == "left"
  tokenizer.cuts_left = config.get("truncation_side") == "left"
  tokenizer.tidies = bool(config.get("clean_up_tokenization_spaces")) and type(backend.model).__name__ != "BPE"
  return tokenizer


def has_tokenizer(folder: Path) -> bool:
  """Whether a folder holds the files of a tokenizer."""
  return any((folder / name).is_file() for name in (FAST, "vocab.txt", "vocab.json"))


class Published(Pieces):
  """A tokenizer from a folder.

  `tidies`: whether decoding removes blanks before punctuation; `splits_special`: whether special tokens in a text are
  plain text for a call too.
  """

  tidies = splits_special = False

  def _framed(self, texts, pairs, limit, special):
    return super()._framed(texts, pairs, limit, special and not self.splits_special)

  def _decode(self, ids: list[int], special: bool) -> str:
    with readable(self.name):
      text = self.backend.decode(ids, skip_special_tokens=not special)
    suffix = getattr(self.backend.model, "end_of_word_suffix", None)
    if suffix:
      text = text.replace(suffix, " ").strip()
    for spaced, tidy in FIXES if self.tidies else ():
      text = text.replace(spaced, tidy)
    return text


def guessed_roles(backend: Any) -> dict[str, int | None]:
  """Special tokens guessed by their common names."""
  spellings = {role: [f"[{role.upper()}]", f"<{role}>", f"<|{role}|>"] for role in ROLES}
  spellings["eos"] += ["</s>", "<|endoftext|>", "<|end|>"]
  spellings["bos"] += ["<s>", "<|startoftext|>", "<|begin|>"]
  return {
    role: next((token for token in map(backend.token_to_id, names) if token is not None), None)
    for role, names in spellings.items()
  }


def _kind(folder: Path, config: Mapping[str, Any], model: Mapping[str, Any]) -> Kind | None:
  """The tokenizer kind: by the folder's tokenizer class, else its model type, else its vocabulary."""
  name = config.get("tokenizer_class")
  if isinstance(name, str) and name not in GENERIC:
    return KINDS.get(OF_CLASS.get(name.removesuffix("Fast").removesuffix("Tokenizer"), ""))
  if isinstance(model.get("model_type"), str):
    return KINDS.get(OF_MODEL_TYPE.get(model["model_type"], ""))
  if (folder / FAST).is_file():
    return None
  if (folder / "vocab.txt").is_file():
    return KINDS["bert"]
  if not (folder / "vocab.json").is_file() or not (folder / "merges.txt").is_file():
    return None
  vocab = _read_json(folder / "vocab.json")
  return KINDS["clip" if "<|startoftext|>" in vocab else "roberta" if "<mask>" in vocab else "gpt2"]


def _is_generic(config: Mapping[str, Any], model: Mapping[str, Any]) -> bool:
  """Whether the reference reads a tokenizer.json by its generic class, which leaves it as it is.

  Its other classes set lower-casing, the blank before a text and the tokens around it.
  """
  name = config.get("tokenizer_class")
  return name in GENERIC or name is None and "model_type" not in model


def _from_json(path: Path, config: Mapping[str, Any]) -> Any:
  from tokenizers import Tokenizer as Backend
  from tokenizers import normalizers, pre_tokenizers

  check_file(path)
  backend = Backend.from_file(str(path))
  if getattr(backend.model, "dropout", None):  # Of byte pairs, for training a tokenizer's model: draws at random.
    backend.model.dropout = None
  before, split = backend.normalizer, backend.pre_tokenizer
  names = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
  }
  changes = {ours: config[theirs] for theirs, ours in names.items() if theirs in config}
  if isinstance(before, normalizers.BertNormalizer) and changes:
    backend.normalizer = normalizers.BertNormalizer(
      **{name: getattr(before, name) for name in ("clean_text", *names.values())} | changes
    )
  if isinstance(split, pre_tokenizers.ByteLevel) and isinstance(config.get("add_prefix_space"), bool):
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(config["add_prefix_space"], split.use_regex, split.trim_offsets)
  return backend


def _class(config: Mapping[str, Any], model: Mapping[str, Any]) -> str:
  """The reference's tokenizer class, without suffixes; for SigLIP 2 NaFlex a fixed one."""
  name = config.get("tokenizer_class")
  if str(model.get("model_type")).startswith("siglip2"):
    return "Siglip2"
  return name.removesuffix("Fast").removesuffix("Tokenizer") if isinstance(name, str) else ""


def _simplify(backend: Any, config: Mapping[str, Any], model: Mapping[str, Any]) -> None:
  """Adds the text normalisation of the reference's classes for SigLIP, even if tokenizer.json has it: it is
  idempotent. Lower case, and for the first SigLIP no punctuation and single blanks."""
  from tokenizers import Regex, normalizers

  name, before = _class(config, model), backend.normalizer
  steps: list[Any] = [normalizers.Lowercase()] if name == "Siglip2" or config.get("do_lower_case") is not False else []
  if name == "Siglip":
    steps += [normalizers.Replace(Regex(f"[{re.escape(string.punctuation)}]"), "")]
    steps += [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
  if name in ("Siglip", "Siglip2"):
    backend.normalizer = normalizers.Sequence([*steps, *([] if before is None else [before])])


def _settings(kind: Kind, config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
  settings = {name: config.get(name, default) for name, default in kind.settings.items()}
  for name, value in settings.items():
    if not isinstance(value, bool) and value is not kind.settings[name]:
      raise UserError(f"{folder / CONFIG}: {name} is {shown(value)}. It must be a bool: true or false.")
  return settings


def _signs(config: Mapping[str, Any]) -> dict[str, str]:
  """Special tokens of a folder: role -> token string."""
  contents = {role: _content(config.get(f"{role}_token")) for role in (*ROLES, "unk")}
  return {role: content for role, content in contents.items() if content is not None}


def _content(token: Any) -> str | None:
  token = token.get("content") if isinstance(token, Mapping) else token
  return token if isinstance(token, str) and token else None


def _add(backend: Any, folder: Path, config: Mapping[str, Any], signs: Mapping[str, str]) -> None:
  """Adds the tokens that are not in the vocabulary, and marks special ones."""
  from tokenizers import AddedToken

  properties: dict[str, AddedToken] = {}
  existing = {token.content: token for token in backend.get_added_tokens_decoder().values()}
  ids: dict[str, int] = {}
  decoder = config.get("added_tokens_decoder", {})
  for number, entry in decoder.items() if isinstance(decoder, Mapping) else ():
    if _content(entry) is not None and str(number).isdecimal():
      properties[entry["content"]] = _added(entry)
      ids[entry["content"]] = int(number)
  if not properties:
    ids = {sign: number for sign, number in _read_json(folder / ADDED).items() if isinstance(number, int)}
    special = set(signs.values())
    properties |= {sign: AddedToken(sign, special=sign in special, normalized=sign not in special) for sign in ids}
  for role in signs:
    entry = config.get(f"{role}_token")
    if isinstance(entry, Mapping) and entry.get("content") not in properties:
      properties[entry["content"]] = _added({**entry, "special": True})
  extra = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
  extra = list(extra.values()) if isinstance(extra, Mapping) else extra
  special_tokens = [*signs.values(), *(content for entry in extra if (content := _content(entry)) is not None)]
  backend.add_tokens([properties[sign] for sign in sorted(ids, key=ids.__getitem__)])
  properties = (
    {sign: AddedToken(sign, special=True, normalized=False) for sign in special_tokens} | existing | properties
  )
  backend.add_special_tokens([properties[sign] for sign in dict.fromkeys(special_tokens)])
  for sign, number in ids.items():
    if backend.token_to_id(sign) != number:
      raise UserError(
        f"{folder}: the token {shown(sign)} should have id {number}, but would get id "
        f"{backend.token_to_id(sign)}. The files do not belong together; download them again."
      )


def _added(entry: Mapping[str, Any]) -> Any:
  from tokenizers import AddedToken

  flags = {
    name: bool(entry[name]) for name in ("lstrip", "rstrip", "single_word", "normalized", "special") if name in entry
  }
  return AddedToken(entry["content"], **flags)


def _max_length(config: Mapping[str, Any], model: Mapping[str, Any], tokenizer: Tokenizer, folder: Path) -> int | None:
  """The tokenizer's model_max_length, else the model's number of positions."""
  max_length = config.get("model_max_length")
  if isinstance(max_length, int | float) and not isinstance(max_length, bool) and max_length >= 1:
    return int(max_length) if max_length < NONE else None
  if max_length is not None:
    raise UserError(f"{folder / CONFIG}: model_max_length is {shown(max_length)}. It must be at least 1, or missing.")
  section = model.get("text_config", model)
  section = section if isinstance(section, Mapping) else {}
  positions = section.get("max_position_embeddings", section.get("n_positions"))
  if not isinstance(positions, int) or isinstance(positions, bool) or positions < 1:
    return None
  # RoBERTa counts positions from padding_idx + 1, so its table has that many unused rows.
  reserved = (
    (tokenizer.pad or 0) + 1 if model.get("model_type") in ("roberta", "xlm-roberta", "camembert", "mpnet") else 0
  )
  return max(positions - reserved, 1)


def _refusal(folder: Path, config: Mapping[str, Any]) -> UserError:
  pieces = sorted(path.name for path in folder.glob("*") if path.name.endswith((".model", ".spm", ".bpe")))
  files = [name for name in ("vocab.txt", "vocab.json", *pieces) if (folder / name).is_file()]
  if not files:
    return UserError(
      f"{folder} has no tokenizer: neither {FAST} nor a vocabulary. Download its files, or name another folder."
    )
  class_name = config.get("tokenizer_class")
  for_class = f" for {shown(class_name)}" if class_name else ""
  return UserError(
    f"{folder} has {files[0]} but no {FAST}, and the zoo cannot build its tokenizer from that{for_class}. Where "
    "transformers is "
    "installed: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) writes one."
  )


def _read_json(path: Path) -> dict[str, Any]:
  """Reads a JSON object; {} if the file is missing."""
  return read_json(path) if os.path.lexists(path) else {}
