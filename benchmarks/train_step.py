"""A training step, forward, backward and AdamW, beside torch transformers': the same weights, the same batch.

python -m benchmarks.train_step                     GPT, BERT, T5, CLIP and ViT of sizes for a CPU
python -m benchmarks.train_step --models gpt t5     some of them
python -m benchmarks.train_step --no-compile        without torch.compile, whose compilation takes minutes

Ours with layers in a loop and in a scan; theirs as it is and by torch.compile, AdamW fused. All start at the same loss,
or the benchmark says so. On an accelerator with utilisation, of the peak in bfloat16. Without torch and transformers
(extra `parity`) ours runs alone.
"""

import contextlib
import math
import shutil
import sys
import tempfile

import numpy as np

from benchmarks import sides

TEXT = dict(vocab_size=8192, max_length=128, dim=384, depth=6, num_heads=6)
# family, sizes, rows, length of texts, accelerators: computed in bfloat16.
MODELS = {
  "small": {
    "gpt": ("gpt", TEXT, 4, 128),
    "bert": ("bert", dict(TEXT, head="mlm"), 4, 128),
    "t5": ("t5", dict(vocab_size=8192, dim=384, depth=4, num_heads=6, head_dim=64, mlp_dim=1536), 4, 128),
    "clip": (
      "clip",
      dict(
        image_size=128, patch_size=16, image_dim=384, image_depth=6, image_heads=6, text_dim=384, text_depth=6,
        text_heads=6, embed_dim=256, vocab_size=8192, max_length=77,
      ),
      8,
      77,
    ),
    "vit": ("vit", dict(image_size=128, patch_size=16, dim=384, depth=6, num_heads=6, num_classes=1000), 8, 0),
  },
  "published": {
    "gpt": ("gpt", dict(variant="gpt2"), 8, 1024),
    "gpt-medium": ("gpt", dict(variant="gpt2-medium"), 4, 1024),
    "bert": ("bert", dict(variant="base", head="mlm"), 32, 128),
    "t5": ("t5", dict(variant="t5-base"), 8, 512),
    "clip": ("clip", dict(variant="ViT-B/16"), 32, 77),
    "vit": ("vit", dict(variant="B/16"), 32, 0),
  },
}  # fmt: skip
OBJECTIVES = {"gpt": "causal_lm", "bert": "masked_lm", "t5": "seq2seq", "clip": "contrastive", "vit": "classify"}
OBJECTIVES |= {"reformer": "causal_lm", "bigbird": "masked_lm"}  # Of benchmarks/long_context.py.
MASK = 3


def batch_of(family: str, size: dict, rows: int, length: int) -> dict:
  """A random batch, numpy, as the objective of the family takes it."""
  rng = np.random.default_rng(0)
  draw = lambda columns: rng.integers(4, size["vocab_size"] - 1, (rows, columns), dtype=np.int32)
  image = lambda: rng.uniform(-1, 1, (rows, size["image_size"], size["image_size"], 3)).astype(np.float32)
  if family == "gpt":
    return {"tokens": draw(length + 1)}
  if family == "t5":
    return {"tokens": draw(length), "target_tokens": draw(length)}
  if family == "clip":
    tokens = draw(length)
    tokens[:, -1] = size["vocab_size"] - 1
    return {"image": image(), "tokens": tokens}
  if family == "vit":
    return {"image": image(), "label": rng.integers(0, size["num_classes"], rows, dtype=np.int32)}
  tokens, count = draw(length), math.ceil(0.15 * length)
  predict = np.sort(rng.permuted(np.tile(np.arange(length), (rows, 1)), axis=1)[:, :count], axis=1).astype(np.int32)
  inputs, target = tokens.copy(), np.take_along_axis(tokens, predict, axis=1)
  np.put_along_axis(inputs, predict, MASK, axis=1)
  return {"inputs": inputs, "predict": predict, "target": target, "chosen": np.ones(predict.shape, bool)}


