"""What long sequences cost, in ratios: time, memory and FLOPs, each beside what it replaces or torch transformers.

python -m benchmarks.long_context                                   all parts, one thread each, CPU time
python -m benchmarks.long_context --parts window doubling           some of them
python -m benchmarks.long_context --parts longformer --depth 12 --repeats 1
python -m benchmarks.long_context --parts plan                      wants libtpu (extra `tpu` of jax), no TPU

window      attention in a window beside dense attention of the zoo
doubling    a Longformer and a BigBird: 2 x --length tokens over --length
longformer  a Longformer beside torch transformers', forward and backward
bigbird     a BigBird's training step (masked tokens, AdamW) beside theirs, with random blocks
reformer    a Reformer's training step (next token, AdamW) beside theirs
depth       temporaries of 2 and of 16 layers, reversible and plain
memory      a Transformer-XL that reads with its memory, and in a window that slides: bits per byte, and FLOPs a byte
plan        a training step of 65,536 tokens compiled for TPUs

All in float32 without dropout, after compilation, one row of --length tokens. Temporaries are those of the compiled
program, beside its arguments and results. Both reference models are in training mode where they are compared by
steps: BigBird has no random blocks otherwise, and Reformer no backward pass. Reformer draws its rotations anew at every
step, so losses are close, not equal.
"""

import contextlib
import functools
import sys
from typing import Any

from benchmarks import long_sides, sides, train_step

WINDOW, LENGTH, HEADS = 512, 4096, 2
PARTS = ("window", "doubling", "longformer", "bigbird", "reformer", "depth", "memory", "plan")
BASE = {"vocab_size": 1024, "dim": 768, "num_heads": 12}  # BERT-base's width.
# Of google/reformer-crime-and-punishment, for shorter rows.
REFORMER = {"vocab_size": 320, "dim": 256, "depth": 6, "num_heads": 2, "head_dim": 64, "mlp_dim": 512}
BLOCK = 64  # BigBird's.


def measure(what: str, parts: dict, first: str, second: str, repeats: int) -> dict:
  """A line of the table: both, and first / second."""
  rounds = list(sides.alternate(parts, repeats, {}))
  row = sides.compared(rounds, first, second if second in parts else None)
  row = {name.replace("ours", first).replace("theirs", second): value for name, value in row.items()}
  mib = {f"{name}, MiB": rounds[0][name][1]["mib"] for name in parts if "mib" in rounds[0][name][1]}
  if len(mib) == 2:
    mib["ratio, MiB"] = mib[f"{first}, MiB"] / mib[f"{second}, MiB"]
  losses = {name: rounds[0][name][1]["loss"] for name in parts if "loss" in rounds[0][name][1]}
  if len(losses) == 2 and second == "theirs":
    one, other = losses.values()
    if abs(one - other) > 1e-4 * abs(other):
      raise ValueError(f"The sides have the losses {losses}. They are not the same model.")
  return {"what": what, **row, **mib}


def step(what: str, parts: dict, repeats: int) -> dict:
  """A line of training steps; parts: {"ours", "theirs"}, or ours alone.

  Raises:
    ValueError: the losses of the first step are further apart than hashing explains.
  """
  first = {part: run(steps=1)[1]["losses"][0] for part, run in parts.items()}  # Compiles.
  if max(first.values()) > 1.01 * min(first.values()):
    raise ValueError(f"The sides start at the losses {first}. They are not the same model.")
  rounds = list(sides.alternate(parts, repeats, {"steps": 1}))
  return {"what": what, **sides.compared(rounds, "ours", "theirs" if "theirs" in parts else None)}


def window(*, length: int, window: int, repeats: int, threads: int, **_: Any) -> list[dict]:
  """Sparse over dense attention."""
  shape = {"length": 2 * length, "window": window, "heads": HEADS}
  with running(
    {name: (long_sides.attention, {"kernel": name, **shape}) for name in ("sparse", "dense")}, threads
  ) as by:
    return [measure(f"window {window}, {2 * length} tokens", by, "sparse", "dense", repeats)]


