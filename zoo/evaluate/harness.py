"""Runs EleutherAI's lm-evaluation-harness on models of the zoo: `lm_eval` provides tasks and scores.

    python -m zoo.evaluate.harness --model=FOLDER_OR_ID --tasks=arc_easy,my_task --include_path=my_tasks

prints its table and writes harness.json to runs/evaluations/NAME/harness. In Python its functions take the adapter:

    lm_eval.simple_evaluate(model=zoo.evaluate.harness.adapter(FOLDER_OR_ID), tasks=["arc_easy"])
"""

import importlib
import json
import math
import os
import pathlib
import sys
from collections.abc import Collection, Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from zoo import sharding
from zoo.config.overrides import literal, require, split
from zoo.errors import UserError, did_you_mean, exits_with_one_line, setting_up, shown
from zoo.evaluate.artifacts import write_text
from zoo.evaluate.harness_model import HarnessModel
from zoo.evaluate.harness_tokenizer import HarnessTokenizer
from zoo.evaluate.model_kinds import described, model_kind
from zoo.evaluate.one_line import default_workdir
from zoo.extras import install
from zoo.generate import checks
from zoo.hosts.libtpu import silence_libtpu
from zoo.hosts.process import run
from zoo.hub.files import CONFIG
from zoo.hub.generation import FILE, entries_of, ignored
from zoo.hub.ids import folder_of
from zoo.hub.tokenizers import load_tokenizer
from zoo.saving import load
from zoo.storage import as_path, check_folder, is_remote, make_folder

FLAGS = {
  "model": "a folder, or a hub id; a run's folder too",
  "tasks": "names of tasks, of groups and of tags, with commas between them; * stands for anything",
  "include_path": "a folder with tasks of your own, as YAML",
  "num_fewshot": "how many examples stand before a question; by default as the task has it",
  "limit": "how many documents of a task, or below 1 which share of them; by default all",
  "gen_kwargs": 'what tasks that generate are to use besides, as in {"max_gen_toks": 64}',
  "batch_size": "rows at a time (16)",
  "max_length": "tokens that the model reads at most; by default as many as it takes",
  "max_gen_toks": "tokens of an answer at most where the task does not say (256)",
  "add_bos_token": "whether special tokens are added to texts; by default as the tokenizer does",
  "prefix_token_id": "what a text without context follows; by default the token that begins texts, or ends them",
  "seed": "of draws (0)",
  "tokenizer": "another than the model's own: a name or a path",
  "workdir": "folder for the files; by default runs/evaluations/NAME/harness",
  "dtype": "of the parameters, e.g. bfloat16",
  "mesh": 'devices, as in {"data": 4, "model": 2}; by default all of them share the rows',
  "sharding": "strategy of the parameters (replicated)",
  "ignore": "entries of a published model's files to leave unread, with commas between them",
}
SWITCHES = {"log_samples": "write every document with the model's answer, a line each: samples_TASK.jsonl"}
OF_RUN = ("num_fewshot", "limit", "gen_kwargs")  # Options of simple_evaluate, Python literals like the adapter's.
OF_MODEL = ("batch_size", "max_length", "max_gen_toks", "add_bos_token", "prefix_token_id", "seed")
DEFAULT_LENGTH = 2048  # As in lm_eval, if neither model nor tokenizer has a limit.


