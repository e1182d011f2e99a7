"""What a step of a GPT with long texts holds on a device, by how attention is computed, from the compiled program.

python -m benchmarks.attention_memory                         1 row of 32,768 tokens on 2 and on 8 devices
python -m benchmarks.attention_memory --length 16384 --devices 4

Loss and gradient of a GPT-2 of 124 million parameters, bfloat16, its layers rematerialised and scanned, logits of 1,024
tokens at the same time, on a mesh {"sequence": devices} that jax simulates on this CPU. The programs are compiled and
not run.
"""

import argparse
import os
import sys
from typing import Any

from benchmarks import sides

LARGE = {"variant": "gpt2", "dtype": "bfloat16", "scan": True, "remat": "full"}
CHUNK = 1024
ATTENTIONS = ("dense", "ring")


def temporary(size: dict, attention: str, devices: int, length: int) -> int:
  """Bytes on a device, beside parameters, their gradients and the batch."""
  import jax
  import jax.numpy as jnp

  import zoo
  from zoo import sharding
  from zoo.kernels import with_kernels
  from zoo.objectives.causal_lm import causal_lm
  from zoo.objectives.objective import value_and_grad
  from zoo.sharding import activations

  mesh = sharding.make_mesh({"sequence": devices}, jax.devices()[:devices])
  model, notes = with_kernels(zoo.build("gpt", **size, max_length=length), attention, mesh)
  rules, objective = activations.parse_rules([], mesh, notes.keys), causal_lm(model, chunk=CHUNK)
  batch = {"tokens": jax.ShapeDtypeStruct((1, length + 1), jnp.int32)}
  params = jax.eval_shape(objective.init, jax.random.key(0), batch)

  def step(params: Any, batch: Any) -> Any:
    with activations.constrained(rules, mesh):
      return value_and_grad(objective)(params, batch)

  places = sharding.shardings(params, "replicated", mesh)
  step = jax.jit(step, in_shardings=(places, sharding.batch_sharding(mesh)), out_shardings=(None, places))
  return step.lower(params, batch).compile().memory_analysis().temp_size_in_bytes


def rows(size: dict, devices: list[int], length: int) -> list[dict]:
  """A line for every way to compute attention."""
  return [
    {"attention": name}
    | {f"{many} devices, MiB": round(temporary(size, name, many, length) / 2**20) for many in devices}
    for name in ATTENTIONS
  ]


def main(argv: list[str]) -> int:
  """Compiles, and prints the table."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
  parser.add_argument("--length", type=int, default=32768, help="tokens of a row (32768)")
  parser.add_argument("--devices", type=int, nargs="+", default=[2, 8], help="how many share a row (2 8)")
  options = parser.parse_args(argv)
  # Before jax is there.
  flag = f"--xla_force_host_platform_device_count={max(options.devices)}"
  os.environ |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()}
  print(sides.table(rows(LARGE, options.devices, options.length)))
  return 0


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