def doubling(*, length: int, window: int, repeats: int, threads: int, **_: Any) -> list[dict]:
  """Models of two layers at twice the length over once."""
  found = []
  for family, extra in (("longformer", {"window": window}), ("bigbird", {"block_size": min(BLOCK, length // 64)})):
    size = {**BASE, "head": None, "depth": 2, "max_length": 2 * length, "pooler": False, **extra}
    lengths = {"twice": 2 * length, "once": length}
    parts = {name: (long_sides.states, {"family": family, "length": n, "size": size}) for name, n in lengths.items()}
    with running(parts, threads) as by:
      found.append(measure(f"{family}, {2 * length} over {length} tokens", by, "twice", "once", repeats))
  return found


def longformer(*, length: int, window: int, depth: int, repeats: int, threads: int, **_: Any) -> list[dict]:
  """Hidden states and gradients beside transformers'."""
  size = {**BASE, "head": None, "depth": depth, "max_length": length, "window": window, "pooler": False}
  makes = (functools.partial(make, length) for make in (long_sides.loaded, long_sides.their_longformer))
  with sides.of_one_folder(sides.writer, *makes, threads, family="longformer", size=size) as parts:
    return [measure(f"LongformerModel, {length} tokens, {depth} layers", parts, "ours", "theirs", repeats)]


def bigbird(*, length: int, depth: int, **options: Any) -> list[dict]:
  """A step of masked tokens beside transformers'."""
  size = {**BASE, "depth": depth, "max_length": length, "block_size": min(BLOCK, length // 64), "head": "mlm"}
  return [_steps("bigbird", size, length, scan=False, **options)]


def reformer(*, length: int, **options: Any) -> list[dict]:
  """A step of next tokens beside transformers'."""
  axes = {"axial_shape": [length // 64, 64], "axial_dims": [64, REFORMER["dim"] - 64]}
  return [_steps("reformer", {**REFORMER, **axes, "max_length": length}, length, scan=True, **options)]


def _steps(family: str, size: dict, length: int, *, scan: bool, repeats: int, threads: int, **_: Any) -> dict:
  batch = train_step.batch_of({"reformer": "gpt"}.get(family, family), size, 1, length)
  about = {"batch": batch, "family": family, "dtype": None, "train": True}
  ours = functools.partial(train_step.ours, scan=scan, **about)
  theirs = functools.partial(train_step.theirs, compiled=False, **about)
  with sides.of_one_folder(sides.writer, ours, theirs, threads, family=family, size=size) as parts:
    return step(f"{family}'s step, {length} tokens, {size['depth']} layers", parts, repeats)


def depth(*, length: int, threads: int, **_: Any) -> list[dict]:
  """Temporaries by depth."""
  with running({"depth": (long_sides.temporaries, {"length": length})}, threads) as by:
    return by["depth"]()[1]["rows"]


def memory(*, length: int, threads: int, **_: Any) -> list[dict]:
  """A memory beside a sliding window."""
  with running({"memory": (long_sides.remembered, {"segment": length // 64})}, threads) as by:
    return by["memory"]()[1]["rows"]


def plan(*, length: int, window: int, threads: int, **_: Any) -> list[dict]:
  """A step of 16 x --length tokens for TPUs; see `train.py --plan`."""
  with running({"plan": (long_sides.planned, {"length": 16 * length, "window": window})}, threads) as by:
    return by["plan"]()[1]["rows"]


@contextlib.contextmanager
def running(parts: dict, threads: int):
  """Sides by name, from (make, options), each in a process of its own until the block ends."""
  with contextlib.ExitStack() as stack:
    yield {
      name: stack.enter_context(contextlib.closing(sides.Side(make, threads, **options)))
      for name, (make, options) in parts.items()
    }


def main(argv: list[str]) -> int:
  """Measures, and prints a table for each part."""
  parser = sides.parser(__doc__)
  parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
  parser.add_argument("--length", type=int, default=LENGTH, help=f"tokens, a multiple of 1024 ({LENGTH})")
  parser.add_argument("--window", type=int, default=WINDOW, help=f"of a token, half on each side ({WINDOW})")
  parser.add_argument("--depth", type=int, default=1, help="layers of Longformer and BigBird beside transformers (1)")
  parser.add_argument("--repeats", type=int, default=3, help="rounds (3)")
  flags = parser.parse_args(argv)
  if flags.length < 1024 or flags.length % 1024:
    parser.error(f"--length is {flags.length}. It must be a multiple of 1024, of BigBird's and Reformer's blocks.")
  options = {name: getattr(flags, name) for name in ("length", "window", "depth", "repeats", "threads")}
  device, _ = sides.devices()
  found = []
  for name in flags.parts:
    rows = globals()[name](**options)
    print(f"\n{sides.table(rows)}", flush=True)  # All may take long.
    found += rows
  sides.report("Long sequences", found, device, flags.threads, flags.out)
  return 0


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
