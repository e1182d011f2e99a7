"""Evaluates a model on a task, or a run by the evaluators of its config.

    python -m zoo.evaluate --model=FOLDER_OR_ID --task=classification --data=jsonl:reviews.jsonl

is `zoo.evaluate_model` from a shell; see `zoo.evaluate.one_line`. A run, finished or not:

    python -m zoo.evaluate --run=runs/clip_emoji [--only=retrieval] [--step=best]

The evaluators are those of section `eval` of the run's config, or of another --config; `--config.eval.evaluators...=`
overrides it. Prints the tables and writes evaluation.json, evaluation.txt and the evaluators' own files to the run
folder, or in --workdir.

A published model, a folder or a hub id, needs a --config. Its preprocessing, tokenizer and sizes are its own unless
the evaluator overrides them, and files go to runs/evaluations/NAME:

    python -m zoo.evaluate --run=openai/clip-vit-base-patch32 --config=configs/clip_emoji.py
"""

import os
import sys
from collections.abc import Collection
from typing import Any

import jax

import zoo
from zoo import evaluate, sharding
from zoo.checkpoints import manager
from zoo.checkpoints.retention import best_step
from zoo.config.loading import load
from zoo.config.overrides import split
from zoo.data.tokenizers.open_clip import is_open_clip
from zoo.errors import UserError, did_you_mean, exits_with_one_line, setting_up
from zoo.evaluate import one_line
from zoo.evaluate.artifacts import write_json, write_text
from zoo.hosts.libtpu import silence_libtpu
from zoo.hosts.process import run
from zoo.hub.files import CONFIG, is_published
from zoo.hub.ids import folder_of
from zoo.saving import MODEL
from zoo.storage import as_path, check_folder, is_remote, make_folder

FLAGS = {
  "run": "folder of the run",
  "only": "keys of the evaluators to run, with commas between them",
  "workdir": "folder for the files; by default the run's, and of weights alone runs/evaluations/NAME",
  "step": "which checkpoint: its number, or best; by default the finished model, or else the newest",
  "ignore": "entries of a published model's config.json to leave unread, with commas between them",
}


@exits_with_one_line
def main(argv: list[str]) -> int:
  """Runs the evaluators named by the arguments; returns 0 on success."""
  silence_libtpu()
  if one_line.asks(argv):
    return one_line.main(argv)
  options, _ = split(argv, FLAGS)
  if "run" in options and "config" not in options and not options["help"]:
    _check_run(options["run"])
  config, options = load(argv, FLAGS)
  if "run" not in options:
    raise UserError("Which run? Name its folder, as in --run=runs/clip_emoji. --help lists the flags.")
  with setting_up():
    folder = as_path(options["run"]) if is_remote(options["run"]) else folder_of(options["run"])
    workdir = as_path(options.get("workdir") or _workdir(options["run"], folder))
    check_folder(workdir, "Choose another --workdir.")
    ignore = options["ignore"].split(",") if "ignore" in options else ()
    model, params, step = restore(folder, options.get("step"), ignore)
    mesh = sharding.make_mesh(config.mesh)
    sharding.check_axes(mesh, config.sharding)
    params = jax.device_put(params, sharding.shardings(params, config.sharding, mesh))
    section = {"evaluators": chosen(config.eval.evaluators.to_dict(), options.get("only"))}
    evaluators = evaluate.evaluators(section, model, config.data)
  make_folder(workdir)  # Raises before the work, not after it.
  tables = []

  def note(text: str) -> None:
    tables.append(text)
    print(text, end="\n\n", flush=True)

  results = evaluate.run(evaluators, params, workdir, step, note=note)
  write_json(workdir, "evaluation.json", {"step": step, **results})
  write_text(workdir, "evaluation.txt", "\n\n".join(tables))
  if str(workdir) != str(folder):
    print(f"Written to {workdir}.")
  return 0


def _check_run(source: str) -> None:
  """UserError if a folder has no experiment's config.json."""
  if is_remote(source) or not os.path.exists(source):
    return
  folder = folder_of(source)  # It raises if the path is a file.
  if _holds_weights_alone(folder):
    raise UserError(
      f"{folder} is a model, not a run, so the evaluators are unknown. Pass --model={source} --task=NAME "
      "--data=SOURCE. Or name a config whose evaluators fit it, as in --config=configs/clip_emoji.py."
    )


def _holds_weights_alone(folder: Any) -> bool:
  """Whether a local folder holds a model, published or of `zoo.save`, and no run."""
  if (folder / MODEL).exists():
    return not (folder / CONFIG).exists()
  return is_open_clip(folder) or is_published(folder)


def _workdir(source: str, folder: Any) -> Any:
  """The default folder for files: the run's own, but not a folder that holds only weights."""
  if is_remote(source) or not _holds_weights_alone(folder):
    return folder
  name = folder.resolve().name if os.path.isdir(source) else source.replace("/", "--")
  return os.path.join("runs", "evaluations", name)


def restore(folder: Any, checkpoint: str | None, ignore: Collection[str] = ()) -> tuple[Any, Any, int | None]:
  """Loads (model, params, training step); the step is None if the folder does not record it."""
  steps = manager.steps(folder / "checkpoints")
  if checkpoint is None:
    return *zoo.load(folder, ignore=ignore), max(steps, default=None)
  if checkpoint == "best":
    return *zoo.load(folder, best=True), best_step(manager.scores(folder / "checkpoints"))
  if not checkpoint.isdigit():
    raise UserError(f"--step is '{checkpoint}'. It must be the number of a step, or best.")
  return *zoo.load(folder, step=int(checkpoint)), int(checkpoint)


def chosen(evaluators: dict[str, Any], only: str | None) -> dict[str, Any]:
  """The config's evaluators whose keys `only` lists; all if it is None."""
  if not evaluators:
    raise UserError("The config has no evaluators: eval.evaluators is empty. Name a --config that has some.")
  keys = list(evaluators) if only is None else [key.strip() for key in only.split(",")]
  for key in keys:
    if key not in evaluators:
      hint = did_you_mean(key, evaluators)
      raise UserError(
        f"--only names '{key}', which is not an evaluator of the config.{hint} It has: {', '.join(evaluators)}."
      )
  return {key: evaluators[key] for key in keys}


if __name__ == "__main__":
  run(main, sys.argv[1:])
