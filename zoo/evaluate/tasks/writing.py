"""What tasks have in common whose models write: how the model's folder asks for it, and the texts as it reads them."""

from collections.abc import Callable, Mapping
from typing import Any

from zoo.evaluate.model_kinds import ModelKind
from zoo.evaluate.tasks import Opened, Subject, fields, open_model
from zoo.generate.steps import encodes
from zoo.hub.files import CONFIG, is_published, read_json
from zoo.hub.generation import FILE, entries_of, ignored, options
from zoo.saving import MODEL
from zoo.storage import is_remote

NEW_TOKENS = 128  # Of an answer, where nothing says how long it may be.
# What draws: an evaluation gives the same numbers every time.
DRAWS = ("temperature", "top_k", "top_p", "min_p", "num_return")


def writes(kind: ModelKind) -> bool:
  """Whether a model reads texts and writes one."""
  return kind.reads == "texts" and kind.does in ("answer", "next_token")


def open_writer(folder: Any, loading: Mapping[str, Any]) -> Opened:
  """The model in a folder, and the keywords of `zoo.generate` that its files ask for."""
  if is_remote(folder) or (folder / MODEL).exists() or not is_published(folder):
    return open_model(folder, loading)
  files = ignored(folder, loading.get("ignore", ()))
  model, params, _ = open_model(folder, {**loading, "ignore": files[CONFIG]})
  entries, config, where = entries_of(folder, files[FILE])
  if not encodes(model):  # Their lengths count the prompt.
    entries = {name: value for name, value in entries.items() if name not in ("max_length", "min_length")}
  stated = options(entries, config, where)
  return Opened(model, params, {"stated": {name: value for name, value in stated.items() if name not in DRAWS}})


def section(prefix: Callable[[Subject], str] = lambda subject: "") -> Callable[[Subject, Mapping[str, str]], dict]:
  """The section of data of a task, whose texts begin with `prefix` if the folder says so."""

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
      return {"name": "text_pairs", "cache": False, **shared}  # As the zoo trains them.
    # A decoder that the zoo trained has met texts behind an end, and nothing else around them.
    return {"name": "prompts", "after_end": not subject.published and not encodes(subject.model), **shared}

  return of


def stated_prefix(task: str) -> Callable[[Subject], str]:
  """subject -> what the config.json of a T5 says that texts of a task begin with: "summarize: "."""

  def of(subject: Subject) -> str:
    if subject.folder is None or not subject.published:
      return ""
    every = read_json(subject.folder / CONFIG).get("task_specific_params")
    one = every.get(task) if isinstance(every, Mapping) else None
    begins = one.get("prefix") if isinstance(one, Mapping) else None
    return begins if isinstance(begins, str) else ""

  return of
