"""Parses a published `config.json`: every entry is used, known to have no effect in the reference, or refused."""

import copy
import math
import warnings
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from zoo.convert.rules.reference import Reference, same
from zoo.errors import UserError, an, did_you_mean, shown

# Entries for training, generation, bookkeeping or the reference's own code, without effect on the model.
HARMLESS = frozenset(
  """_attn_implementation _attn_implementation_autoset _commit_hash _name_or_path architectures
  attn_implementation auto_map bad_words_ids begin_suppress_tokens bos_token_id chunk_size_feed_forward
  cross_attention_hidden_size decoder_start_token_id diversity_penalty do_sample dtype early_stopping
  encoder_no_repeat_ngram_size eos_token_id exponential_decay_length_penalty finetuning_task forced_bos_token_id
  forced_eos_token_id gradient_checkpointing id2label initializer_factor initializer_range
  is_encoder_decoder keep_special_tokens label2id length_penalty max_length min_length model_type no_repeat_ngram_size
  num_beam_groups num_beams num_labels num_return_sequences output_attentions output_hidden_states output_past
  output_scores pad_token_id pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head
  pooler_type prefix problem_type remove_invalid_values repetition_penalty return_dict
  return_dict_in_generate sep_token_id suppress_tokens task_specific_params temperature tf_legacy_loss
  tokenizer_class top_k top_p torch_dtype torchscript transformers.js_config transformers_version typical_p
  use_bfloat16 use_cache""".split()
)

# Defaults that old configs list for every model, including encoders and towers.
ABSENT = {"add_cross_attention": False, "is_decoder": False, "pruned_heads": {}, "tie_encoder_decoder": False}

# Their names of activations -> those of zoo/layers/mlp.py. Of synonyms the first is written.
ACTIVATIONS = {
  "gelu": "gelu",
  "gelu_new": "gelu_tanh",
  "gelu_pytorch_tanh": "gelu_tanh",
  "gelu_fast": "gelu_tanh",
  "gelu_python": "gelu",
  "quick_gelu": "quick_gelu",
  "relu": "relu",
  "silu": "silu",
  "swish": "silu",
}

# Entries that count layers.
LAYERS = frozenset(
  "num_hidden_layers num_layers num_decoder_layers encoder_layers decoder_layers n_layer n_layers".split()
)


class Key(NamedTuple):
  """Maps an entry of a published config to one of our sizes.

  Args:
    theirs, ours: names.
    default: their default.
    values: allowed values of theirs -> values of ours; None: any, unchanged.
  """

  theirs: str
  ours: str
  default: Any = None
  values: Mapping[Any, Any] | None = None


