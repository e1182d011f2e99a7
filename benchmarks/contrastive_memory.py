"""What a contrast of a large batch holds on a device, for every form of its pairs, read from the compiled program.

python -m benchmarks.contrastive_memory                          4,096 and 32,768 pairs of 512 numbers
python -m benchmarks.contrastive_memory --rows 8192 --chunk 512
python -m benchmarks.contrastive_memory --seconds 2048           runs value and gradient of so many pairs, too

On one device, and on each of 8 that jax simulates on this CPU: what the loss and its gradient need beside the vectors
that they are given. The programs are compiled and not run, so it may be more than this machine has. Seconds are of CPU
time, of all devices together.
"""

import argparse
import os
import statistics
import sys
import time
from typing import Any

from benchmarks import sides

DEVICES = 8
CONTRASTS = ("contrastive", "sigmoid_contrastive")
REPEATS = 3


def forms(chunk: int) -> dict[str, dict]:
  """Name -> options of the objective."""
  return {
    "whole": {},
    f"all_gather, chunk {chunk}": {"pairs": "all_gather", "chunk": chunk},
    "all_gather": {"pairs": "all_gather"},
    "ring": {"pairs": "ring"},
    f"ring, chunk {chunk}": {"pairs": "ring", "chunk": chunk},
  }


def compiled(contrast: str, rows: int, devices: int, embed: int, options: dict) -> tuple[Any, Any]:
  """-> the program of value and gradient, and how its rows are spread."""
  import jax
  import jax.numpy as jnp

  from zoo import sharding
  from zoo.config import registry

  by_row = sharding.batch_sharding(sharding.make_mesh({"data": devices}, jax.devices()[:devices]))
  objective = registry.build("objectives", {"name": contrast, **options}, None, offers={"by_row": by_row})
  shape = lambda *sizes: jax.ShapeDtypeStruct((rows, *sizes), jnp.float32, sharding=by_row)
  vectors = {"image": shape(embed), "text": shape(embed), "scale": shape(), "bias": shape(), "weight": shape()}
  return jax.jit(jax.value_and_grad(objective.reduce, has_aux=True)).lower(vectors).compile(), by_row


def seconds(contrast: str, rows: int, devices: int, embed: int, options: dict) -> float:
  """CPU time of value and gradient, the median of a few runs."""
  import jax
  import numpy as np

  program, by_row = compiled(contrast, rows, devices, embed, options)
  rng, found = np.random.default_rng(0), []
  unit = lambda x: (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)
  vectors = {name: unit(rng.normal(size=(rows, embed))) for name in ("image", "text")}
  vectors |= {name: np.full(rows, value, np.float32) for name, value in (("scale", 10), ("bias", -10), ("weight", 1))}
  vectors = jax.device_put(vectors, by_row)
  for _ in range(REPEATS):
    start = time.process_time()
    jax.block_until_ready(program(vectors))
    found.append(time.process_time() - start)
  return statistics.median(found)


def rows(many: list[int], embed: int, chunk: int, timed: int | None) -> list[dict]:
  """A line for every loss, number of devices and form."""
  found = []
  for contrast in CONTRASTS:
    for devices in (1, DEVICES):
      for form, options in forms(chunk).items():
        row: dict[str, Any] = {"loss": contrast, "devices": devices, "pairs": form}
        if devices == 1 and form not in ("whole", f"all_gather, chunk {chunk}"):
          continue  # Nobody to gather from: these are one of the two.
        for count in many:
          program, _ = compiled(contrast, count, devices, embed, options)
          row[f"{count:,} pairs, MiB"] = round(program.memory_analysis().temp_size_in_bytes / 2**20)
        if timed is not None:
          row[f"{timed:,} pairs, seconds"] = seconds(contrast, timed, devices, embed, options)
        found.append(row)
  return found


def main(argv: list[str]) -> int:
  """Compiles, and prints the table."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
  parser.add_argument("--rows", type=int, nargs="+", default=[4096, 32768], help="pairs of a batch (4096 32768)")
  parser.add_argument("--embed", type=int, default=512, help="numbers of a vector (512)")
  parser.add_argument("--chunk", type=int, default=1024, help="texts at the same time (1024)")
  parser.add_argument("--seconds", type=int, metavar="ROWS", help="also runs a batch of so many pairs")
  options = parser.parse_args(argv)
  # Before jax is there.
  flag = f"--xla_force_host_platform_device_count={DEVICES}"
  os.environ |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()}
  found = rows(options.rows, options.embed, options.chunk, options.seconds)
  print(sides.table(found))
  return 0


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
