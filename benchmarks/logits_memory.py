"""What a step of a language model holds beside its state, all logits at once or in chunks, from the compiled program.

python -m benchmarks.logits_memory                   a GPT-2 of 124 million parameters, 8 rows of 1,024 tokens, bfloat16
python -m benchmarks.logits_memory --chunk 512
python -m benchmarks.logits_memory --seconds         runs a small one, too: 2 layers of 256, 2 rows of 256 tokens

On one device: loss and gradient. The large model, whose layers are rematerialised, is compiled and not run. Seconds are
of CPU time.
"""

import argparse
import statistics
import sys
import time
from typing import Any

from benchmarks import sides

LARGE = {"variant": "gpt2", "dtype": "bfloat16", "scan": True, "remat": "full"}
SMALL = {"vocab_size": 50257, "max_length": 256, "dim": 256, "depth": 2, "num_heads": 4}
REPEATS = 5


def compiled(size: dict, rows: int, length: int, chunk: int | None) -> tuple[Any, Any, Any]:
  """-> the program of loss and gradient, and the shapes of parameters and batch."""
  import jax
  import jax.numpy as jnp

  import zoo
  from zoo.objectives.causal_lm import causal_lm
  from zoo.objectives.objective import value_and_grad

  objective = causal_lm(zoo.build("gpt", **size), chunk=chunk)
  batch = {"tokens": jax.ShapeDtypeStruct((rows, length + 1), jnp.int32)}
  params = jax.eval_shape(objective.init, jax.random.key(0), batch)
  return jax.jit(value_and_grad(objective)).lower(params, batch).compile(), params, batch


def seconds(size: dict, rows: int, length: int, chunk: int | None) -> float:
  """CPU time of loss and gradient, the median of a few runs."""
  import jax
  import jax.numpy as jnp

  program, *shapes = compiled(size, rows, length, chunk)
  params, batch = jax.tree.map(lambda x: jnp.full(x.shape, 1, x.dtype), shapes)
  params, found = jax.tree.map(lambda x: 0.01 * x, params), []
  for _ in range(REPEATS):
    start = time.process_time()
    jax.block_until_ready(program(params, batch))
    found.append(time.process_time() - start)
  return statistics.median(found)


def rows(size: dict, many: int, length: int, chunk: int, timed: dict | None) -> list[dict]:
  """A line for all logits at once, and one for chunks."""
  found = []
  for tokens in (None, chunk):
    program, *_ = compiled(size, many, length, tokens)
    row: dict[str, Any] = {"chunk": "all tokens" if tokens is None else f"{tokens:,} tokens"}
    row[f"{many} x {length} tokens, MiB"] = round(program.memory_analysis().temp_size_in_bytes / 2**20)
    if timed is not None:
      row["2 x 256 tokens, in quarters, seconds"] = seconds(timed, 2, 256, None if tokens is None else 128)
    found.append(row)
  return found


def main(argv: list[str]) -> int:
  """Compiles, and prints the table."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
  parser.add_argument("--rows", type=int, default=8, help="of the batch (8)")
  parser.add_argument("--length", type=int, default=1024, help="tokens of a row (1024)")
  parser.add_argument("--chunk", type=int, default=1024, help="tokens whose logits exist at the same time (1024)")
  parser.add_argument("--seconds", action="store_true", help="also runs a small model")
  options = parser.parse_args(argv)
  found = rows(LARGE, options.rows, options.length, options.chunk, SMALL if options.seconds else None)
  print(sides.table(found))
  return 0


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