def adapter(
  model: Any,
  *,
  tokenizer: Any = None,
  batch_size: int = 16,
  max_length: int | None = None,
  max_gen_toks: int = 256,
  add_bos_token: bool | None = None,
  prefix_token_id: int | None = None,
  seed: int = 0,
  dtype: Any = None,
  mesh: Mesh | None = None,
  strategy: str | list = "replicated",
  ignore: Collection[str] = (),
) -> Any:
  """A language model of the zoo as an `lm_eval.api.model.LM`, for `lm_eval.simple_evaluate(model=...)`.

  Token boundaries, text prefixes and truncation from the left are those of lm_eval's own model of torch
  transformers (`HFLM`), whose log-likelihoods and texts it reproduces; HFLM reads parameters in the dtype of the file,
  unless `dtype=float32`. An answer of an encoder-decoder has at most max_gen_toks tokens. The folder's generation
  settings (beams, penalties) are used, overridden by the task's `generation_kwargs`.

  Args:
    model: a folder, or a hub id, that `zoo.load` reads; or (model, params), which needs a tokenizer. A decoder or an
      encoder-decoder.
    tokenizer: a name, a path, or the result of `zoo.load_tokenizer`; by default the model's own.
    batch_size: rows per batch. On a mesh they are sharded over its axis `data`, if they divide.
    max_length: maximum tokens of the model; by default its own, else the tokenizer's, else 2,048.
    max_gen_toks: maximum tokens of an answer, unless a task sets it.
    add_bos_token: whether special tokens are added to texts; by default as in the tokenizer.
    prefix_token_id: token before a text without context; by default the tokenizer's bos, else its eos.
    seed: of sampling, if a task sets do_sample.
    dtype, mesh, strategy: as in `zoo.load`.
    ignore: entries of the folder's config.json and generation_config.json to ignore.

  Raises:
    UserError: lm_eval is not installed, the model does not generate text, or an option is out of range.

  >>> import zoo
  >>> model = zoo.build("gpt", vocab_size=260, max_length=16, dim=8, depth=1, num_heads=2)
  >>> params = model.init(jax.random.key(0), *model.example())["params"]
  >>> lm_eval = adapter((model, params), tokenizer="bytes")  # doctest: +SKIP
  """
  base = _lm_eval("api.model").TemplateLM
  entries: tuple[dict[str, Any], dict[str, Any], str] = {}, {}, ""
  with setting_up():
    if isinstance(model, str | os.PathLike):
      folder = as_path(model) if is_remote(model) else folder_of(model)
      local = isinstance(folder, pathlib.Path)
      unread = ignored(folder, ignore) if local else {CONFIG: list(ignore), FILE: []}
      # Resolved: a folder may have the name of a packaged tokenizer.
      tokenizer = (folder.resolve() if local else model) if tokenizer is None else tokenizer
      entries = entries_of(folder, unread[FILE]) if local else entries
      model, params = load(model, dtype=dtype, mesh=mesh, strategy=strategy, ignore=unread[CONFIG])
    elif isinstance(model, tuple) and len(model) == 2:
      model, params = model
    else:
      raise UserError(f"model is {shown(model)}. It must be a folder, a hub id, or (model, params).")
    kind = model_kind(model)
    if kind.reads != "texts" or kind.does not in ("next_token", "answer"):
      raise UserError(f"lm_eval needs a model that continues or answers texts. This is a {described(model)}.")
    if tokenizer is None:
      raise UserError("(model, params) have no tokenizer. Name it: tokenizer='gpt2'.")
    if isinstance(tokenizer, str | os.PathLike):
      tokenizer = load_tokenizer(tokenizer)
    limits = {"batch_size": batch_size, "max_gen_toks": max_gen_toks, "max_length": max_length}
    for name, value in limits.items():
      if value is not None:
        checks.number(name, value, integer=True, minimum=2 if name == "max_length" else 1)
    checks.number("seed", seed, integer=True)
    model_length = model.max_length
    if model_length is not None and max_length is not None and max_length > model_length:
      raise UserError(f"max_length is {max_length}, the model takes {model_length} tokens. Lower it.")
    lengths = (max_length, model_length, tokenizer.max_length, DEFAULT_LENGTH)
    subclass = type("ZooLM", (HarnessModel, base), {})
    return subclass(
      model,
      params,
      HarnessTokenizer(tokenizer, model.vocab_size, add_bos_token, prefix_token_id),
      batch_size=batch_size,
      max_length=next(length for length in lengths if length is not None),
      max_gen_toks=max_gen_toks,
      seed=seed,
      entries=entries,
    )


def _lm_eval(name: str) -> Any:
  """Imports a module of lm_eval lazily."""
  try:
    return importlib.import_module(f"lm_eval.{name}")
  except ModuleNotFoundError as error:
    raise UserError(
      f"{error.name} is not installed, which the lm-evaluation-harness needs. Install it with: {install('harness')}."
    ) from None


