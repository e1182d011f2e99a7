"""Accuracy of word classes and F1 of entities (CoNLL-2003, https://aclanthology.org/W03-0419)."""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from zoo.errors import UserError
from zoo.evaluate.entities import are_tags, entity_spans
from zoo.evaluate.forward import model_output, needs_output, outputs, records_of


def token_classification(model: Any, *, data: Mapping | Any, batch_size: int = 32) -> Callable:
  """Evaluator: (params, folder=None, step=None) -> {"f1", "precision", "recall", "accuracy", "words", ...}.

  An entity counts if its kind, its first and its last word are right (`zoo.evaluate.entities`); precision, recall and
  f1 are over all entities, and for each kind as f1_KIND. If the class names are not entity tags, such as parts
  of speech, there is only accuracy. Words beyond the model's maximum length are dropped, as in the reference's scripts,
  and counted: `words_cut`. The row `majority` always predicts the most frequent class.

  Args:
    model: returns {"logits" [batch, length, num_classes]} for the `tokens` of a batch.
    data: section of the pipeline `labelled_tokens`, or its records: `label` int32 [length], -1 for tokens without
      label.
    batch_size: texts per batch.
  """
  needs_output(model, "logits", "token_classification")
  records = records_of(data, model, "token_classification", "tokens", "label")
  names = records.info.get("class_names")
  if not names:
    raise UserError("token_classification: the classes have no names. Give them as class_names, or classes.")
  marks = are_tags(names)

  @jax.jit
  def forward(params: Any, batch: dict) -> dict:
    logits = model_output(model, params, batch, "logits", "token_classification")
    if logits.ndim != 3 or logits.shape[-1] != len(names):
      raise UserError(
        f"token_classification: the model gives logits {logits.shape}, the data have {len(names)} classes."
      )
    return {"predicted": logits.argmax(-1)}

  def evaluate(params: Any, folder: str | os.PathLike | None = None, step: int | None = None) -> dict[str, float]:
    counts: dict[str, Counter[str]] = {"right": Counter(), "predicted": Counter(), "marked": Counter()}
    labels: Counter[int] = Counter()
    right = cut = 0
    for results, batch in outputs(forward, params, records, batch_size, model, trim=True):
      cut += int(batch["cut"].sum()) if "cut" in batch else 0
      for predicted, label in zip(results["predicted"], batch["label"], strict=True):
        counted = label >= 0
        right += int((predicted[counted] == label[counted]).sum())
        labels.update(label[counted].tolist())
        if marks:
          tags = [[names[tag] for tag in row[counted]] for row in (predicted, label)]
          spans, marked = map(entity_spans, tags)
          for name, some in (("right", spans & marked), ("predicted", spans), ("marked", marked)):
            counts[name].update(kind for kind, _, _ in some)
    words = labels.total()
    if not words:
      raise UserError("token_classification: no word of the data is in a row. Raise max_length.")
    metrics = (entity_scores(counts) if marks else {}) | {"accuracy": right / words}
    metrics |= {"words": float(words), **({"words_cut": float(cut)} if cut else {})}
    return metrics | {"majority/accuracy": max(labels.values()) / words}

  return evaluate


def entity_scores(counts: Mapping[str, Counter[str]]) -> dict[str, float]:
  """Precision, recall and F1 from counts of entities per kind: `right`, `predicted` and labelled (`marked`).

  >>> entity_scores({"right": Counter(PER=1), "predicted": Counter(PER=2), "marked": Counter(PER=2)})["f1"]
  0.5
  """
  total = [counts[name].total() for name in ("right", "predicted", "marked")]
  kinds: Sequence[str] = sorted(counts["marked"] | counts["predicted"])
  metrics = {"f1": _f1(*total), "precision": total[0] / max(total[1], 1), "recall": total[0] / max(total[2], 1)}
  return metrics | {
    f"f1_{kind}": _f1(*(counts[name][kind] for name in ("right", "predicted", "marked"))) for kind in kinds
  }


def _f1(right: int, predicted: int, marked: int) -> float:
  return float(2 * right / max(predicted + marked, 1))
