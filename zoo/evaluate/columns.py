"""Maps fields of a table to columns of a task, by common names or as set by the user."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from zoo.errors import UserError, did_you_mean, shown

# A text's field -> the field of its partner, as in GLUE, STS-B, NLI and retrieval datasets.
PARTNERS = {
  "sentence1": "sentence2",
  "premise": "hypothesis",
  "question1": "question2",
  "text1": "text2",
  "text_a": "text_b",
  "sentence_A": "sentence_B",
  "sentence_a": "sentence_b",
  "question": "sentence",
  "query": "passage",
  "anchor": "positive",
  "text": "text_pair",
}
TEXTS = ("text", "sentence", "review", "content", "comment", "document", "tweet", "body", "title", "question")


class Column(NamedTuple):
  """A column of a task.

  Attributes:
    names: common names of its field, the likeliest first; "a+b" are several fields that make one column.
    holds: its contents, for the documentation.
    needed: whether the task requires it.
    partner_of: the column whose field determines this one's, by PARTNERS.
    reads: "texts" or "images": only for models that read these; None: all.
  """

  names: tuple[str, ...]
  holds: str
  needed: bool = True
  partner_of: str | None = None
  reads: str | None = None


TEXT = Column((*TEXTS, *PARTNERS), "a text", reads="texts")
PAIR = Column(tuple(PARTNERS.values()), "the text that goes with it", needed=False, partner_of="text", reads="texts")
IMAGE = Column(("image", "img", "picture", "photo", "jpg", "png", "jpeg", "webp"), "an image", reads="images")
LABEL = Column(
  ("label", "labels", "class", "category", "cls", "sentiment", "target", "fine_label", "gold_label", "stars", "rating"),
  "a class: its name or its number",
)

SCORE = Column(
  ("score", "similarity_score", "relatedness_score", "similarity", "label", "target", "rating"), "a number"
)


def parse_columns(columns: str | Mapping[str, str] | None) -> dict[str, str]:
  """Parses columns set by the user, as a mapping or a str.

  >>> parse_columns("text=review,label=stars")
  {'text': 'review', 'label': 'stars'}
  """
  if columns is None or isinstance(columns, Mapping):
    return dict(columns or {})
  pairs = [part.partition("=") for part in str(columns).split(",")]
  if not all(role.strip() and equals and field.strip() for role, equals, field in pairs):
    raise UserError(f"columns is {shown(columns)}. It must be COLUMN=FIELD,... as in text=review,label=stars.")
  return {role.strip(): field.strip() for role, _, field in pairs}


def find_columns(
  task: str,
  columns: Mapping[str, Column],
  chosen: Mapping[str, str],
  record: Mapping[str, Any],
  source: str,
  reads: str,
  way_out: Callable[[str], str] = lambda role: f"columns={{'{role}': FIELD}}, or --columns={role}=FIELD",
) -> dict[str, str]:
  """Finds the columns in the data: role -> field.

  Args:
    task: its name, for messages.
    columns: of the task.
    chosen: fields set by the user; "none" drops a column.
    record: the first of the data.
    source: the name of the data, for messages.
    reads: inputs of the model: "texts", "images", or both.
    way_out: role -> how to set its field, for messages.

  Raises:
    UserError: an unknown role or field; no field for a required column.
  """
  columns = {role: column for role, column in columns.items() if column.reads is None or column.reads in reads}
  has = [name for name in record if not name.startswith("__")]
  has += [f"{name}.{entry}" for name in has if isinstance(record[name], Mapping) for entry in record[name]]
  listed = ", ".join(has)
  for role, field in chosen.items():
    if role not in columns:
      near = did_you_mean(role, columns)
      raise UserError(f"{task} has no column '{role}'.{near} It has: {', '.join(columns)}.")
    if not set(field.split("+")) <= set(has) and (field != "none" or columns[role].needed):
      near = did_you_mean(field, has)
      raise UserError(f"columns: {source} has no field '{field}' to be the {role}.{near} It has: {listed}.")
  fields: dict[str, str] = {}
  for role, column in columns.items():
    names: Iterable[str] = column.names
    if column.partner_of is not None:  # Only by the partner's field: any other would be another pair.
      names = [PARTNERS[text] for text in [fields.get(column.partner_of)] if text in PARTNERS]
    elif any(other.partner_of == role for other in columns.values()):  # Pairs take precedence over single texts.
      names = [*(text for text, other in PARTNERS.items() if text in has and other in has), *names]
    field = chosen[role] if role in chosen else _first(names, has, fields.values())
    if field is not None and field != "none":
      fields[role] = field
    elif column.needed:
      raise UserError(
        f"{task}: which field of {source} is the {role} ({column.holds})? None is called {_names(column)}. It has: "
        f"{listed}. Say {way_out(role)}."
      )
  return fields


def _first(names: Iterable[str], has: list[str], taken: Iterable[str]) -> str | None:
  """The first of `names` among the fields of the data that are not taken, ignoring case; None if there is none."""
  folded = {name.lower(): name for name in reversed(has)}
  fields = (name if set(name.split("+")) <= set(has) else folded.get(name.lower()) for name in names)
  return next((field for field in fields if field is not None and field not in taken), None)


def _names(column: Column) -> str:
  return " or ".join(column.names[:4])
