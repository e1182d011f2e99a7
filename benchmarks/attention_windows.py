"""What long sequences cost: attention in a window beside dense attention, a Longformer as its text doubles, and beside
torch transformers.

python -m benchmarks.attention_windows                             one thread each, CPU time
python -m benchmarks.attention_windows --parts window doubling --repeats 3
python -m benchmarks.attention_windows --parts reference --depth 12

Everything is forward and backward, in float32, without dropout, after compilation. Temporaries are those of the
compiled program, beside its arguments and results.
"""

import sys
from collections.abc import Callable
from typing import Any

from benchmarks import sides

WINDOW, LENGTH, HEADS, HEAD_DIM = 512, 8192, 2, 64
MODEL = {"vocab_size": 1024, "dim": 768, "num_heads": 12, "head": None}
PARTS = ("window", "doubling", "reference")


def compiled(function: Callable, *arrays: Any) -> tuple[Any, float]:
  """The compiled program, and MiB of its temporaries."""
  import jax

  program = jax.jit(function).lower(*arrays).compile()
  return program, program.memory_analysis().temp_size_in_bytes / 2**20


def attention(kernel: str, length: int, window: int, heads: int):
  """-> run(): one attention of random inputs and the gradients of its square."""
  import jax
  import jax.numpy as jnp
  import numpy as np

  from zoo.layers import patterns
  from zoo.layers.attention import dense_attention
  from zoo.layers.masks import AttentionMask
  from zoo.layers.sparse_attention import sparse_attention

  rng = np.random.default_rng(0)
  arrays = [jnp.asarray(rng.standard_normal((1, length, heads, HEAD_DIM)), jnp.float32) for _ in range(3)]
  positions = jnp.arange(length, dtype=jnp.int32)[None]
  mask = AttentionMask(patterns.window(window), positions, positions, in_order=True)
  run = {"dense": dense_attention, "sparse": sparse_attention}[kernel]
  program, mib = compiled(jax.grad(lambda arrays: (run(*arrays, mask=mask) ** 2).sum()), arrays)
  jax.block_until_ready(program(arrays))

  def measured() -> dict:
    jax.block_until_ready(program(arrays))
    return {"mib": mib}

  return measured


def longformer(length: int, depth: int, window: int, folder: str | None = None):
  """-> run(): a Longformer with one global token, and the gradients of the square of its states."""
  import jax
  import jax.numpy as jnp
  import numpy as np

  import zoo

  if folder is None:
    model = zoo.build("longformer", **MODEL, depth=depth, max_length=length, window=window, pooler=False)
    params = jax.jit(lambda key: model.init(key, *model.example())["params"])(jax.random.key(0))
  else:
    model, params = zoo.load(folder)
  tokens, is_global = batch(length)
  tokens, is_global = jnp.asarray(tokens), jnp.asarray(is_global)

  def loss(params, tokens, is_global):
    return (model.apply({"params": params}, tokens, is_global=is_global)["hidden"] ** 2).mean()

  program, mib = compiled(jax.value_and_grad(loss), params, tokens, is_global)
  jax.block_until_ready(program(params, tokens, is_global))

  def measured() -> dict:
    value, gradients = program(params, tokens, is_global)
    jax.block_until_ready(gradients)
    return {"mib": mib, "loss": float(np.asarray(value))}

  return measured


def theirs(length: int, folder: str):
  """-> run(): the same of torch transformers."""
  import torch
  import transformers

  model = transformers.LongformerModel.from_pretrained(folder, add_pooling_layer=False).eval()
  tokens, is_global = (torch.as_tensor(array).long() for array in batch(length))

  def run() -> dict:
    model.zero_grad(set_to_none=True)
    loss = (model(tokens, global_attention_mask=is_global).last_hidden_state ** 2).mean()
    loss.backward()
    return {"loss": float(loss.detach())}

  run()
  return run


def ours(length: int, folder: str):
  """-> run(): as `longformer`, of the folder."""
  return longformer(length, 0, 0, folder)


def batch(length: int) -> tuple:
  """Tokens int32 [1, length] and which are global: the first."""
  import numpy as np

  tokens = np.random.default_rng(0).integers(5, MODEL["vocab_size"], (1, length), dtype=np.int32)
  return tokens, np.arange(length)[None] < 1


def measure(what: str, parts: dict, first: str, second: str, repeats: int) -> dict:
  """A line of the table: both, and first / second."""
  rounds = list(sides.alternate(parts, repeats, {}))
  row = sides.compared(rounds, first, second if second in parts else None)
  row = {name.replace("ours", first).replace("theirs", second): value for name, value in row.items()}
  mib = {f"{name}, MiB": rounds[0][name][1]["mib"] for name in parts if "mib" in rounds[0][name][1]}
  losses = {name: rounds[0][name][1]["loss"] for name in parts if "loss" in rounds[0][name][1]}
  if len(losses) == 2 and second == "theirs":
    one, other = losses.values()
    assert abs(one - other) < 1e-4 * abs(other), losses
  return {"what": what, **row, **mib}


def rows(chosen: list[str], *, length: int, window: int, depth: int, repeats: int, threads: int) -> list[dict]:
  """The table's lines."""
  found = []
  if "window" in chosen:
    shape = {"length": length, "window": window, "heads": HEADS}
    parts = {name: sides.Side(attention, threads, kernel=name, **shape) for name in ("sparse", "dense")}
    found.append(measure(f"window {window}, {length} tokens", parts, "sparse", "dense", repeats))
    close(parts)
  if "doubling" in chosen:
    names = {"twice": length, "once": length // 2}
    parts = {name: sides.Side(longformer, threads, length=size, depth=2, window=window) for name, size in names.items()}
    found.append(measure(f"Longformer, {length} tokens over {length // 2}", parts, "twice", "once", repeats))
    close(parts)
  if "reference" in chosen:
    size = {**MODEL, "depth": depth, "max_length": length // 2, "window": window, "pooler": False}
    options = dict(family="longformer", size=size)
    with sides.of_one_folder(sides.writer, *map(at(length // 2), ("ours", "theirs")), threads, **options) as parts:
      found.append(measure(f"LongformerModel, {length // 2} tokens", parts, "ours", "theirs", repeats))
  return found


def at(length: int) -> Callable[[str], Callable]:
  """The sides of a length by name, as functions that another process can import."""
  import functools

  return lambda name: functools.partial({"ours": ours, "theirs": theirs}[name], length)


def close(parts: dict) -> None:
  """Ends the processes."""
  for part in parts.values():
    part.close()


def main(argv: list[str]) -> int:
  """Measures, and prints the table."""
  parser = sides.parser(__doc__)
  parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
  parser.add_argument("--length", type=int, default=LENGTH, help=f"tokens ({LENGTH}); beside transformers half of them")
  parser.add_argument("--window", type=int, default=WINDOW, help=f"of a token, half on each side ({WINDOW})")
  parser.add_argument("--depth", type=int, default=2, help="layers beside transformers (2)")
  parser.add_argument("--repeats", type=int, default=3, help="rounds (3)")
  options = parser.parse_args(argv)
  device, _ = sides.devices()
  names = ("length", "window", "depth", "repeats", "threads")
  found = rows(options.parts, **{name: getattr(options, name) for name in names})
  sides.report("Long sequences, forward and backward", found, device, options.threads, options.out)
  return 0


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
