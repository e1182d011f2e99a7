"""Attention kernels beside dense attention on this device: how far values and gradients are off, and their time.

python -m benchmarks.attention_kernels                    every case, on a GPU cuDNN's kernel, on a TPU splash attention
python -m benchmarks.attention_kernels --cases causal packed --length 4096 --head-dim 128

Differences are relative to the largest entry of dense attention in float32 of the same inputs, and stand beside those
of dense attention in the dtype of the inputs. Time is that of the output and its gradients, compiled: the median of
the turns. A case that falls back to dense attention prints the reason.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import sides
from zoo.kernels import KERNELS, Kernel, Notes
from zoo.layers import masks
from zoo.layers.attention import dense_attention
from zoo.layers.masks import AttentionMask
from zoo.sharding import make_mesh

KERNEL_OF = {"tpu": "splash", "gpu": "cudnn"}
# mask rule, padding, packed sequences, query heads that share a key
CASES: dict[str, tuple[Callable | None, bool, bool, int]] = {
  "causal": (masks.causal, False, False, 1),
  "bidirectional": (None, False, False, 1),
  "padding": (None, True, False, 1),
  "causal, padding": (masks.causal, True, False, 1),
  "packed": (masks.causal, True, True, 1),
  "window": (masks.both(masks.causal, masks.window(255)), False, False, 1),
  "window of both sides": (masks.window(128), True, False, 1),
  "grouped heads": (masks.causal, True, True, 4),
}


def inputs(
  case: str, batch: int, length: int, heads: int, head_dim: int, dtype: Any
) -> tuple[tuple, AttentionMask, Any]:
  """Random query, key and value [batch, length, heads, head_dim], who sees whom, and what the output is weighed by."""
  rule, padding, packed, shared = CASES[case]
  rng = np.random.default_rng(0)
  draw = lambda n: jnp.asarray(rng.standard_normal((batch, length, n, head_dim), np.float32), dtype)
  positions = np.arange(length, dtype=np.int32)[None]
  lengths = length - (np.arange(batch, dtype=np.int32)[:, None] + 1) * (length // 10 if padding else 0)
  valid = positions < lengths
  segments = np.where(valid, positions * 3 // length + 1, 0).astype(np.int32) if packed else None
  mask = AttentionMask(rule, positions, positions, valid if padding else None, segments, segments, True)
  weight = jnp.asarray(rng.standard_normal((batch, length, heads, head_dim), np.float32) * valid[:, :, None, None])
  return (draw(heads), draw(heads // shared), draw(heads // shared)), mask, weight


def program(kernel: Callable, mask: AttentionMask) -> Callable:
  """Compiled: query, key, value, weight -> the output where anything is weighed, and the gradients of the three."""

  def loss(arrays, weight):
    output = kernel(*arrays, mask=mask).astype(jnp.float32)
    return (output * weight).sum(), jnp.where(weight == 0, 0, output)

  def run(arrays, weight):
    gradients, output = jax.grad(loss, has_aux=True)(arrays, weight)
    return output, *gradients

  return jax.jit(run)


def difference(arrays: Any, references: Any) -> float:
  """The largest difference of any array, relative to the largest entry of its reference."""
  off = [
    np.abs(np.asarray(array, np.float32) - np.asarray(reference, np.float32)).max() / np.abs(reference).max()
    for array, reference in zip(arrays, references, strict=True)
  ]
  return float(max(off))


def compare(case: str, name: str, dtype: str, repeats: int, **sizes: int) -> dict[str, Any]:
  """A row of the table.

  Args:
    case: a key of CASES.
    name: the kernel, of `zoo.kernels.KERNELS`.
    dtype: of query, key and value.
    repeats: how many turns are timed.
    sizes: batch, length, heads, head_dim.
  """
  arrays, mask, weight = inputs(case, **sizes, dtype=jnp.dtype(dtype))
  notes = Notes(name)
  mesh = make_mesh({"data": 1}, jax.devices()[:1])
  programs = {
    name: program(Kernel(KERNELS[name], dense_attention, mesh, case, notes), mask),
    "dense": program(dense_attention, mask),
  }
  whole = jax.tree.map(lambda x: x.astype(jnp.float32), arrays)
  with jax.default_matmul_precision("highest"):
    reference = jax.tree.map(np.asarray, program(dense_attention, mask)(whole, weight))
  off = {key: difference(run(arrays, weight), reference) for key, run in programs.items()}
  row: dict[str, Any] = {"case": case, "kernel": name, "off": off[name], "dense off": off["dense"]}
  reasons = [why for _, why in notes.reasons if why]
  if reasons:
    return row | {"left to dense attention": "; ".join(reasons)}
  turns = {
    key: (lambda run=run: jax.block_until_ready([run(arrays, weight) for _ in range(10)]) and {})
    for key, run in programs.items()
  }
  rounds = list(sides.alternate({key: timed(run) for key, run in turns.items()}, repeats, {}))
  seconds = {key: statistics.median(one[key][0] for one in rounds) / 10 for key in programs}
  return row | {
    "ms": 1e3 * seconds[name],
    "dense ms": 1e3 * seconds["dense"],
    "ratio": seconds[name] / seconds["dense"],
  }


def timed(run: Callable) -> Callable:
  """A side of `sides.alternate` in this process, by the clock."""
  return lambda **case: sides.measured(run, case, time.perf_counter)


def main(argv: list[str]) -> int:
  """Compares and prints the table."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
  device = jax.devices()[0]
  parser.add_argument("--kernel", choices=KERNELS, default=KERNEL_OF.get(device.platform, "xla"))
  parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE", help=", ".join(CASES))
  parser.add_argument("--dtype", default="bfloat16", help="of the inputs (bfloat16)")
  parser.add_argument("--batch", type=int, default=4)
  parser.add_argument("--length", type=int, default=2048)
  parser.add_argument("--heads", type=int, default=16)
  parser.add_argument("--head-dim", type=int, default=64)
  parser.add_argument("--repeats", type=int, default=5, help="how often both take their turn of ten calls (5)")
  flags = parser.parse_args(argv)
  sizes = {"batch": flags.batch, "length": flags.length, "heads": flags.heads, "head_dim": flags.head_dim}
  rows = []
  for case in flags.cases:
    rows.append(compare(case, flags.kernel, flags.dtype, flags.repeats, **sizes))
    print(rows[-1], flush=True)  # Compiling takes a while.
  title = f"Attention of {sizes} in {flags.dtype}"
  sides.report(title, rows, device.device_kind, None, None)
  return 0


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