def ours(folder: str, batch: dict, family: str, scan: bool, dtype: str | None, train: bool = False):
  """-> run(steps): ours, which trains on; `train`: with the random choices of training, though nothing is dropped."""
  from zoo.hosts.heap import keep_freed_memory

  keep_freed_memory()  # As train.py, before JAX looks for devices.
  import jax
  import jax.numpy as jnp
  import optax

  import zoo
  from zoo import optim
  from zoo.config import registry
  from zoo.kernels import with_backward, with_kernels
  from zoo.layers.stack import stack_layers, unstack_layers
  from zoo.objectives.objective import value_and_grad
  from zoo.perf import flops
  from zoo.sharding import make_mesh

  loaded, params = zoo.load(folder)
  model = zoo.build(**{**loaded.spec, "scan": scan, "dtype": dtype})
  like = jax.eval_shape(model.init, jax.random.key(0), *model.example())["params"]
  params = stack_layers(unstack_layers(params), like) if scan else unstack_layers(params)
  options = {"mask_token": MASK} if OBJECTIVES[family] == "masked_lm" else {}
  # As train.py has them: attention by flash kernels where the device has them, and the device's backward pass.
  mesh = make_mesh({"data": 1}, jax.devices()[:1])
  model_with_kernels = with_backward(with_kernels(model, "auto", mesh)[0], mesh)
  plain, trained = (
    registry.build("objectives", {"name": OBJECTIVES[family], **options}, one) for one in (model, model_with_kernels)
  )
  grad = value_and_grad(trained)
  optimizer, _ = optim.optimizer(params, 1000, learning_rate=1e-4, schedule="constant", weight_decay=0.01)

  @jax.jit
  def begin(params):
    return jax.tree.map(jnp.copy, params), optimizer.init(params)

  def train_step(state, batch):
    params, moments = state
    (loss, _), grads = grad(params, batch, jax.random.key(0) if train else None)
    updates, moments = optimizer.update(grads, moments, params)
    return (optax.apply_updates(params, updates), moments), loss

  step = jax.jit(train_step, donate_argnums=0)
  state, batch = begin(params), jax.tree.map(jnp.asarray, batch)
  work = flops.training_flops(lambda params, batch: plain.loss(params, batch), state[0], batch)

  def run(steps: int) -> dict:
    nonlocal state
    losses = []
    for _ in range(steps):
      state, loss = step(state, batch)
      losses.append(loss)
    return {"losses": [float(loss) for loss in losses], "flops": work, "peak": flops.peak()}

  return run


def theirs(folder: str, batch: dict, family: str, compiled: bool, dtype: str | None, train: bool = False):
  """-> run(steps): torch transformers', which trains on; `train` as of `ours`."""
  import torch
  import transformers

  device = "cuda" if torch.cuda.is_available() else "cpu"
  architecture = transformers.AutoConfig.from_pretrained(folder).architectures[0]
  model = getattr(transformers, architecture).from_pretrained(folder).to(device)
  model.train(train)  # Without dropout in either mode; gradients are the same.
  optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, fused=True)
  given = {name: torch.as_tensor(array).to(device) for name, array in batch.items()}
  whole = {name: array.long() for name, array in given.items() if array.dtype == torch.int32}
  cross_entropy = torch.nn.functional.cross_entropy
  if family in ("clip", "vit"):
    pixels = given["image"].permute(0, 3, 1, 2).contiguous()
  if OBJECTIVES[family] == "masked_lm":
    labels = torch.full_like(whole["inputs"], -100).scatter(1, whole["predict"], whole["target"])

  def loss_of():
    if OBJECTIVES[family] == "causal_lm":
      logits = model(whole["tokens"][:, :-1], use_cache=False).logits
      return cross_entropy(logits.flatten(0, 1), whole["tokens"][:, 1:].flatten())
    if OBJECTIVES[family] == "masked_lm":
      return model(whole["inputs"], labels=labels).loss
    if family == "t5":
      return model(whole["tokens"], labels=whole["target_tokens"], use_cache=False).loss
    if family == "clip":
      return model(input_ids=whole["tokens"], pixel_values=pixels, return_loss=True).loss
    return cross_entropy(model(pixels).logits, whole["label"])

  loss_of = torch.compile(loss_of) if compiled else loss_of

  def run(steps: int) -> dict:
    losses = []
    for _ in range(steps):
      optimizer.zero_grad(set_to_none=True)
      with torch.autocast(device, torch.bfloat16) if dtype else contextlib.nullcontext():
        loss = loss_of()
      loss.backward()
      optimizer.step()
      losses.append(loss.detach())
    return {"losses": [float(loss) for loss in losses]}

  return run


