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
from zoo.hub.sentence_encoder import encoder_folder


def load_tokenizer(source: str | os.PathLike) -> Tokenizer:
  """Loads the tokenizer of a published model, or of a run.

  `load_tokenizer(source)(texts)` returns a batch for the model of `zoo.load(source)`, with its special tokens:

      batch = tokenizer(["A text.", "Another one."])
      model.apply({"params": params}, batch.pop("tokens"), **batch)

  Args:
    source: a folder in the hub's layout, with a tokenizer.json or the vocabulary files of BERT (vocab.txt), GPT-2,
      RoBERTa or CLIP (vocab.json and merges.txt); a hub id; the folder of a run; or the name of a packaged
      tokenizer: gpt2, clip, bert, bytes, sotu. A CLIP with the published vocabulary, also open_clip's, needs no files.

  Returns:
    a `zoo.data.tokenizers.base.Tokenizer`: encode, decode, ids of special tokens (pad, eos, bos, cls, sep, mask), and
    batches from texts, or from pairs of texts.

  Raises:
    UserError: there are no such files, they are corrupt, or only transformers can read them.

  >>> import zoo
  >>> tokenizer = zoo.load_tokenizer("gpt2")
  >>> batch = tokenizer(["A text.", "Another, longer one."])
  >>> batch["tokens"].shape, tokenizer.decode(batch["tokens"][0][batch["valid"][0]])
  ((2, 5), 'A text.')
  """
  if source in NAMED and not os.path.isdir(source):
    return tokenizer(str(source))
  folder = encoder_folder(folder_of(source))
  folder = folder.absolute() if str(folder) in NAMED else folder  # Else it would be taken for the packaged tokenizer.
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
  """A name that `zoo.data.tokenizers` can open: for a hub id, `owner/model`, the folder of its downloaded files.

  Other names and local paths are returned unchanged.

  >>> local_name("gpt2")
  'gpt2'
  """
  match = ID.fullmatch(name) if isinstance(name, str) else None
  if match is None or "/" not in match["repo"] or name.endswith(".json"):
    return name
  return name if os.path.exists(name) else str(small_files_of(name))


def leading_tokens(tokenizer: Tokenizer, text: str, limit: int) -> int:
  """The number of tokens of a prompt `text` at the start of a text, including special tokens before it."""
  if not text:
    return 0
  batch = tokenizer([text], length=min(limit, 64 + 4 * len(text.encode())))
  tokens = batch["tokens"][0][batch["valid"][0]]
  special = {getattr(tokenizer, role) for role in ROLES}
  if isinstance(tokenizer, Pieces):
    special |= {i for i, token in tokenizer.backend.get_added_tokens_decoder().items() if token.special}
  return len(tokens) - int(len(tokens) > 0 and int(tokens[-1]) in special)
