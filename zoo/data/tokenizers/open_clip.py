"""The tokenizer of an open_clip folder, CLIP's own or that of the folder, with text cleaning.

https://github.com/mlfoundations/open_clip/blob/main/src/open_clip/tokenizer.py, but without ftfy.
"""

import html
import pathlib
import string
from collections.abc import Callable

from zoo.convert.rules.options import Options
from zoo.data.tokenizers import folder as of_hub
from zoo.data.tokenizers.base import Tokenizer
from zoo.errors import UserError
from zoo.json_files import read_json

CONFIG, HUB_CONFIG = "open_clip_config.json", "config.json"
HUB_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


def is_open_clip(folder: pathlib.Path) -> bool:
  """Whether to read a folder as open_clip's: not if the hub's layout is complete too."""
  if not (folder / CONFIG).is_file():
    return False
  published = (folder / HUB_CONFIG).is_file() and "model_type" in read_json(folder / HUB_CONFIG)
  return not published or not any((folder / name).is_file() for name in HUB_WEIGHTS)


def whitespace(text: str) -> str:
  """Unescapes HTML entities and collapses whitespace.

  >>> whitespace("a &amp;  b ")
  'a & b'
  """
  return " ".join(html.unescape(html.unescape(text)).split())


def lower(text: str) -> str:
  """As `whitespace`, then lower case."""
  return whitespace(text).lower()


def canonicalize(text: str) -> str:
  """As `lower`, without punctuation, as in SigLIP.

  >>> canonicalize("A_cat, sleeping.")
  'a cat sleeping'
  """
  text = whitespace(text).replace("_", " ").translate(str.maketrans("", "", string.punctuation))
  return " ".join(text.lower().split())


CLEAN = {"lower": lower, "whitespace": whitespace, "canonicalize": canonicalize}


def from_folder(folder: pathlib.Path, clip: Callable[[], Tokenizer]) -> Tokenizer:
  """Opens the tokenizer of `text_cfg`; `clip` builds CLIP's own.

  Raises:
    UserError: its files are missing, or an option is not supported.
  """
  path = folder / CONFIG
  options = Options(read_json(path), str(path)).section("model_cfg").section("text_cfg")
  is_clip = not options.take("hf_tokenizer_name", "")
  options.must_be("tokenizer_mode", None, "")
  arguments = options.section("tokenizer_kwargs")
  arguments.must_be("strip_sep_token", False)
  # CLIP's own always lower-cases.
  choices = {name_of_way: clean for name_of_way, clean in CLEAN.items() if not is_clip or name_of_way != "whitespace"}
  name = arguments.take("clean", "lower" if is_clip else "whitespace")
  if name not in choices:
    raise arguments.refusal("clean", name, choices)
  arguments.done()
  size = options.take("vocab_size", 49408)
  if is_clip and size != 49408:
    raise UserError(f"{path}: vocab_size is {size}, but CLIP's tokenizer has 49408. Name an hf_tokenizer_name.")
  tokenizer = clip() if is_clip else of_hub.from_folder(folder)
  return tokenizer.changed(name=str(folder), clean=CLEAN[name], max_length=options.take("context_length", 77))
