"""What the processes of `benchmarks.long_context` run: functions that return `run`, as `sides.Side` takes."""

from collections.abc import Callable
from typing import Any

HEAD_DIM = 64


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


def states(family: str, length: int, size: dict):
  """-> run(): a model of random parameters, as `loaded`."""
  import jax

  import zoo

  model = zoo.build(family, **size)
  params = jax.jit(lambda key: model.init(key, *model.example())["params"])(jax.random.key(0))
  return _states(model, params, length, family == "longformer")


def loaded(length: int, folder: str):
  """-> run(): the hidden states of a Longformer, its first token global, and the gradients of their mean square."""
  import zoo

  return _states(*zoo.load(folder), length, True)


def _states(model: Any, params: Any, length: int, has_global: bool):
  import jax
  import jax.numpy as jnp
  import numpy as np

  tokens, is_global = map(jnp.asarray, batch(length))

  def loss(params, tokens, is_global):
    options = {"is_global": is_global} if has_global else {"train": True}
    return (model.apply({"params": params}, tokens, **options)["hidden"] ** 2).mean()

  program, mib = compiled(jax.value_and_grad(loss), params, tokens, is_global)
  jax.block_until_ready(program(params, tokens, is_global))

  def measured() -> dict:
    value, gradients = program(params, tokens, is_global)
    jax.block_until_ready(gradients)
    return {"mib": mib, "loss": float(np.asarray(value))}

  return measured


def their_longformer(length: int, folder: str):
  """-> run(): as `loaded`, of torch transformers."""
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


def batch(length: int) -> tuple:
  """Tokens int32 [1, length], all below 20, and which are global: the first."""
  import numpy as np

  return np.random.default_rng(0).integers(5, 20, (1, length), dtype=np.int32), np.arange(length)[None] < 1


def temporaries(length: int, depths: tuple[int, ...] = (2, 16)):
  """-> run(): {"rows"} of temporaries by depth, of a gradient of reversible layers and of plain ones."""

  def run() -> dict:
    import jax
    import jax.numpy as jnp

    from zoo.layers import norms
    from zoo.layers.blocks import PreNormBlock
    from zoo.layers.chunk_attention import LocalAttention
    from zoo.layers.mlp import MLP
    from zoo.layers.reversible import ReversibleBlock, Streams, reversible_stack
    from zoo.layers.stack import stack

    parts = {"attention": LocalAttention(2, 8), "mlp": MLP(64), "norm": norms.layer_norm(1e-6)}
    x = jnp.zeros((1, length, 16))
    stacks = {
      "reversible": (lambda depth: reversible_stack(ReversibleBlock(**parts), depth, scan=True), Streams(x, x)),
      "plain": (lambda depth: stack(PreNormBlock(**parts), depth, scan=True), x),
    }
    rows = []
    for name, (make, inputs) in stacks.items():
      row, sizes = {"what": f"{name} layers, {length} tokens"}, []
      for depth in depths:
        model = make(depth)
        params = jax.eval_shape(model.init, jax.random.key(0), inputs)["params"]
        loss = lambda params, x, model=model: sum(
          jnp.sin(leaf).sum() for leaf in jax.tree.leaves(model.apply({"params": params}, x))
        )
        sizes.append(compiled(jax.grad(loss, (0, 1)), params, inputs)[1])
        row[f"{depth} layers, MiB"] = sizes[-1]
      rows.append(row | {"ratio": sizes[-1] / sizes[0]})
    return {"rows": rows}

  return run


