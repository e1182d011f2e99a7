"""Sentence encoders in the layout of sentence-transformers: the files beside the weights.

modules.json lists the modules in order, configured by files like 1_Pooling/config.json; prompts and
`truncate_dim` are in config_sentence_transformers.json, max_length in sentence_bert_config.json. https://sbert.net
"""

import contextlib
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from zoo.convert.rules.options import Options
from zoo.errors import UserError, did_you_mean, shown
from zoo.hub.files import CONFIG, read_json
from zoo.hub.sentence_modules import READERS, SENTENCE, TOKENS, Dropout, Module, Normalize, Pooling
from zoo.pooling import ALIASES, POOLS

FIRST = ("Transformer", "StaticEmbedding")
MODULES, PROMPTS = "modules.json", "config_sentence_transformers.json"
# Config files of the Transformer module over time; the first non-empty one counts.
TRANSFORMER = tuple(
  f"sentence_{kind}_config.json"
  for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
# Arguments passed on to transformers -> those that do not affect embeddings. Each has an old and a new name.
_MODEL = ("add_pooling_layer", "attn_implementation", "device_map", "dtype", "low_cpu_mem_usage", "torch_dtype")
ARGUMENTS = {
  **dict.fromkeys(("model_args", "model_kwargs"), (*_MODEL, "use_safetensors")),
  **dict.fromkeys(("config_args", "config_kwargs"), ("use_cache",)),
  **dict.fromkeys(("tokenizer_args", "processor_kwargs"), ("use_fast",)),
}


class SentenceEncoder(NamedTuple):
  """Pooling pipeline from hidden states to a sentence embedding.

  Args:
    folder: folder of the encoder itself.
    modules: the modules after it, in order.
    max_length: maximum tokens of a text; None: the limit of tokenizer and model.
    lower: whether texts, with their prompts, are lower-cased first.
    prompts: name -> prefix of a text.
    prompt: the default prompt.
    truncate_dim: number of leading dimensions to keep; None: all.
    static: whether the encoder is a static embedding table.
  """

  folder: pathlib.Path
  modules: tuple[Module, ...] = (Pooling("the mean over tokens"),)
  max_length: int | None = None
  lower: bool = False
  prompts: Mapping[str, str] = {}
  prompt: str = ""
  truncate_dim: int | None = None
  static: bool = False

  def __call__(self, hidden: jax.Array, valid: jax.Array, prompt_length: jax.Array) -> jax.Array:
    """[batch, length, dim], bool [batch, length], int tokens of the prompt -> float32 [batch, dim]"""
    features = {TOKENS: hidden.astype(jnp.float32)}
    for module in self.modules:
      features[module.writes] = module(features[module.reads], valid, prompt_length)
    return features[SENTENCE]

  @property
  def uses_prompt_length(self) -> bool:
    """Whether a pooling excludes the prompt's tokens."""
    return not all(module.include_prompt for module in self.modules if isinstance(module, Pooling))

  def with_pooling(self, name: str) -> "SentenceEncoder":
    """A copy with another pooling. UserError if it is unknown, or there is not exactly one Pooling module."""
    name = ALIASES.get(name, name)
    if name not in POOLS:
      raise UserError(f"pooling is {shown(name)}. It may be: {', '.join(POOLS)}.")
    if self.static:
      raise UserError(f"{self.folder} has token vectors only, whose mean is the text vector. Leave out pooling.")
    count = sum(isinstance(module, Pooling) for module in self.modules)
    if count != 1:
      raise UserError(f"{self.folder} pools {count} times. Leave out pooling: it would be ambiguous.")
    return self._replace(
      modules=tuple(m._replace(modes=(name,)) if isinstance(m, Pooling) else m for m in self.modules)
    )

  def without_unit(self) -> "SentenceEncoder":
    """A copy without a final Normalize."""
    modules = list(self.modules)
    while modules and isinstance(modules[-1], Normalize) and modules[-1].writes == SENTENCE:
      modules.pop()
    return self._replace(modules=tuple(modules))


def read_sentence_encoder(folder: pathlib.Path) -> SentenceEncoder:
  """Reads a folder's sentence encoder; without module files, mean pooling.

  Raises:
    UserError: an unsupported module or option, modules that do not fit each other, or corrupt files.
  """
  encoder = SentenceEncoder(folder)
  if (folder / MODULES).is_file():
    encoder = _with_modules(encoder, folder)
  if not encoder.static:
    encoder = encoder._replace(**_transformer_options(encoder.folder))
  if (folder / PROMPTS).is_file():
    encoder = encoder._replace(**_prompts(folder / PROMPTS))
  return encoder


def encoder_folder(folder: pathlib.Path) -> pathlib.Path:
  """The folder of the encoder: a folder's own, or the 0_Transformer within it of old versions."""
  if (folder / CONFIG).is_file() or not (folder / MODULES).is_file():
    return folder
  return _listed(folder)[0][1]


def home_of(folder: pathlib.Path) -> pathlib.Path | None:
  """Where the modules.json is that lists the encoder of a folder: there, or beside its 0_Transformer; None: nowhere."""
  if (folder / MODULES).is_file():
    return folder
  with contextlib.suppress(UserError):  # Another's file of that name.
    if (folder.parent / MODULES).is_file() and _listed(folder.parent)[0][1] == folder:
      return folder.parent
  return None


def _with_modules(encoder: SentenceEncoder, folder: pathlib.Path) -> SentenceEncoder:
  (first, encoder_folder), *rest = _listed(folder)
  static = first == "StaticEmbedding"
  modules: list[Module] = [Pooling(str(encoder_folder))] * static
  written = {SENTENCE if static else TOKENS}
  for kind, path in rest:
    module = READERS[kind](path)
    if module.reads not in written:
      if isinstance(module, Normalize):  # As in sentence-transformers.
        continue
      available = ", ".join(sorted(written))
      raise UserError(f"{path} reads {shown(module.reads)}, which no module before it writes. There is: {available}.")
    written.add(module.writes)
    modules += [] if isinstance(module, Dropout) else [module]
  if SENTENCE not in written:
    raise UserError(f"{folder / MODULES} lists no module that writes {SENTENCE}. Add a Pooling.")
  return encoder._replace(folder=encoder_folder, modules=tuple(modules), static=static)


def _listed(folder: pathlib.Path) -> list[tuple[str, pathlib.Path]]:
  """(kind, folder) of each module, the encoder first."""
  where = folder / MODULES
  listed = read_json(where, list)
  modules, names = [], set()
  for i, module in enumerate(listed):
    is_valid = isinstance(module, dict) and all(isinstance(module.get(key), str) for key in ("type", "path"))
    path = pathlib.PurePosixPath(module["path"]) if is_valid else pathlib.PurePosixPath("..")
    if path.is_absolute() or ".." in path.parts or not str(path).isprintable():
      raise UserError(f"{where} holds {shown(module)}. A module needs a type, and as path a folder beside that file.")
    if (name := str(module.get("name", i))) in names:
      raise UserError(f"{where} has two modules of the name {shown(name)}. Give each its own.")
    names.add(name)
    package, _, kind = module["type"].rpartition(".")
    kind = kind if package.partition(".")[0] == "sentence_transformers" else module["type"]
    _check_kind(where, kind, first=i == 0)
    modules.append((kind, folder / path))
  if not modules:
    raise UserError(f"{where} lists no module. It must begin with a Transformer.")
  return modules


def _check_kind(where: pathlib.Path, kind: str, first: bool) -> None:
  if first and kind not in FIRST:
    raise UserError(
      f"{where} does not begin with a Transformer or a StaticEmbedding but with {shown(kind)}. The zoo has no other "
      "encoder."
    )
  if not first and kind in FIRST:
    raise UserError(f"{where} lists a second {kind} after the first module. The zoo supports one, as the first module.")
  if not first and kind not in READERS:
    near = did_you_mean(kind, READERS)
    raise UserError(f"{where}: the zoo has no module {shown(kind)}.{near} It has: Transformer, {', '.join(READERS)}.")


def _transformer_options(folder: pathlib.Path) -> dict[str, Any]:
  """{"max_length", "lower"} from the Transformer module's config."""
  for name in TRANSFORMER:
    where = folder / name
    content = read_json(where) if where.is_file() else {}
    if content:
      break
  else:
    return {}
  options = Options(content, str(where))
  options.must_be("transformer_task", "feature-extraction")
  options.must_be("module_output_name", TOKENS)
  text = {"method": "forward", "method_output_name": "last_hidden_state"}
  modalities = options.take("modality_config", {"text": text})
  if modalities.get("text") != text or "message" in modalities:
    raise options.refusal("modality_config", modalities, [{"text": text}])
  # Removal of padding; lengths and expansions for other tasks.
  options.ignore("unpad_inputs", "query_length", "document_length", "query_expansion")
  options.must_be("tokenizer_name_or_path", None)
  options.must_be("processing_kwargs", *({}, None))
  max_length = options.take("max_seq_length", None, int)
  for name, harmless in ARGUMENTS.items():
    section = options.section(name)
    section.ignore("trust_remote_code", *harmless)
    max_length = section.take("model_max_length", max_length, int)
    section.done()
  if max_length is not None and max_length < 1:
    raise UserError(f"{where}: max_seq_length is {max_length}. It must be at least 1, or null.")
  lower = options.take("do_lower_case", False)
  options.done()
  return {"max_length": max_length, "lower": lower}


def _prompts(where: pathlib.Path) -> dict[str, Any]:
  """{"prompts", "prompt", "truncate_dim"} of config_sentence_transformers.json."""
  options = Options(read_json(where), str(where))
  options.must_be("model_type", "SentenceTransformer")
  prompts = {}
  for name, text in options.take("prompts", {}, dict).items():
    if not isinstance(text, str | None):
      raise UserError(f"{where}: the prompt {shown(name)} is {shown(text)}. It must be a str.")
    prompts[name] = text or ""
  default = options.take("default_prompt_name", None, str)
  named_prompts = {"query": "", "document": ""} | prompts  # Every model has these two.
  if default is not None and default not in named_prompts:
    raise options.refusal("default_prompt_name", default, named_prompts)
  truncate_dim = options.take("truncate_dim", None, int)
  check_truncate_dim(truncate_dim, f"{where}: ")
  return {"prompts": prompts, "prompt": named_prompts.get(default or "", ""), "truncate_dim": truncate_dim}


def check_truncate_dim(value: Any, where: str = "") -> None:
  """UserError unless `value` is a number of dimensions, or None."""
  if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
    raise UserError(f"{where}truncate_dim is {shown(value)}. It must be an int of at least 1, or None for all.")
