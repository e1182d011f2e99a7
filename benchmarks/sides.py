"""Two programs do the same work by turns, and are measured alike: each in a process of its own, on the same cores.

A process of its own, for a pool of threads that waits for work is charged to whoever works. By turns, for what else
the machine does then slows both.
"""

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import pathlib
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

VERSIONS = ("jax", "flax", "torch", "transformers")


class Side:
  """A process that holds a model and runs it when asked.

  Args:
    make: a function of a module; called in the process as make(**options), it returns `run`. What run(**case) takes is
      measured; it comes back when all is computed, with a dict.
    threads: how many cores both sides have; None: all, and time is that of the clock, as it should be on accelerators.
  """

  def __init__(self, make: Callable, threads: int | None, **options: Any):
    context = multiprocessing.get_context("spawn")
    self._pipe, theirs = context.Pipe()
    self._process = context.Process(target=serve, args=(theirs, make, threads, options), daemon=True)
    self._process.start()
    theirs.close()

  def __call__(self, **case: Any) -> tuple[float, dict]:
    """-> seconds (of the cores, or of the clock) that run(**case) took, and what it returned.

    Raises:
      RuntimeError: the process could not do it; its own words stand above, in the terminal.
    """
    try:
      self._pipe.send(case)
      return self._pipe.recv()
    except (EOFError, ConnectionError) as error:
      raise RuntimeError(f"The process of one side ended while it ran {case}.") from error

  def close(self) -> None:
    """Ends the process."""
    with contextlib.suppress(ConnectionError):
      self._pipe.send(None)
    self._process.join()


@contextlib.contextmanager
def of_one_folder(
  write: Callable, ours: Callable, theirs: Callable, threads: int | None, **options: Any
) -> Iterator[dict[str, Side]]:
  """Both sides of one model, which is written into a temporary folder first: {"ours", "theirs"}, or ours alone.

  Args:
    write: called with the folder and `options` in a process of its own.
    ours, theirs: as `make` of `Side`, called with the folder.
    threads: as of `Side`.
  """
  with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
    with contextlib.closing(Side(write, threads, folder=folder, **options)) as writing:
      writing()
    parts = {"ours": Side(ours, threads, folder=folder)}
    if has_torch():
      parts["theirs"] = Side(theirs, threads, folder=folder)
    else:
      print("torch and transformers (extra `parity`) are not installed: ours runs alone.")
    for part in parts.values():
      stack.callback(part.close)
    yield parts


def serve(pipe: Any, make: Callable, threads: int | None, options: dict) -> None:
  """What the process of a side does: runs the cases that come through the pipe, until None comes."""
  if threads is None:
    # The processes share an accelerator: of most of its memory, which JAX takes at its start, the others had nothing.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
  else:
    # Before jax or torch is there: both make as many threads as they find cores.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if hasattr(os, "sched_setaffinity"):
      os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])
  run = make(**options)
  for case in iter(pipe.recv, None):
    pipe.send(measured(run, case, time.perf_counter if threads is None else time.process_time))


def measured(run: Callable, case: Mapping[str, Any], clock: Callable[[], float]) -> tuple[float, dict]:
  """-> seconds, and what run(**case) returned."""
  start = clock()
  found = run(**case)
  return clock() - start, found


def alternate(sides: Mapping[str, Callable], repeats: int, case: Mapping[str, Any]) -> Iterator[dict[str, tuple]]:
  """Runs the case on every side in turn, `repeats` times: -> {name of the side: (seconds, what came back)} of each."""
  for i in range(repeats):
    names = list(sides) if i % 2 == 0 else list(sides)[::-1]  # Nobody always comes second.
    found = {name: sides[name](**case) for name in names}
    yield {name: found[name] for name in sides}


def compared(rounds: Sequence[Mapping[str, tuple]], ours: str, theirs: str | None) -> dict:
  """Medians of both, and of ours / theirs round by round, with the lowest and the highest."""
  of = lambda name: [found[name][0] for found in rounds]
  row = {"ours_seconds": statistics.median(of(ours))}
  if theirs is None:
    return row
  ratios = [mine / other for mine, other in zip(of(ours), of(theirs), strict=True)]
  return row | {
    "theirs_seconds": statistics.median(of(theirs)),
    "ratio": statistics.median(ratios),
    "lowest": min(ratios),
    "highest": max(ratios),
  }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
  """Markdown; a column for every key of any row, empty where a row lacks it."""
  columns = list(dict.fromkeys(name for row in rows for name in row))
  shown = lambda value: "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
  lines = [columns, ["---"] * len(columns), *([shown(row.get(name)) for name in columns] for row in rows)]
  return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def writer(folder: str, family: str, size: dict, sharp: float = 1.0) -> Callable:
  """-> run(), which writes a model of random weights in the hub's layout, and returns all its sizes.

  sharp: what its matrices are multiplied by. Above 1 the likeliest token leads by more than rounding.
  """
  import jax

  import zoo
  from zoo.build import sizes_of

  def run() -> dict:
    model = zoo.build(family, **size)

    @jax.jit
    def init(key):
      params = model.init(key, *model.example())["params"]
      return jax.tree.map(lambda x: sharp * x if x.ndim > 1 else x, params)

    zoo.save_hf(folder, model, init(jax.random.key(0)))
    return sizes_of(model)

  return run


def has_torch() -> bool:
  """Whether the references of the extra `parity` are installed."""
  return all(importlib.util.find_spec(name) is not None for name in ("torch", "transformers"))


def machine(device: str, threads: int | None) -> str:
  """A line on what this ran on."""
  found = {name: importlib.metadata.version(name) for name in VERSIONS if importlib.util.find_spec(name) is not None}
  if threads is None:
    where = f"{device}, seconds of the clock"
  else:
    where = f"{device}, {threads} thread{'s' * (threads > 1)} each, seconds of CPU time"
  return f"{where}; Python {platform.python_version()}, " + ", ".join(f"{name} {found[name]}" for name in found)


def parser(doc: str | None) -> argparse.ArgumentParser:
  """Flags that both benchmarks have."""
  found = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawTextHelpFormatter)
  found.add_argument(
    "--size", choices=("small", "published"), help="small on CPUs, published on accelerators if left out"
  )
  found.add_argument("--threads", type=int, default=1, help="of each side, on CPUs (1)")
  found.add_argument("--out", type=pathlib.Path, help="a file for the rows, as JSON")
  return found


def report(title: str, rows: Sequence[Mapping[str, Any]], device: str, threads: int | None, out: Any) -> None:
  """Prints the table, and writes it to the file `out`, if there is one."""
  where = machine(device, threads)
  print(f"\n{title} ({where})\n\n{table(rows)}")
  if out is not None:
    out.write_text(json.dumps({"title": title, "machine": where, "rows": list(rows)}, indent=2) + "\n")


def devices() -> tuple[str, bool]:
  """The name of the device that jax finds, and whether it is a CPU. In a process of its own: it may be wanted whole."""
  with multiprocessing.get_context("spawn").Pool(1) as pool:
    return pool.apply(_device)


def _device() -> tuple[str, bool]:
  import jax

  found = jax.devices()[0]
  return found.device_kind if found.platform != "cpu" else f"{platform.machine()} CPU", found.platform == "cpu"
