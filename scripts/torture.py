"""Fault-injection test of train.py: interrupted runs must end with the bits of an undisturbed one.

    python -m scripts.torture --times=20 --seed=0 --hosts=2

Each trial starts a run on --hosts processes of two devices, which share a folder, kills it after a checkpoint, and
restarts it repeatedly with random faults: one host or all are killed, interrupted by SIGTERM or Ctrl-C, suspended and
resumed, hung, given an exception, a full disk or a read-only folder, or the command is started twice; between starts,
files of its checkpoints are corrupted. The last start is undisturbed. It must end with the bits and losses of an
undisturbed run, or refuse in one line and change nothing; if the number of hosts varied, with parameters within 1e-5 of
the largest of their array. All hosts must end within the config's timeouts. Exits with status 1 if a run ended
otherwise.
"""

import argparse
import os
import pathlib
import random
import signal
import sys
import tempfile
import time
from collections import Counter

import numpy as np
from safetensors.numpy import load_file

from scripts.harms import CONFIG, ROOT, STARTED, STARTING, Job, Run, Unclear, contents, rot, signalled

FINE = ("bit-identical", "equal but for rounding", "clear refusal")


def verdict(run: Run, job: Job, statuses: list[int], before: dict[pathlib.Path, bytes], unharmed: Run) -> str:
  """The outcome of the undisturbed last start; `before`: the checkpoints before it."""
  if set(statuses) != {0}:
    return "clear refusal" if job.refused() and before == contents(run.folder / "checkpoints") else "UNCLEAR END"
  if left := [path.name for path in run.folder.rglob("*") if "tmp" in path.name]:
    raise Unclear(f"left behind: {left}")
  losses, wanted = run.losses(), unharmed.losses()
  if [step for step, _ in losses] != [step for step, _ in wanted]:
    raise Unclear(f"metrics of the steps {[step for step, _ in losses]}")
  params, goal = (load_file(one.folder / "params.safetensors") for one in (run, unharmed))
  if run.counts == unharmed.counts:
    same = losses == wanted and all(params[name].tobytes() == goal[name].tobytes() for name in goal)
    return "bit-identical" if same else "SILENT DIFFERENCE"
  # Softmax is invariant to a constant added to all keys: the gradient of such a bias is rounding alone.
  seen = [name for name in goal if not name.endswith("key/bias")]
  far = max(np.abs(params[name] - goal[name]).max() / np.abs(goal[name]).max() for name in seen)
  near = far < 1e-5 and np.allclose([loss for _, loss in losses], [loss for _, loss in wanted], rtol=1e-5)
  return "equal but for rounding" if near else f"SILENT DIFFERENCE of {far:.1e}"


def hosts_of(usual: int, rng: random.Random) -> int:
  """Number of hosts of a start: sometimes fewer or more than --hosts, if that is above 1."""
  return rng.choice([usual] * 6 + [usual // 2, usual * 2]) if usual > 1 else 1


def harmed(run: Run, rng: random.Random, told: list[str]) -> None:
  """Starts the run with random faults until it is done; returns a description of the faults."""
  usual = run.hosts
  told.append(f"kill {signalled(signal.SIGKILL)(run, rng)}")
  for name in rng.sample([name for name in STARTED if run.hosts > 1 or "others" not in name], rng.randint(1, 3)):
    if (run.folder / "params.safetensors").exists():
      break
    run.hosts = hosts_of(usual, rng)
    if rng.random() < 0.6 and run.checkpoints():
      told.append(rot(run, rng))
    told.append(name)
    told[-1] += f" {STARTED[name](run, rng)}"
  if rng.random() < 0.6 and run.checkpoints():
    told.append(rot(run, rng))


def main() -> int:
  """Prints a line for each trial, and counts of the outcomes."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--times", type=int, default=20)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--hosts", type=int, default=1)
  asked = parser.parse_args()
  ended: Counter[str] = Counter()
  with tempfile.TemporaryDirectory() as name:
    place = pathlib.Path(name)
    config = place / "config.py"
    config.write_text(CONFIG.format(config=str(ROOT / "configs" / "vit_digits.py")))
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(place / "compiled"))
    os.environ |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
    unharmed = {sharding: Run(place / sharding, config, asked.hosts, sharding) for sharding in ("replicated", "fsdp")}
    for run in unharmed.values():
      job = run.start()
      if set(job.end(STARTING)) != {0}:
        print(f"The unharmed run did not end well: {job.said()}", file=sys.stderr)
        return 1
    for i in range(asked.times):
      rng, told, began = random.Random(f"{asked.seed} {i}"), [], time.monotonic()
      sharding = rng.choice(list(unharmed))
      run = Run(place / str(i), config, asked.hosts, sharding)
      try:
        harmed(run, rng, told)
        run.hosts = hosts_of(asked.hosts, rng)
        before = contents(run.folder / "checkpoints")
        job = run.start()
        how = verdict(run, job, statuses := job.end(STARTING), before, unharmed[sharding])
        said = f", statuses {statuses}: {job.said()}" if set(statuses) != {0} else ""
      except (Unclear, TimeoutError) as error:
        how, said = "HANGS" if isinstance(error, TimeoutError) else "UNCLEAR END", f": {error}"
      ended[how] += 1
      took = f"{time.monotonic() - began:.0f} s"
      print(f"{i:3} {how}{said}; {took}, {sharding}, {run.hosts} hosts, after: {', '.join(told)}", flush=True)
  print(", ".join(f"{how}: {count}" for how, count in ended.most_common()))
  return 1 if set(ended) - set(FINE) else 0


if __name__ == "__main__":
  sys.exit(main())