def remembered(segment: int, steps: int = 600, count: int = 512):
  """-> run(): {"rows"} of a small Transformer-XL over bytes, as read with its memory, and in a window that slides.

  Args:
    segment: bytes of a segment, and of the memory; the window holds both.
    steps: of training. count: bytes that are predicted, of a held-out address.
  """

  def run() -> dict:
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    import zoo
    from zoo.data.sources import open_source

    model = zoo.build("transformer_xl", vocab_size=256, dim=64, depth=2, num_heads=4, memory_length=segment, scan=False)
    text = lambda split: b" ".join(record["text"] for record in open_source("tfds:sotu", split=split))
    rows, context = 16, 2 * segment
    train = np.frombuffer(text("train"), np.uint8)
    train = train[: len(train) // (rows * segment) * rows * segment].reshape(rows, -1, segment)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((rows, segment), int))
    empty = {name: x for name, x in variables.items() if name != "params"}
    nats_of = lambda logits, tokens: optax.softmax_cross_entropy_with_integer_labels(logits, tokens)

    @jax.jit
    def trained(params, segments):
      optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, steps))

      def loss(params, memory, tokens):
        logits, memory = model.apply({"params": params, **memory}, tokens, mutable=["memory"])
        return nats_of(logits[:, :-1], tokens[:, 1:]).mean(), memory

      def step(carry, tokens):
        params, memory, state = carry
        (_, memory), grads = jax.value_and_grad(loss, has_aux=True)(params, memory, tokens)
        updates, state = optimizer.update(grads, state)
        return (optax.apply_updates(params, updates), memory, state), None

      return jax.lax.scan(step, (params, empty, optimizer.init(params)), segments)[0][0]

    segments = train.swapaxes(0, 1)
    segments = np.resize(segments, (steps, *segments.shape[1:])).astype(np.int32)
    params = trained(variables["params"], segments)
    held_out = np.frombuffer(text("test"), np.uint8)[: context + count].astype(np.int32)
    alone = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, segment), int))
    start = {name: x for name, x in alone.items() if name != "params"}

    def read(params, memory, tokens):
      return model.apply({"params": params, **memory}, tokens, mutable=["memory"])

    by_segment = jax.jit(read).lower(params, start, held_out[None, :segment]).compile()
    by_window = jax.jit(lambda params, tokens: read(params, start, tokens)[0][:, -1])
    by_window = by_window.lower(params, held_out[None, :context]).compile()
    nats, states = {"memory": [], "sliding window": []}, start
    logits = []
    for first in range(0, context + count, segment):
      each, states = by_segment(params, states, held_out[None, first : first + segment])
      logits.append(each[0])
    targets = held_out[context:]
    nats = {"memory": nats_of(jnp.concatenate(logits)[context - 1 : -1], targets).mean()}
    each = [by_window(params, held_out[None, at - context : at])[0] for at in range(context, context + count)]
    nats["sliding window"] = nats_of(jnp.stack(each), targets).mean()
    flops = {
      "memory": by_segment.cost_analysis()["flops"] / segment, "sliding window": by_window.cost_analysis()["flops"]
    }  # fmt: skip
    names = {"memory": f"memory of {segment} bytes", "sliding window": f"window that slides, of {context} bytes"}
    return {
      "rows": [
        {
          "what": f"Transformer-XL, {names[name]}",
          "bits per byte": float(nats[name]) / float(np.log(2)),
          "FLOPs a byte": flops[name],
          "ratio": flops[name] / flops["sliding window"],
        }
        for name in names
      ]
    }

  return run


def planned(length: int, window: int, target: str = "v5e:2x4", **size: Any):
  """-> run(): {"rows"} of a Longformer's step, a document to classify on each chip, compiled for a target."""

  def run() -> dict:
    from ml_collections import ConfigDict

    from zoo.config.schema import with_defaults
    from zoo.plan.compile import plan

    model = {"variant": "base-4096", "max_length": length, "window": window, "head": "classify", "num_classes": 2}
    config = {
      "seed": 0,
      "steps": 1000,
      "batch_size": 8,
      "model": {"family": "longformer", **model, "dtype": "bfloat16", "remat": "full", **size},
      "objective": {"name": "classify"},
      "data": {"name": "labelled_texts", "source": "jsonl:documents", "split": "train", "tokenizer": "bytes",
               "max_length": length, "class_names": ["no", "yes"]},
      "optimizer": {"name": "adamw", "learning_rate": 1e-4},
      "mesh": {"data": -1},
      "sharding": "fsdp",
    }  # fmt: skip
    found = plan(ConfigDict(with_defaults(config)), target)
    bound = max(found.times.values()) if found.fits else None
    return {
      "rows": [
        {
          "what": f"Longformer's step, {length} tokens a row, {found.chips} rows, {target}",
          "attention": "; ".join(found.attention),
          "GiB a chip": None if found.used is None else found.used / 2**30,
          "utilisation, at most": None if bound is None else found.utilisation(bound),
          "seconds, at least": bound,
        }
      ]
    }

  return run