@exits_with_one_line
def main(argv: list[str]) -> int:
  """Runs the tasks that the arguments name; returns 0 on success."""
  silence_libtpu()
  flags, _ = split(argv, FLAGS, SWITCHES)
  flags.pop("traceback")
  if flags.pop("help"):
    print(_help())
    return 0
  require(flags, ("model", "tasks"), FLAGS)
  lm_eval, utils = _lm_eval("evaluator"), _lm_eval("utils")
  workdir = as_path(flags.get("workdir") or default_workdir(flags["model"], "harness"))
  check_folder(workdir, "Choose another --workdir.")
  with setting_up():
    if "include_path" in flags and not os.path.isdir(flags["include_path"]):
      raise UserError(f"--include_path is {flags['include_path']}, not a folder. It must contain tasks as YAML.")
    manager = _lm_eval("tasks").TaskManager(include_path=flags.get("include_path"))
    tasks = _tasks(manager, flags["tasks"])
    values = {name: literal(flags[name]) for name in (*OF_RUN, *OF_MODEL) if name in flags}
    model = adapter(
      flags["model"],
      tokenizer=flags.get("tokenizer"),
      dtype=flags.get("dtype"),
      mesh=sharding.make_mesh(literal(flags.get("mesh", '{"data": -1}'))),
      strategy=literal(flags.get("sharding", "replicated")),
      ignore=[name for name in flags.get("ignore", "").split(",") if name],
      **{name: values[name] for name in OF_MODEL if name in values},
    )
    make_folder(workdir)  # Raises before the work, not after it.
    options = {name: values[name] for name in OF_RUN if name in values}
    results = lm_eval.simple_evaluate(
      model=model, tasks=tasks, task_manager=manager, log_samples=flags["log_samples"], **options
    )
  samples = results.pop("samples", {})
  results["config"] |= {"model": flags["model"], "batch_size": model.batch_size}
  table = "\n".join(utils.make_table(results, *kind) for kind in [(), ("groups",)] if not kind or results.get("groups"))
  text = json.dumps(_plain(results, utils), indent=2, ensure_ascii=False, allow_nan=False)
  write_text(workdir, "harness.json", text)
  write_text(workdir, "harness.txt", table)
  for task, documents in samples.items():
    lines = [json.dumps(_plain(document, utils), ensure_ascii=False, allow_nan=False) for document in documents]
    write_text(workdir, f"samples_{utils.sanitize_task_name(task)}.jsonl", "\n".join(lines))
  if jax.process_index() == 0:
    print(f"{table}\nWritten to {workdir}.")
  return 0


def _tasks(manager: Any, names: str) -> list[str]:
  """Expands comma-separated task names and patterns."""
  tasks = [name.strip() for name in names.split(",") if name.strip()]
  for name in tasks:
    if not manager.match_tasks([name]):
      near = did_you_mean(name, manager.all_tasks)
      raise UserError(f"lm_eval has no task '{name}'.{near} Tasks of your own: --include_path=FOLDER with their YAML.")
  return manager.match_tasks(tasks)


def _plain(results: Any, utils: Any) -> Any:
  """Converts to JSON values: functions and arrays as in lm_eval, null for NaN and infinity."""

  def finite(value: Any) -> Any:
    if isinstance(value, Mapping):
      return {name: finite(entry) for name, entry in value.items()}
    if isinstance(value, list):
      return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

  return finite(json.loads(json.dumps(results, default=utils.handle_non_serializable)))


def _help() -> str:
  lines = [f"  --{f'{name}=...':<20} {text}" for name, text in FLAGS.items()]
  lines += [f"  --{name:<20} {text}" for name, text in SWITCHES.items()]
  usage = "Usage: python -m zoo.evaluate.harness --model=FOLDER_OR_ID --tasks=NAME,NAME [--OPTION=VALUE ...]"
  return "\n".join([usage, "", *lines])


if __name__ == "__main__":
  run(main, sys.argv[1:])