class Options:
  """The entries of a config.json; `done` refuses any that may change the model and was never read.

  Args:
    entries: the parsed file, or a section of it.
    where: its name in messages.
    tensors: number of tensors in the files, an upper bound on the number of layers.
    reference: known entries, `zoo.convert.rules.reference.of("bert")`; None: unknown, so every entry must be read.
    ignore: names of entries to ignore; with a dot for those of sections.
    may_ignore: whether the user can pass `ignore`, so that messages may suggest it.

  Raises:
    UserError: two names of one entry have different values.
  """

  def __init__(
    self,
    entries: Mapping[str, Any],
    where: str,
    tensors: int | None = None,
    *,
    reference: Reference | None = None,
    ignore: Collection[str] = (),
    may_ignore: bool | None = None,
  ):
    self.where, self.tensors, self.reference, self.ignored = where, tensors, reference, frozenset(ignore)
    self.may_ignore = reference is not None if may_ignore is None else may_ignore
    self.entries = {name: value for name, value in entries.items() if name not in self.ignored}
    self.asked: set[str] = set()
    self.passed: dict[str, list[str]] = {}  # Section -> entries without effect.
    self.prefix, self.whole = "", self
    self._resolve_aliases()

  def but(self, **entries: Any) -> "Options":
    """A copy with some entries replaced. Entries read from either count as read in both."""
    copied = copy.copy(self)
    copied.entries = {**self.entries, **entries}
    return copied

  def _resolve_aliases(self) -> None:
    for alias, name in (self.reference.aliases if self.reference else {}).items():
      value = self.entries.pop(alias, None)
      if value is not None and self.entries.setdefault(name, value) != value:
        raise UserError(
          f"{self.where}: {alias} is {shown(value)}, and {name}, an alias of it, is "
          f"{shown(self.entries[name])}. Remove one of them."
        )

  def take(self, name: str, default: Any = None, kind: type | tuple[type, ...] | None = None) -> Any:
    """The value of an entry, or the reference's default. A null counts as missing, for a bool as false."""
    self.asked.add(name)
    value = self.entries.get(name)
    if value is None:
      return False if default is True and name in self.entries else default
    kind = kind or (None if default is None else (int, float) if isinstance(default, float) else type(default))
    right = kind is None or isinstance(value, kind) and (not isinstance(value, bool) or bool in _kinds(kind))
    if not right:
      raise UserError(f"{self.where}: {name} is {shown(value)}. It must be {' or '.join(map(an, _kinds(kind)))}.")
    if isinstance(value, float) and not math.isfinite(value):  # Python's JSON parser accepts NaN and Infinity.
      raise UserError(f"{self.where}: {name} is {value}. It must be a number.")
    if isinstance(value, int) and abs(value) >= 2**31:
      if float not in _kinds(kind) or abs(value) >= 2**63:
        raise UserError(f"{self.where}: {name} is {shown(value)}, but sizes and token ids are int32.")
      value = float(value)
    if name in LAYERS and self.tensors is not None and value > self.tensors:
      raise UserError(f"{self.where}: {name} is {shown(value)}, but the files hold only {self.tensors} tensors.")
    return value

  def nullable(self, name: str, default: Any = None, kind: type | tuple[type, ...] = int) -> Any:
    """The value of an entry that may be null, then None."""
    self.asked.add(name)
    return None if self.entries.get(name, default) is None else self.take(name, default, kind)

  def sizes(self, keys: Iterable[Key]) -> dict[str, Any]:
    """Our sizes, from a table of keys."""
    return {key.ours: self._size(key) for key in keys}

  def _size(self, key: Key) -> Any:
    value = self.take(key.theirs, key.default)
    if key.values is None:
      return value
    try:
      return key.values[value]
    except (KeyError, TypeError):
      raise self.refusal(key.theirs, value, key.values) from None

  def refusal(self, name: str, value: Any, allowed: Iterable[Any]) -> UserError:
    """The UserError for a value that is not implemented."""
    choices = ", ".join(map(repr, allowed))
    return UserError(
      f"{self.where}: {name} is {shown(value)}, which the zoo does not have. It has: {choices}.{self._offer([name])}"
    )

  def _offer(self, names: Iterable[str]) -> str:
    """Hint for messages on how to ignore entries."""
    full = [self.prefix + name for name in names]
    return f" {offer(full)}" if self.may_ignore else ""

  def num_labels(self, default: int = 2) -> int:
    """Number of classes of a head: from id2label, or num_labels, or the reference's default."""
    names = self.take("id2label", {}, dict)
    return len(names) if names else self.take("num_labels", default, int)

  def must_be(self, name: str, *allowed: Any) -> None:
    """UserError for an entry with a value other than `allowed`, of which the first is the reference's default."""
    self.asked.add(name)
    value = self.entries.get(name, allowed[0])
    if not any(same(value, choice) for choice in allowed):
      raise self.refusal(name, value, allowed)

  def ignore(self, *names: str) -> None:
    """Marks entries without effect on the model as read: initialisation, losses."""
    self.asked.update(names)

  def section(self, name: str, reference: Reference | None = None) -> "Options":
    """A nested config; check it with its own `done`."""
    front = f"{name}."
    ignore = [ignored_name.removeprefix(front) for ignored_name in self.ignored if ignored_name.startswith(front)]
    section = Options(
      self.take(name, {}, dict), f"{self.where}: {name}", self.tensors, reference=reference, ignore=ignore,
      may_ignore=self.may_ignore,
    )  # fmt: skip
    section.prefix, section.whole = self.prefix + front, self.whole
    return section

  def done(self) -> None:
    """UserError for every entry that may change the model and was never read.

    Warns about the rest, in one line, for the full config: entries that the reference does not read, nulls,
    and defaults.
    """
    unasked = [name for name in self.entries if name not in self.asked | HARMLESS]
    unasked = [name for name in unasked if not (name in ABSENT and same(self.entries[name], ABSENT[name]))]
    refused = [name for name in unasked if self._changes(name)]
    if refused:
      first = ", ".join(map(self._shown, refused[:3]))
      raise UserError(
        f"{self.where} has {len(refused)} unknown option(s), which may change the model: {first}. "
        f"Remove what does not change the model.{self._offer(refused)}"
      )
    if unasked:
      self.whole.passed[self.where] = [*map(self._shown, unasked[:8]), *["..."] * (len(unasked) > 8)]
    if self.whole is self and self.passed:
      summary = "; ".join(f"{where} has {', '.join(names)}" for where, names in self.passed.items())
      warnings.warn(f"{summary}: ignored, since the reference computes the same without.", stacklevel=4)
      self.passed = {}

  def _changes(self, name: str) -> bool:
    value = self.entries[name]
    if self.reference is not None:
      return self.reference.changes(name, value)
    return value is not None or not self.may_ignore

  def _shown(self, name: str) -> str:
    return f"{shown(name)[1:-1]}={shown(self.entries[name])}"


