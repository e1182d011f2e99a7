"""Task: classification of texts, of pairs of texts, or of images."""

from collections.abc import Mapping
from typing import Any

from zoo.evaluate.columns import IMAGE, LABEL, PAIR, TEXT
from zoo.evaluate.tasks import Subject, Task, fields


def _section(subject: Subject, columns: Mapping[str, str]) -> dict[str, Any]:
  classes = {"classes": subject.class_names(), "cache": False}
  if "image" in columns:
    return {"name": "labelled_images", **classes, **fields(columns, image_field="image", label_field="label")}
  return {
    "name": "labelled_texts",
    "tokenizer": subject.tokenizer_name(),
    "max_length": subject.text_length(),
    **classes,
    **fields(columns, text_field="text", pair_field="pair", label_field="label"),
  }


classification = Task(
  does="classes of texts, of pairs of texts, or of images",
  needs="a head that classifies texts or images",
  fits=lambda kind: kind.does == "classify" and kind.reads in ("texts", "images"),
  columns={"text": TEXT, "pair": PAIR, "image": IMAGE, "label": LABEL},
  evaluator="classification",
  section=_section,
  metrics="accuracy, balanced_accuracy, f1 (two classes), f1_macro, matthews, loss; row majority",
)
