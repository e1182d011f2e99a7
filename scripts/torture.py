"""Harms short runs of train.py in every way that a machine may, and looks whether any of them ends with other bits.

    python -m scripts.torture --times=20 --seed=0

Each time, a run of configs/vit_digits.py, made tiny, is started again and again in one folder, and harmed on the way:
killed, asked to stop, stopped and continued, hung, given a full disk; in between its newest checkpoint rots. Then it
may end in peace. It must have learnt the bits that an unharmed run learns, or refuse in one line and change nothing.
Exits with status 1 if a run ended otherwise.
"""

import argparse
import hashlib
import os
import pathlib
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable

ROOT = pathlib.Path(__file__).parent.parent
STEPS = 60
OVERRIDES = {
  "steps": STEPS,
  "batch_size": 16,
  "model.dim": 12,
  "model.depth": 1,
  "model.num_heads": 3,
  "optimizer.warmup_steps": 5,
  "eval.evaluators": "{}",
  "log.every": 2,
  "checkpoint.every": 5,
  "timeouts.step": 4,
}
CONFIG = """
import os, runpy, time
from zoo.data import pipeline

get_config = runpy.run_path({config!r})["get_config"]
iterate = pipeline.Batches.iterate

def slowly(self, start_step=0):
  for step, batch in enumerate(iterate(self, start_step), start_step + 1):
    time.sleep(0.02)  # Time to be harmed in.
    if step == int(os.environ.get("HANG_AT", 0)):
      time.sleep(1e6)
    yield batch

pipeline.Batches.iterate = slowly
"""


class Run:
  """One folder of a run, started as often as need be."""

  def __init__(self, folder: pathlib.Path, config: pathlib.Path):
    self.folder = folder
    settings = [f"--config.{key}={value}" for key, value in OVERRIDES.items()]
    self.command = [sys.executable, ROOT / "train.py", f"--config={config}", f"--config.workdir={folder}", *settings]

  def start(self, most_bytes: int | None = None, **surroundings: str) -> subprocess.Popen:
    """Starts it; files may grow to `most_bytes`, as on a disk that is full."""
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes)) if most_bytes else None
    return subprocess.Popen(
      self.command,
      env={**os.environ, "JAX_PLATFORMS": "cpu", **surroundings},
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      preexec_fn=limit,
    )

  def end(self, process: subprocess.Popen) -> tuple[int, str]:
    """Waits -> status, the last line on stderr."""
    _, said = process.communicate(timeout=300)
    return process.returncode, (said.strip().splitlines() or [""])[-1][:300]

  def digest(self) -> str:
    """Of the parameters that it ended with."""
    return hashlib.sha256((self.folder / "params.safetensors").read_bytes()).hexdigest()

  def files(self) -> list[pathlib.Path]:
    """Of the newest checkpoint."""
    steps = [path for path in (self.folder / "checkpoints").glob("*") if path.name.isdigit()]
    newest = max(steps, key=lambda path: int(path.name), default=None)
    return sorted(path for path in newest.rglob("*") if path.is_file()) if newest else []


def signalled(*signals: signal.Signals) -> Callable:
  """Sends signals, one second apart, some time after the run has started to train."""

  def harm(run: Run, rng: random.Random) -> str:
    process = run.start()
    assert process.stdout is not None
    for line in process.stdout:
      if line.startswith("step"):
        break
    time.sleep(rng.uniform(0, 2))
    for sent in signals:
      process.send_signal(sent)
      time.sleep(1 if len(signals) > 1 else 0)
    return f"status {run.end(process)[0]}"

  return harm


def killed_early(run: Run, rng: random.Random) -> str:
  """Kills it at any time, also while it starts or restores."""
  process = run.start()
  time.sleep(rng.uniform(0.5, 8))
  process.kill()
  return f"status {run.end(process)[0]}"


def hung(run: Run, rng: random.Random) -> str:
  """Waits for ever for a batch."""
  return f"status {run.end(run.start(HANG_AT=str(rng.randint(2, STEPS))))[0]}"


def filled(run: Run, rng: random.Random) -> str:
  """Lets files grow to some kilobytes only."""
  status, said = run.end(run.start(most_bytes=int(2 ** rng.uniform(7, 15))))
  return f"status {status}{': ' + said if status not in (0, 2) else ''}"


def flipped(run: Run, rng: random.Random) -> str:
  """Turns one bit of a file of the newest checkpoint."""
  files = [path for path in run.files() if path.stat().st_size]
  if not files:
    return "no checkpoint"
  path = rng.choice(files)
  content = bytearray(path.read_bytes())
  content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
  path.write_bytes(content)
  return path.relative_to(run.folder).as_posix()


def lost(run: Run, rng: random.Random) -> str:
  """Cuts a file of the newest checkpoint short, or takes it away."""
  files = run.files()
  if not files:
    return "no checkpoint"
  path = rng.choice(files)
  if rng.random() < 0.5:
    path.unlink()
  else:
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size + 1)])
  return path.relative_to(run.folder).as_posix()


STARTED = {
  "kill": signalled(signal.SIGKILL),
  "kill early": killed_early,
  "term": signalled(signal.SIGTERM),
  "stop and continue": signalled(signal.SIGSTOP, signal.SIGCONT),
  "stop and kill": signalled(signal.SIGSTOP, signal.SIGKILL),
  "hang": hung,
  "full disk": filled,
}
LYING = {"bit flip": flipped, "lost file": lost}


def contents(folder: pathlib.Path) -> dict[pathlib.Path, bytes]:
  """Every file under a folder."""
  return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def main() -> int:
  """Prints a line for every time, and how often a run ended how."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--times", type=int, default=20)
  parser.add_argument("--seed", type=int, default=0)
  asked = parser.parse_args()
  ended: Counter[str] = Counter()
  with tempfile.TemporaryDirectory() as name:
    place = pathlib.Path(name)
    config = place / "config.py"
    config.write_text(CONFIG.format(config=str(ROOT / "configs" / "vit_digits.py")))
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(place / "compiled"))
    os.environ |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
    unharmed = Run(place / "unharmed", config)
    status, said = unharmed.end(unharmed.start())
    if status:
      print(f"The unharmed run ended with status {status}: {said}", file=sys.stderr)
      return 1
    for i in range(asked.times):
      rng = random.Random(f"{asked.seed} {i}")
      run, told = Run(place / str(i), config), []
      for n in range(rng.randint(2, 5)):
        harms = LYING if n % 2 else STARTED
        harm = rng.choice(list(harms))
        told.append(f"{harm} ({harms[harm](run, rng)})")
      before = contents(run.folder / "checkpoints")
      status, said = run.end(run.start())
      if status == 0:
        how = "bit-identical" if run.digest() == unharmed.digest() else "SILENT DIFFERENCE"
      elif status == 2 and said.startswith("Error: ") and before == contents(run.folder / "checkpoints"):
        how = "clear refusal"
      else:
        how = "UNCLEAR END"
      ended[how] += 1
      print(f"{i:3} {how}{'' if status == 0 else f', status {status}: {said}'}; after: {', '.join(told)}", flush=True)
  print(", ".join(f"{how}: {count}" for how, count in ended.most_common()))
  return 1 if ended["SILENT DIFFERENCE"] or ended["UNCLEAR END"] else 0


if __name__ == "__main__":
  sys.exit(main())
