"""Nothing that a token must not see moves what is made of it: with every kernel of attention that runs here, on every
mesh. `pytest tests/test_leaks.py --leak-table=docs/attention.md` writes the table there.

One program for each model, kernel and mesh gives both outcomes, so that what differs between them is the input alone.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests import leak_table
from tests.filled import filled
from zoo.kernels import with_kernels
from zoo.sharding import activations, make_mesh, put_batch, shardings

ROWS, LENGTH = 8, 256  # Two blocks of splash attention.
SIZES = dict(vocab_size=23, max_length=LENGTH, dim=8, depth=1, num_heads=4)
MODELS = {
  "decoder": zoo.build("llama", **SIZES, mlp_dim=8, num_kv_heads=2, window=50, pattern=["local"]),
  "encoder": zoo.build("bert", **SIZES, head="mlm"),
  "encoder-decoder": zoo.build("transformer", **SIZES),
}
MESHES = {
  "1 device": (make_mesh({"data": 1}, jax.devices()[:1]), "replicated"),
  "data=8": (make_mesh({"data": 8}), "fsdp"),
  "data=4, model=2": (make_mesh({"data": 4, "model": 2}), "fsdp+tensor"),
  "data=4, sequence=2": (make_mesh({"data": 4, "sequence": 2}), "fsdp"),
}
KERNELS = ("dense", "xla", "splash", "ring")
RNG = np.random.default_rng(0)
TOKENS, OTHER = RNG.integers(0, 23, (2, ROWS, LENGTH)).astype(np.int32)
OTHER = np.where(OTHER == TOKENS, (OTHER + 1) % 23, OTHER).astype(np.int32)
PLACES = np.arange(LENGTH)[None].repeat(ROWS, 0)
# Three texts in a row, that begin elsewhere in each; behind them padding.
STARTS = np.array([[30 + 3 * row, 70 + row, 120 + row] for row in range(ROWS)])
IDS = (1 + (PLACES[:, :, None] >= STARTS[:, None]).sum(-1)).astype(np.int32)
REAL = IDS < 4
IDS = np.where(REAL, IDS, 0).astype(np.int32)


@functools.cache
def params_of(name, mesh):
  model, (mesh, strategy) = MODELS[name], MESHES[mesh]
  params = filled(model, *model.example())
  return jax.device_put(params, shardings(params, strategy, mesh))


def program(name, kernel, mesh):
  """run(tokens, valid, segment_ids) -> an array [rows, length, ...]: what is made of every token."""
  model, notes = with_kernels(MODELS[name], kernel, MESHES[mesh][0], interpret=kernel == "splash")
  rules = activations.parse_rules([], MESHES[mesh][0], notes.keys)

  @jax.jit
  def forward(params, batch):
    with activations.constrained(rules, MESHES[mesh][0]):
      return outputs(params, batch)

  def outputs(params, batch):
    options = {"valid": batch["valid"], "segment_ids": batch["segment_ids"]}
    if name != "encoder-decoder":
      out = model.apply({"params": params}, batch["tokens"], **options)
      return out if name == "decoder" else out["mlm"]
    options |= {"decoder_valid": batch["valid"], "decoder_segment_ids": batch["segment_ids"]}
    return model.apply({"params": params}, batch["tokens"], batch["target_tokens"], **options)["logits"]

  def run(tokens, valid=REAL, segment_ids=IDS, target=TOKENS):
    batch = {"tokens": tokens, "target_tokens": target, "valid": valid, "segment_ids": segment_ids}
    return np.asarray(forward(params_of(name, mesh), put_batch(batch, MESHES[mesh][0])))

  return run, notes


def where(kernel):
  """The meshes on which a kernel runs."""
  return [mesh for mesh in MESHES if kernel != "ring" or "sequence" in MESHES[mesh][0].shape]


def moved(before, after, where):
  """The most that an output differs at those tokens, and at the others."""
  most = abs(before - after).reshape(ROWS, LENGTH, -1).max(-1)
  return float(most[where].max()), float(most[~where].max())


@pytest.mark.parametrize("kernel, mesh", [(kernel, mesh) for kernel in KERNELS for mesh in where(kernel)])
@pytest.mark.parametrize("name", MODELS)
def test_what_must_not_be_seen_moves_nothing(name, kernel, mesh):
  run, notes = program(name, kernel, mesh)
  pairs = name == "encoder-decoder"
  before = run(TOKENS)
  outputs = {}

  def see(check, where, *, needs=None, **keywords):
    """`where` nothing may move; elsewhere something must, or the check would see nothing at all."""
    kept, changed = moved(needs if needs is not None else before, run(**{"tokens": TOKENS, **keywords}), where)
    assert changed > 1e-4, check
    outputs[check] = max(outputs.get(check, 0.0), kept)

  second = IDS == 2
  see("other texts", REAL & ~second, tokens=np.where(second, OTHER, TOKENS))
  if pairs:
    see("other texts", REAL & ~second, target=np.where(second, OTHER, TOKENS))
  row = np.arange(ROWS)[:, None] == 3
  see("other rows", np.broadcast_to(~row, REAL.shape), tokens=np.where(row, OTHER, TOKENS))
  # One text a row, and padding behind it.
  alone = np.where(REAL, 1, 0).astype(np.int32)
  before = run(TOKENS, segment_ids=alone)
  see("padding", REAL, tokens=np.where(REAL, TOKENS, OTHER), target=np.where(REAL, TOKENS, OTHER), segment_ids=alone)
  if name != "encoder":
    late = PLACES >= 77
    changed = {"target" if pairs else "tokens": np.where(late, OTHER, TOKENS)}
    see("the future", REAL & ~late, segment_ids=alone, **changed)
  if kernel != "dense":
    assert notes.lines() == [f"attention: {kernel}"]  # It did not fall back.
  if name != "encoder":
    outputs["unused places of a cache"] = cache_leak(name, kernel, mesh)
  leak_table.SEEN[name, kernel, mesh] = outputs
  assert set(outputs.values()) == {0.0}, outputs


@pytest.mark.parametrize(
  "kernel, mesh", [("dense", "1 device"), ("dense", "data=4, sequence=2"), ("ring", "data=4, sequence=2")]
)
@pytest.mark.parametrize("name", ["decoder", "encoder-decoder"])
def test_positions_that_begin_again_hide_the_future_and_other_texts(name, kernel, mesh):
  model, _ = with_kernels(MODELS[name], kernel, MESHES[mesh][0])
  context = np.random.default_rng(3).standard_normal((ROWS, LENGTH, 8)).astype(np.float32)

  @jax.jit
  def forward(params, batch):
    args, options = (batch["tokens"],), {"valid": batch["valid"], "positions": batch["positions"]}
    if name == "encoder-decoder":
      options = {"decoder_valid": batch["valid"], "positions": batch["positions"], "method": "decode"}
      args += (batch["context"],)
    return model.apply({"params": params}, *args, **options)

  def run(tokens, positions):
    batch = {"tokens": tokens, "valid": REAL, "positions": positions.astype(np.int32), "context": context}
    return np.asarray(forward(params_of(name, mesh), put_batch(batch, MESHES[mesh][0])))

  begins = np.take_along_axis(np.pad(STARTS, ((0, 0), (1, 0))), np.maximum(IDS - 1, 0), 1)
  begins[~REAL] = PLACES[~REAL]  # As what counts real tokens has it: all of the padding stands at 0.
  positions, before = PLACES - begins, {}
  for text in (1, 2, 3):
    before[text] = run(TOKENS, positions) if not before else before[1]
    kept, changed = moved(before[text], run(np.where(IDS == text, OTHER, TOKENS), positions), REAL & (IDS != text))
    assert (kept, changed > 1e-4) == (0.0, True), text
  late = positions >= 17
  assert moved(before[1], run(np.where(late, OTHER, TOKENS), positions), REAL & ~late)[0] == 0
  # In disorder they show nothing of the future either.
  shuffled = np.random.default_rng(4).permuted(PLACES, axis=1) % 50
  after = run(np.where(PLACES >= 99, OTHER, TOKENS), shuffled)
  kept, changed = moved(run(TOKENS, shuffled), after, REAL & (PLACES < 99))
  assert (kept, changed > 1e-4) == (0.0, True)


def test_a_leak_would_be_seen():
  run, _ = program("encoder", "dense", "1 device")
  together = np.where(REAL, 1, 0).astype(np.int32)
  before, after = (run(tokens, segment_ids=together) for tokens in (TOKENS, np.where(IDS == 2, OTHER, TOKENS)))
  assert moved(before, after, REAL & (IDS != 2))[0] > 1e-3


def cache_leak(name, kernel, mesh):
  """How far the next token's logits move with what lies in a cache where nothing was written yet."""
  model, _ = with_kernels(MODELS[name], kernel, MESHES[mesh][0], interpret=kernel == "splash")
  params, size, used = params_of(name, mesh), 9, 5
  encoded = jnp.asarray(RNG.standard_normal((ROWS, 7, 8)), jnp.float32)

  def step(params, cache, tokens, places):
    options = {"positions": places, "mutable": ["cache"]}
    args = (tokens,) if name == "decoder" else (tokens, encoded)
    method = {} if name == "decoder" else {"method": "decode"}
    return model.apply({"params": params} | ({} if cache is None else {"cache": cache}), *args, **options, **method)

  blank = jax.eval_shape(
    lambda params: step(params, None, jnp.zeros((ROWS, size), jnp.int32), PLACES[:, :size]), params
  )

  def fill(path, leaf, unused):
    kind = path[-1].key
    if kind == "index":
      return np.int32(used)
    if kind == "positions":
      return np.where(PLACES[:, :size] < used, PLACES[:, :size], -1).astype(np.int32)
    values = np.random.default_rng(1).standard_normal(leaf.shape).astype(np.float32)
    if not kind.startswith("context"):
      values[:, :, used:] += unused
    return values

  run = jax.jit(lambda params, cache: step(params, cache, TOKENS[:, :1], jnp.full((ROWS, 1), used))[0])
  outs = [
    np.asarray(run(params, jax.tree_util.tree_map_with_path(functools.partial(fill, unused=unused), blank[1]["cache"])))
    for unused in (0.0, 3.0)
  ]
  assert np.isfinite(outs[0]).all() and abs(outs[0]).max() > 0
  return float(abs(outs[0] - outs[1]).max())