def offer(names: Iterable[str]) -> str:
  """Hint for messages on how to ignore entries of a model's files."""
  names = list(names)
  return f"To load it without: ignore={tuple(names)!r}, or on a command --ignore={','.join(names)}."


def check_ignored(ignore: Collection[str], files: Mapping[str, Mapping[str, Any]]) -> None:
  """UserError for a name in `ignore` that no parsed file has."""
  for name in ignore:
    if not any(has_entry(entries, name) for entries in files.values()):
      hint = did_you_mean(name, [entry for entries in files.values() for entry in entries])
      raise UserError(f"ignore names {shown(name)}, which is not in {', '.join(files)}.{hint}")


def has_entry(entries: Any, name: str) -> bool:
  """Whether a parsed file has an entry; "section.name" looks inside a section."""
  if not isinstance(entries, Mapping):
    return False
  front, _, nested = name.partition(".")
  return name in entries or bool(nested) and has_entry(entries.get(front), nested)


def without(entries: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
  """The entries without `names`; "section.name" removes from a section."""
  return {
    name: without(
      value, [ignored_name.removeprefix(f"{name}.") for ignored_name in names if ignored_name.startswith(f"{name}.")]
    )
    if isinstance(value, Mapping)
    else value
    for name, value in entries.items()
    if name not in names
  }


def entries(keys: Iterable[Key], sizes: Mapping[str, Any]) -> dict[str, Any]:
  """Inverse of `Options.sizes`: config entries from our sizes."""
  config = {}
  for key in keys:
    value = sizes[key.ours]
    if key.values is not None:
      value = next(theirs for theirs, ours in key.values.items() if ours == value)
    config[key.theirs] = value
  return config


def named_labels(count: int) -> dict[str, Any]:
  """The id2label and label2id entries for `count` classes."""
  names = [f"LABEL_{i}" for i in range(count)]
  return {
    "id2label": {str(i): name for i, name in enumerate(names)},
    "label2id": {name: i for i, name in enumerate(names)},
  }


def _kinds(kind: Any) -> tuple[type, ...]:
  return kind if isinstance(kind, tuple) else () if kind is None else (kind,)
