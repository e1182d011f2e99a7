"""Rows of Arrow tables as examples, decoded by the features that Hugging Face's datasets writes in a schema."""

import json
from collections.abc import Mapping
from typing import Any

from zoo.data.bad_records import BadRecord
from zoo.errors import UserError, shown

_MEDIA = {"bytes", "path"}  # Fields of an Image or Audio of datasets.


def features_in(schema: Any) -> dict[str, Any]:
  """The features that datasets wrote in the metadata of a schema; {} if it did not."""
  try:
    features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
  except (ValueError, KeyError, TypeError, RecursionError):
    return {}
  return features if isinstance(features, dict) else {}


def class_names_in(features: Mapping[str, Any]) -> dict[str, list[str]]:
  """Field -> class names, for each ClassLabel and each list of them.

  >>> class_names_in({"label": {"names": ["no", "yes"], "_type": "ClassLabel"}, "text": {"_type": "Value"}})
  {'label': ['no', 'yes']}
  """
  names = {}
  for field, feature in features.items():
    while isinstance(feature, dict) and isinstance(feature.get("feature"), dict):
      feature = feature["feature"]
    if isinstance(feature, list) and len(feature) == 1:
      feature = feature[0]
    if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and isinstance(feature.get("names"), list):
      names[field] = list(map(str, feature["names"]))
  return names


def check_schema(columns: list[str], path: Any, first_columns: list[str], first_path: Any) -> None:
  """UserError if two files have different columns."""
  if differ := set(columns) ^ set(first_columns):
    name = min(differ)
    one, other = (path, first_path) if name in columns else (first_path, path)
    raise UserError(
      f"{one} has a column {shown(name)} that {other} has not. Give the files the same columns, or take one of them."
    )


def example_of(table: Any, row: int, what: str) -> dict[str, Any]:
  """A row of a pyarrow Table or RecordBatch as Python values; an Image or Audio of datasets as its encoded bytes.

  The texts of a column `translation` are also fields, named by their languages.

  Raises:
    BadRecord: a value is unreadable, or refers to an external file.
  """
  example = {}
  for name, column in zip(table.schema.names, table.columns):
    try:
      value = column[row].as_py()
    except (ValueError, OverflowError) as error:  # A str that is not UTF-8, a time out of Python's range or finer.
      value = _as_text(column, row)
      if value is None:
        raise BadRecord(f"{what}: column {shown(name)} cannot be read ({error}).") from error
    if isinstance(value, dict) and value.keys() == _MEDIA:
      if value["bytes"] is None:
        raise BadRecord(f"{what}: column {shown(name)} names {shown(value['path'])} and does not hold its bytes.")
      value = value["bytes"]
    example[name] = value
  return {**_translation(example.get("translation")), **example}


def _as_text(column: Any, row: int) -> str | None:
  """A time that Python's types do not hold, such as one of nanoseconds, as text; None for other types."""
  import pyarrow

  if not pyarrow.types.is_temporal(column.type):
    return None
  try:
    return column[row].cast(pyarrow.string()).as_py()
  except pyarrow.ArrowException:
    return None


def _translation(value: Any) -> dict[str, str]:
  """Expands a Translation of datasets, {"de": ..., "en": ...}, to fields: pairs of texts are two fields."""
  texts = isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
  return value if texts else {}
