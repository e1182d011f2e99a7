"""Tokenizers of published models and runs, and the packaged ones."""

import os
from typing import Any

from zoo.data.tokenizers import tokenizer
from zoo.data.tokenizers.base import ROLES, Pieces, Tokenizer
from zoo.data.tokenizers.folder import has_tokenizer
from zoo.data.tokenizers.named import NAMED
from zoo.data.tokenizers.open_clip import is_open_clip
from zoo.hub.files import CONFIG, is_published, read_json
from zoo.hub.ids import ID, folder_of, small_files_of
from zoo.hub.preprocessing import preprocessing_of_saved


def load_tokenizer(source: str | os.PathLike) -> Tokenizer:
  """The tokenizer of a published model, or of a run.

  `load_tokenizer(source)(texts)` gives a batch for the model that `zoo.load(source)` gives, with its special tokens:

      batch = tokenizer(["A text.", "Another one."])
      model.apply({"params": params}, batch.pop("tokens"), **batch)

  Args:
    source: a folder in the hub's layout, with a tokenizer.json or the vocabulary files of BERT (vocab.txt), GPT-2,
      RoBERTa or CLIP (vocab.json and merges.txt); a hub id; the folder of a run; or the name of a shipped
      tokenizer: gpt2, clip, bert, bytes, sotu. A CLIP of the published vocabulary needs no files, open_clip's neither.

  Returns:
    encode, decode, the ids of special tokens (pad, eos, bos, cls, sep, mask), and called with texts, or with texts and
    as many second texts, a batch: `zoo.data.tokenizers.base.Tokenizer`.

  Raises:
    UserError: there are no such files, they are damaged, or only transformers can read them.

  >>> import zoo
  >>> tokenizer = zoo.load_tokenizer("gpt2")
  >>> batch = tokenizer(["A text.", "Another, longer one."])
  >>> batch["tokens"].shape, tokenizer.decode(batch["tokens"][0][batch["valid"][0]])
  ((2, 5), 'A text.')
  """
  if source in NAMED and not os.path.isdir(source):
    return tokenizer(str(source))
  folder = folder_of(source)
  folder = folder.absolute() if str(folder) in NAMED else folder  # Else its name would be the shipped tokenizer's.
  if has_tokenizer(folder) or is_open_clip(folder):
    return tokenizer(str(folder))
  stored = {} if is_published(folder) else preprocessing_of_saved(folder)
  if "tokenizer" in stored:
    return tokenizer(stored["tokenizer"])
  if not (folder / CONFIG).is_file():
    return tokenizer(str(folder))
  config = read_json(folder / CONFIG)
  text = config["text_config"] if isinstance(config.get("text_config"), dict) else {}
  if config.get("model_type") == "clip" and text.get("vocab_size", 49408) == 49408:
    return tokenizer("clip")
  return tokenizer(str(folder))


def local_name(name: Any) -> Any:
  """A name that `zoo.data.tokenizers` can open: for a hub id, `owner/model`, the folder of its fetched files.

  Anything else, a name or a path of what is here, is returned as it is.

  >>> local_name("gpt2")
  'gpt2'
  """
  match = ID.fullmatch(name) if isinstance(name, str) else None
  if match is None or "/" not in match["repo"] or name.endswith(".json"):
    return name
  return name if os.path.exists(name) else str(small_files_of(name))


def leading_tokens(tokenizer: Tokenizer, text: str, limit: int) -> int:
  """The number of leading tokens of texts that begin with `text`, including special tokens before, not after it."""
  if not text:
    return 0
  batch = tokenizer([text], length=min(limit, 64 + 4 * len(text.encode())))
  tokens = batch["tokens"][0][batch["valid"][0]]
  special = {getattr(tokenizer, role) for role in ROLES}
  if isinstance(tokenizer, Pieces):
    special |= {i for i, token in tokenizer.backend.get_added_tokens_decoder().items() if token.special}
  return len(tokens) - int(len(tokens) > 0 and int(tokens[-1]) in special)
