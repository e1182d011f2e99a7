"""Evaluates a run, finished or not: python -m zoo.evaluate --run=runs/clip_emoji [--only=retrieval] [--step=best]

What to measure is the section `eval` of the run's config, or of another --config; `--config.eval.evaluators...=`
changes it. Prints the tables and leaves evaluation.json, evaluation.txt and the evaluators' own files in the run
folder.
"""

import sys
from typing import Any

import jax
from etils import epath

import zoo
from zoo import checkpoints, evaluate, sharding
from zoo.config import load
from zoo.errors import UserError, did_you_mean, exits_with_one_line, setting_up
from zoo.evaluate.artifacts import write_json, write_text
from zoo.places import place
from zoo.quiet import hush_libtpu
from zoo.retention import best_step

FLAGS = {
  "run": "folder of the run",
  "only": "keys of the evaluators to run, with commas between them",
  "step": "which checkpoint: its number, or best; by default the finished model, or else the newest",
}


@exits_with_one_line
def main(argv: list[str]) -> int:
  """Runs the evaluators that the arguments ask for; 0 when all is well."""
  hush_libtpu()
  config, options = load(argv, FLAGS)
  if "run" not in options:
    raise UserError("Which run? Name its folder, as in --run=runs/clip_emoji. --help lists the flags.")
  folder = place(options["run"])
  with setting_up():
    model, params, step = restore(folder, options.get("step"))
    mesh = sharding.make_mesh(config.mesh)
    params = jax.device_put(params, sharding.shardings(params, config.sharding, mesh))
    section = {"evaluators": chosen(config.eval.evaluators.to_dict(), options.get("only"))}
    evaluators = evaluate.evaluators(section, model, config.data)
  tables = []

  def note(text: str) -> None:
    tables.append(text)
    print(text, end="\n\n", flush=True)

  results = evaluate.run(evaluators, params, folder, step, note=note)
  write_json(folder, "evaluation.json", {"step": step, **results})
  write_text(folder, "evaluation.txt", "\n\n".join(tables))
  return 0


def restore(folder: epath.Path, wanted: str | None) -> tuple[Any, Any, int | None]:
  """Model, parameters and how many steps they were trained, None if the folder does not tell."""
  steps = checkpoints.steps(folder / "checkpoints")
  if wanted is None:
    return *zoo.load(folder), max(steps, default=None)
  if wanted == "best":
    return *zoo.load(folder, best=True), best_step(checkpoints.scores(folder / "checkpoints"))
  if not wanted.isdigit():
    raise UserError(f"--step is '{wanted}'. It must be the number of a step, or best.")
  return *zoo.load(folder, step=int(wanted)), int(wanted)


def chosen(evaluators: dict[str, Any], only: str | None) -> dict[str, Any]:
  """Those of the config's evaluators whose keys `only` lists; all without it."""
  if not evaluators:
    raise UserError("The config has no evaluators: eval.evaluators is empty. Name a --config that has some.")
  keys = list(evaluators) if only is None else [key.strip() for key in only.split(",")]
  for key in keys:
    if key not in evaluators:
      near = did_you_mean(key, evaluators)
      raise UserError(
        f"--only names '{key}', which is no evaluator of the config.{near} It has: {', '.join(evaluators)}."
      )
  return {key: evaluators[key] for key in keys}


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
