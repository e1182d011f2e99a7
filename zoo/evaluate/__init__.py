"""Evaluators: metrics of a model, inside train.py or standalone (`python -m zoo.evaluate --run=FOLDER`).

One file per evaluator: `name(model, *, data=..., **options) -> evaluate(params, folder=None, step=None) -> dict of
floats`. A key `row/column` of the dict belongs to a baseline, measured by the same code on the same data.
"""

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from zoo.config import registry
from zoo.config.loading import without
from zoo.config.registry import lookup
from zoo.config.schema import resolve
from zoo.errors import UserError, did_you_mean, prefix_errors, shown
from zoo.evaluate.artifacts import check_name
from zoo.evaluate.forward import opening
from zoo.evaluate.tables import table
from zoo.hub.preprocessing import image_processor

INHERIT = ("data", "train_data")  # Options of evaluators that are data sections.


def evaluators(
  section: Mapping[str, Any], model: Any, data: Mapping[str, Any] | None = None, best: str | None = None
) -> dict[str, Callable]:
  """Builds the evaluators of a config's section `eval`: opens their data and checks their options.

  Args:
    section: `{"evaluators": {key: {"name": ..., **options}}}`; the name defaults to the key. Files that an
      evaluator writes are named after its key.
    model: a model of the zoo.
    data: the config's section `data`, which those of evaluators inherit: `{"split": "test"}` overrides one entry.
      The `fit` of training images is not inherited by evaluators of a published model: its processor is used.
      `scaled` is not inherited either: evaluators decode images in full unless their own section sets it.
    best: the config's `checkpoint.best`: a metric of one of them, "eval/KEY/METRIC".

  Raises:
    UserError: an evaluator cannot be set up, and the message begins with its key; or `best` is of none of them.
  """
  ready, files = {}, {}
  if best is not None and key_of(best) not in section["evaluators"]:
    keys = ", ".join(section["evaluators"]) or "there is none in eval.evaluators"
    near = did_you_mean(best, (f"eval/{key}/{best.rpartition('/')[2]}" for key in section["evaluators"]))
    raise UserError(
      f"checkpoint.best is {shown(best)}, of no evaluator.{near} Write eval/KEY/METRIC, with the KEY of one: {keys}."
    )
  for key, options in resolve(section["evaluators"]).items():
    with prefix_errors(f"config.eval.evaluators.{key}"):
      if not isinstance(options, Mapping):
        raise UserError(f"It is {shown(options)}. It must be a mapping, like {{'name': 'classification'}}.")
      options = {"name": key, **options}
      if "file" in inspect.signature(lookup("evaluate", options["name"])).parameters:
        options = {"file": key, **options}
        file = check_name(options["file"])
        if (taken_by := files.setdefault(file.lower(), key)) != key:
          raise UserError(f"file is '{file}', the same as that of '{taken_by}'. Give each evaluator its own file.")
      if data is not None:
        ours = ("fit", "background", "image_size") if image_processor(model) is not None else ()
        common = without(data, "scaled", *ours)
        options = {name: inherited(entry, common) if name in INHERIT else entry for name, entry in options.items()}
      ready[key] = built(options, model)
  return ready


def key_of(metric: str) -> str | None:
  """The key of the evaluator that a metric is of.

  >>> key_of("eval/test/majority/accuracy"), key_of("loss")
  ('test', None)
  """
  first, _, rest = metric.partition("/")
  return rest.partition("/")[0] if first == "eval" else None


def built(options: Mapping[str, Any], model: Any, offers: Mapping[str, Any] | None = None) -> Callable:
  """The evaluator of a section `{"name": ..., **options}`; one whose data skip bad records also counts them.

  offers: further arguments, passed if it takes them: as in `zoo.config.registry.build`.
  """
  if isinstance(rows := options.get("batch_size"), int) and rows < 1:
    raise UserError(f"batch_size is {rows}. It must be at least 1.")
  with opening() as opened:
    evaluate = registry.build("evaluate", options, model, offers=offers)
  skips = any(records.policy.skips for records in opened)
  return Skipping(evaluate, [(records.name, records.bad) for records in opened]) if skips else evaluate


class Skipping:
  """An evaluator whose data skip bad records: it also returns their number, `bad_records`.

  Args:
    evaluate: the evaluator.
    bad: name of each of its datasets -> errors of skipped records.
  """

  def __init__(self, evaluate: Callable, bad: Sequence[tuple[str, Sequence[str]]]):
    self.evaluate, self.bad = evaluate, bad

  def __call__(self, params: Any, folder: str | os.PathLike | None = None, step: int | None = None) -> dict[str, float]:
    return self.evaluate(params, folder, step) | {"bad_records": float(sum(len(errors) for _, errors in self.bad))}


def skipped_records(evaluators: Mapping[str, Callable]) -> dict[str, list[str]]:
  """Errors of the records that evaluators skip: {"eval/KEY NAME OF THE DATA": [error, ...]}."""
  errors: dict[str, list[str]] = {}
  for key, evaluate in evaluators.items():
    for name, bad in evaluate.bad if isinstance(evaluate, Skipping) else ():
      errors.setdefault(f"eval/{key} {name}", []).extend(bad)
  return errors


def inherited(section: Any, data: Mapping[str, Any]) -> Any:
  """An evaluator's data section: unless it names a pipeline, the run's, overridden by these entries.

  Nested sections are merged likewise. Training-only entries, `augment` and `workers`, are dropped.
  """
  if not isinstance(section, Mapping) or "name" in section:
    return section
  return merged_section(without(resolve(data), "augment", "workers"), section)


def merged_section(section: Mapping[str, Any], entries: Mapping[str, Any]) -> dict[str, Any]:
  """`section` overridden by `entries`, recursively; a nested section with its own name replaces the old one."""
  merged = dict(section)
  for name, entry in entries.items():
    below = section.get(name)
    mergeable = isinstance(entry, Mapping) and isinstance(below, Mapping) and "name" not in entry
    merged[name] = merged_section(below, entry) if mergeable else entry
  return merged


def run(
  evaluators: Mapping[str, Callable],
  params: Any,
  folder: str | os.PathLike | None = None,
  step: int | None = None,
  *,
  note: Callable[[str], Any] | None = None,
  only: str | None = None,
) -> dict[str, float]:
  """Runs evaluators one after another -> {"eval/KEY/METRIC": float}.

  Args:
    evaluators: from the function of that name.
    params: the model's; may be sharded.
    folder: output folder for their files; None: no files.
    step: the training step, for titles.
    note: called with each table as a str.
    only: the name of a metric, whose evaluator alone is run; None: all are.
  """
  results = {}
  for key, evaluate in evaluators.items():
    if only is not None and key != key_of(only):
      continue
    metrics = evaluate(params, folder if jax.process_index() == 0 else None, step)
    results |= {f"eval/{key}/{name}": value for name, value in metrics.items()}
    if note is not None:
      note(table(metrics, key))
  return results
