"""Task: speech recognition."""

from collections.abc import Mapping
from typing import Any

from zoo.data.recordings import TEXT_FIELDS
from zoo.evaluate.columns import Column
from zoo.evaluate.tasks import Opened, Subject, Task, fields, open_model
from zoo.hub.files import CONFIG, is_published
from zoo.hub.generation import FILE, entries_of, ignored
from zoo.saving import MODEL
from zoo.storage import is_remote


def _open(folder: Any, loading: Mapping[str, Any]) -> Opened:
  """The model in a folder, and what its files say of how texts begin, end and are found."""
  if is_remote(folder) or (folder / MODEL).exists() or not is_published(folder):
    return open_model(folder, loading)
  files = ignored(folder, loading.get("ignore", ()))
  model, params, _ = open_model(folder, {**loading, "ignore": files[CONFIG]})
  return Opened(model, params, {"spoken": entries_of(folder, files[FILE])})


def _section(subject: Subject, columns: Mapping[str, str]) -> dict[str, Any]:
  named = fields(columns, audio_field="audio", text_field="text")
  return {"name": "recordings", "tokenizer": subject.tokenizer_name(), **named}


speech = Task(
  does="what is said in recordings of any length (extras `audio` and `speech`)",
  needs="a model that writes what it hears",
  fits=lambda kind: kind.reads == "sounds" and kind.does == "answer",
  columns={
    "audio": Column(("audio", "recording", "sound", "speech"), "a recording"),
    "text": Column(TEXT_FIELDS, "what is said in it"),
  },
  evaluator="speech",
  section=_section,
  metrics="wer, cer (0 is best), substitutions, deletions, insertions, words, seconds",
  opens=_open,
)
