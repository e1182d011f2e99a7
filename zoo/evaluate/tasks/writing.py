"""Shared by tasks of text generation: generation settings of the model's folder, and its input format."""

from collections.abc import Callable, Mapping
from typing import Any

from zoo.evaluate.model_kinds import ModelKind
from zoo.evaluate.tasks import Opened, Subject, fields, open_model
from zoo.generate.steps import encodes
from zoo.hub.files import CONFIG, is_published, read_json
from zoo.hub.generation import FILE, entries_of, ignored, options
from zoo.saving import MODEL
from zoo.storage import is_remote

NEW_TOKENS = 128  # Default maximum length of an answer.
# Sampling options: an evaluation must be reproducible.
DRAWS = ("temperature", "top_k", "top_p", "min_p", "num_return")


def writes(kind: ModelKind) -> bool:
  """Whether a model reads and generates text."""
  return kind.reads == "texts" and kind.does in ("answer", "next_token")


def open_writer(folder: Any, loading: Mapping[str, Any]) -> Opened:
  """Opens the model in a folder, with its generation settings, keywords of `zoo.generate`."""
  if is_remote(folder) or (folder / MODEL).exists() or not is_published(folder):
    return open_model(folder, loading)
  files = ignored(folder, loading.get("ignore", ()))
  model, params, _ = open_model(folder, {**loading, "ignore": files[CONFIG]})
  entries, config, where = entries_of(folder, files[FILE])
  if not encodes(model):  # Their lengths include the prompt.
    entries = {name: value for name, value in entries.items() if name not in ("max_length", "min_length")}
  stated = options(entries, config, where)
  return Opened(model, params, {"stated": {name: value for name, value in stated.items() if name not in DRAWS}})


def section(prefix: Callable[[Subject], str] = lambda subject: "") -> Callable[[Subject, Mapping[str, str]], dict]:
  """The section of data of a task, with the `prefix` of the folder."""

  def of(subject: Subject, columns: Mapping[str, str]) -> dict[str, Any]:
    limit, length = subject.model.max_length, subject.text_length()
    new_tokens = min(NEW_TOKENS, (limit or 2 * NEW_TOKENS) // 2 if not encodes(subject.model) else limit or NEW_TOKENS)
    begins = prefix(subject)
    shared = {
      "tokenizer": subject.tokenizer_name(),
      "max_length": length if encodes(subject.model) else length - new_tokens,
      "target_length": new_tokens,
      **({"prefix": begins} if begins else {}),
      **fields(columns, source_field="source", target_field="target"),
    }
    if not subject.published and encodes(subject.model) and "target" in columns:
      return {"name": "text_pairs", "cache": False, **shared}  # As in the zoo's own training.
    # A decoder trained in the zoo has seen texts after an end token, without other special tokens.
    return {"name": "prompts", "after_end": not subject.published and not encodes(subject.model), **shared}

  return of


def stated_prefix(task: str) -> Callable[[Subject], str]:
  """subject -> the prefix for a task in the config.json of a T5: "summarize: "."""

  def of(subject: Subject) -> str:
    if subject.folder is None or not subject.published:
      return ""
    every = read_json(subject.folder / CONFIG).get("task_specific_params")
    options = every.get(task) if isinstance(every, Mapping) else None
    begins = options.get("prefix") if isinstance(options, Mapping) else None
    return begins if isinstance(begins, str) else ""

  return of