def rows(name: str, parts: dict, *, steps: int, repeats: int) -> list[dict]:
  """The table's, one for every pair of ours and theirs; `parts`: {"scan", "loop", "eager", "compiled": run}."""
  first = {part: run(steps=2)[1]["losses"][0] for part, run in parts.items()}  # Compiles.
  for part in first:
    if abs(first[part] - first["loop"]) > 0.01 * abs(first["loop"]):
      print(f"{name}: {part} starts at the loss {first[part]:.4f}, loop at {first['loop']:.4f}. They are not the same.")
  rounds = [
    {part: (seconds / steps, found) for part, (seconds, found) in one.items()}
    for one in sides.alternate(parts, repeats, {"steps": steps})
  ]
  others = [part for part in parts if part not in ("scan", "loop")] or [None]
  found = [
    {"model": name, "ours": mine, "theirs": other, **sides.compared(rounds, mine, other)}
    for mine in ("scan", "loop")
    for other in others
  ]
  about = rounds[0]["loop"][1]
  return [row | utilisation(row, about["flops"], about["peak"]) for row in found]


def utilisation(row: dict, work: float, peak: float | None) -> dict:
  """What part of the device's FLOP/s both sides make use of, by the model's FLOPs of a step; {} if that is unknown."""
  sides_of_row = [side for side in ("ours", "theirs") if f"{side}_seconds" in row] if peak else []
  return {f"{side}_utilisation": work / row[f"{side}_seconds"] / (peak or 1) for side in sides_of_row}


def compare(name: str, entry: tuple, threads: int | None, compiled: bool, steps: int, repeats: int) -> list[dict]:
  """The rows of one model, each side in a process of its own."""
  family, size, count, length = entry
  dtype = "bfloat16" if threads is None else None
  with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
    options = {"folder": folder, "family": family, "size": size}
    with contextlib.closing(sides.Side(sides.writer, threads, **options)) as writer:
      size = writer()[1]
    options = {"folder": folder, "batch": batch_of(family, size, count, length), "family": family, "dtype": dtype}
    parts = {form: sides.Side(ours, threads, scan=form == "scan", **options) for form in ("scan", "loop")}
    if sides.has_torch():
      for form in ("eager", "compiled") if compiled else ("eager",):
        parts[form] = sides.Side(theirs, threads, compiled=form == "compiled", **options)
    for part in parts.values():
      stack.callback(part.close)
    return rows(name, parts, steps=steps, repeats=repeats)


def main(argv: list[str]) -> int:
  """Compares, prints the table and writes it."""
  parser = sides.parser(__doc__)
  parser.add_argument("--models", nargs="+", help=f"among {', '.join(MODELS['published'])} (all of the size)")
  parser.add_argument("--steps", type=int, default=4, help="of each turn (4)")
  parser.add_argument("--repeats", type=int, default=5, help="how often all take their turn (5)")
  parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
  flags = parser.parse_args(argv)
  device, cpu = sides.devices()
  if cpu:
    print("There is no accelerator: models are small." if flags.size is None else "There is no accelerator.")
  threads = flags.threads if cpu else None
  entries = MODELS[flags.size or ("small" if cpu else "published")]
  compiled = not flags.no_compile
  if not sides.has_torch():
    print("torch and transformers (extra `parity`) are not installed: ours runs alone.")
  elif compiled and not any(shutil.which(name) for name in ("g++", "clang++", "c++")):
    compiled = False
    print("There is no C++ compiler, so no torch.compile.")
  found = []
  for name in flags.models or entries:
    if name not in entries:
      parser.error(f"There is no model {name!r} of that size. There are: {', '.join(entries)}.")
    rows_of_one = compare(name, entries[name], threads, compiled, flags.steps, flags.repeats)
    print(f"\n{sides.table(rows_of_one)}", flush=True)  # It may take long.
    found += rows_of_one
  sides.report("One training step", found, device, threads, flags.out)
  return 0


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
