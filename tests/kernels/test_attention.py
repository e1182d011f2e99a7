"""Every attention kernel equals `dense_attention`, or falls back to it and says why."""

import functools

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import zoo
from tests.filled import filled
from zoo.config.schema import with_defaults
from zoo.errors import UserError
from zoo.kernels import Kernel, Notes, attention, with_kernels
from zoo.layers import masks
from zoo.layers.attention import dense_attention
from zoo.layers.block_patterns import Blocks, random
from zoo.layers.masks import AttentionMask
from zoo.layers.patterns import GlobalTokens, Window
from zoo.sharding import make_mesh, put_batch
from zoo.train.experiment import experiment

ONE = make_mesh({"data": 1}, jax.devices()[:1])
MESHES = {"one": ONE, "data": make_mesh({"data": 8}), "both": make_mesh({"data": 4, "model": 2})}
RUNS = {"xla": attention.xla, "sparse": attention.sparse, "splash": functools.partial(attention.splash, interpret=True)}
LENGTH = 131  # Not a multiple of 128.
NEAR = masks.both(masks.causal, masks.window(5))
# rule, padding, texts that share a row, kv_heads
CASES = {
  "causal": (masks.causal, False, False, 4),
  "grouped heads": (masks.causal, True, True, 2),
  "window": (NEAR, False, False, 4),
  "both sides": (masks.window(5), True, True, 4),
  "all": (None, True, False, 1),
  "global tokens": (masks.window(5) | GlobalTokens((0, 130)), False, True, 4),
  "blocks of heads": (Blocks(64, Window(0, 0) | random(1, 3, seed=0, heads=4)), False, False, 4),
}
UNSUPPORTED = {("sparse", "all")}


def inputs(padded, packed, kv_heads, *, batch=8, heads=4, dim=4, length=LENGTH):
  draw = lambda i, n: np.random.default_rng(i).standard_normal((batch, length, n, dim)).astype(np.float32)
  arrays = draw(0, heads), draw(1, kv_heads), draw(2, kv_heads)
  places = np.arange(length, dtype=np.int32)[None]
  real = places < length - 11 * padded * (1 + np.arange(batch)[:, None] % 3)
  ids = np.where(real, np.searchsorted([40, 90], places, side="right") + 1, 0).astype(np.int32)
  mask_arguments = (places, places, real if padded else None, *((ids, ids) if packed else (None, None)), True)
  return arrays, mask_arguments, real


def outcome(kernel, rule, arrays, mask_arguments, real):
  """The output at real tokens, and the gradients of a sum over it."""
  weight = real[:, :, None, None] * np.cos(np.arange(arrays[0].shape[-1], dtype=np.float32))

  def loss(arrays):
    y = kernel(*arrays, mask=AttentionMask(rule, *mask_arguments)) * weight
    return (y**2).sum(), y

  return jax.jit(jax.grad(loss, has_aux=True))(arrays)


@functools.cache
def dense(case):
  """The result of dense attention in a case of three rows."""
  rule, *shape = CASES[case]
  return outcome(dense_attention, rule, *inputs(*shape, batch=3))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", RUNS)
def test_values_and_gradients_are_those_of_dense_attention(name, case):
  if (name, case) in UNSUPPORTED:
    pytest.skip("no pattern")
  rule, *shape = CASES[case]
  arrays, mask_arguments, real = inputs(*shape, batch=3)
  notes = Notes(name)
  result = outcome(Kernel(RUNS[name], dense_attention, ONE, "here", notes), rule, arrays, mask_arguments, real)
  assert notes.reasons == {("here", ""): None}  # It did not fall back.
  for one, other in zip(jax.tree.leaves(result), jax.tree.leaves(dense(case)), strict=True):
    np.testing.assert_allclose(one, other, atol=1e-5 * float(np.abs(other).max()))


@pytest.mark.parametrize("case", ["causal", "grouped heads", "window", "all"])
def test_a_device_may_have_a_part_of_the_queries(case):
  mesh = make_mesh({"data": 2, "model": 2, "sequence": 2}) if case == "grouped heads" else make_mesh({"sequence": 8})
  rule, *shape = CASES[case]
  arrays, mask_arguments, real = inputs(*shape, batch=2, length=128 * mesh.shape["sequence"])
  notes = Notes("splash")
  result = outcome(Kernel(RUNS["splash"], dense_attention, mesh, "here", notes), rule, arrays, mask_arguments, real)
  assert notes.reasons == {("here", ""): None}
  expected = outcome(dense_attention, rule, arrays, mask_arguments, real)
  for one, other in zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(one, other, atol=1e-5 * float(np.abs(other).max()))


def test_parts_of_queries_must_be_whole_blocks():
  arrays, mask_arguments, real = inputs(False, False, 1, batch=2)
  notes = Notes("splash")
  kernel = Kernel(RUNS["splash"], dense_attention, make_mesh({"data": 2, "sequence": 4}), "here", notes)
  result = outcome(kernel, masks.causal, arrays, mask_arguments, real)
  assert "131 queries do not divide into 4 shards" in notes.lines()[0]
  expected = outcome(dense_attention, masks.causal, arrays, mask_arguments, real)
  np.testing.assert_allclose(result[1], expected[1], atol=1e-5)


@pytest.mark.parametrize("mesh", ["one", "both"])
@pytest.mark.parametrize("count", [3, 129])
def test_global_keys_that_are_inputs_stand_behind_the_others_or_are_too_many(monkeypatch, mesh, count):
  monkeypatch.setattr("zoo.kernels.splash.BLOCKS", (128,))
  arrays, mask_arguments, real = inputs(True, True, 2, batch=4)
  mask_arguments = (
    *mask_arguments,
    np.random.default_rng(0).permuted(np.broadcast_to(np.arange(LENGTH) < count, real.shape), axis=1),
  )
  notes = Notes("splash")
  kernel = Kernel(RUNS["splash"], dense_attention, MESHES[mesh], "here", notes)
  found = outcome(kernel, Window(5, 5), arrays, mask_arguments, real)
  assert notes.reasons == {("here", ""): None}
  expected = outcome(dense_attention, Window(5, 5), arrays, mask_arguments, real)
  for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(one, other, atol=1e-5 * float(np.abs(other).max()))


@pytest.mark.parametrize("mesh", ["data", "both"])
def test_a_mesh_changes_nothing(mesh):
  arrays, mask_arguments, real = inputs(True, True, 2)
  run = lambda mesh: outcome(
    Kernel(RUNS["splash"], dense_attention, mesh, "", Notes("")), masks.causal, arrays, mask_arguments, real
  )
  for one, other in zip(jax.tree.leaves(run(MESHES[mesh])), jax.tree.leaves(run(ONE)), strict=True):
    np.testing.assert_allclose(one, other, atol=1e-6)


SIZES = dict(vocab_size=23, dim=8, depth=2, num_heads=2)
MODELS = {
  "gpt": dict(SIZES, max_length=130),
  "llama": dict(SIZES, max_length=130, mlp_dim=7, num_kv_heads=1, window=9, pattern=["local", "global"]),
  "modernbert": dict(SIZES, max_length=130, mlp_dim=7, window=10),
}


@pytest.mark.parametrize("family", MODELS)
def test_a_whole_model_gives_the_same(family):
  model = zoo.build(family, **MODELS[family])
  params = filled(model, *model.example())
  model_with_kernels, notes = with_kernels(model, "splash", ONE, interpret=True)
  tokens = np.random.default_rng(0).integers(0, 23, (2, 130)).astype(np.int32)
  keywords = {"segment_ids": np.where(np.arange(130) < 77, 1, 2).astype(np.int32)[None].repeat(2, 0)}
  run = lambda model: jax.jit(lambda: jax.tree.leaves(model.apply({"params": params}, tokens, **keywords)))()
  for one, other in zip(run(model_with_kernels), run(model), strict=True):
    np.testing.assert_allclose(one, other, atol=2e-5 * float(np.abs(other).max()))
  assert notes.lines() == ["attention: splash"]
  assert model_with_kernels.spec == model.spec and model_with_kernels != model


TOKENS = np.zeros((2, 130), np.int32)
REFUSED = {
  "bias": ("t5", SIZES, (TOKENS, TOKENS), {}, "encoder/stack/block/attention: it has a bias"),
  "soft cap": (
    "gemma",
    dict(MODELS["gpt"], mlp_dim=7, attention_cap=5.0),
    (TOKENS,),
    {},
    "stack/block/0/attention: its logits are transformed, e.g. soft-capped",
  ),
  "dropout": (
    "gpt",
    dict(MODELS["gpt"], dropout=0.1),
    (TOKENS,),
    {"train": True, "rngs": {"dropout": jax.random.key(0)}},
    "stack/block/attention: its weights are dropped out or captured",
  ),
  "short": (
    "gpt",
    MODELS["gpt"],
    (TOKENS[:, :9],),
    {},
    "stack/block/attention: 9 queries see 9 keys, splash attention takes 128 or more",
  ),
  "places": (
    "gpt",
    MODELS["gpt"],
    (TOKENS,),
    {"positions": np.arange(130, dtype=np.int32)[None]},
    "stack/block/attention: positions are not 0, 1, 2, ...: they are passed, or come from a cache",
  ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_kernel_cannot_do_is_done_densely_and_said(case):
  family, sizes, tokens, keywords, why = REFUSED[case]
  model = zoo.build(family, **sizes)
  params = jax.eval_shape(model.init, jax.random.key(0), *model.example())["params"]
  model_with_kernels, notes = with_kernels(model, "splash", ONE, interpret=True)
  result, expected = (str(jax.make_jaxpr(functools.partial(x.apply, **keywords))({"params": params}, *tokens))
                     for x in (model_with_kernels, model))  # fmt: skip
  assert f"attention: splash -> dense in {why}" in notes.lines()
  # The cross-attention of T5 has no bias.
  assert notes.lines()[:-2] == ["attention: splash"] if case == "bias" else result == expected


def test_looking_at_weights_and_caching_leave_the_kernel():
  model = zoo.build("gpt", **MODELS["gpt"])
  model_with_kernels, notes = with_kernels(model, "splash", ONE, interpret=True)
  params = filled(model, *model.example())
  _, mask_arguments = zoo.capture(model_with_kernels, params, TOKENS)
  assert mask_arguments["stack/layer_0/self_attention/weights"].shape == (2, 2, 130, 130)
  jax.jit(lambda: model_with_kernels.apply({"params": params}, TOKENS, mutable=["cache"]))()
  assert [why for _, why in notes.reasons] == [
    "its weights are dropped out or captured",
    "positions are not 0, 1, 2, ...: they are passed, or come from a cache",
  ]


def test_what_a_mesh_cannot_split_is_said():
  model = zoo.build("gpt", **MODELS["gpt"])
  params = filled(model, *model.example())
  for mesh, why in (("data", "2 rows do not divide over the 8 devices of mesh axis 'data'"), ("both", "2 rows do not")):
    model_with_kernels, notes = with_kernels(model, "splash", MESHES[mesh], interpret=True)
    jax.eval_shape(lambda model_with_kernels=model_with_kernels: model_with_kernels.apply({"params": params}, TOKENS))
    assert why in notes.lines()[0]


def test_the_platform_chooses_unless_a_name_does():
  model = zoo.build("gpt", **MODELS["gpt"])
  assert with_kernels(model, "auto", ONE)[0] is model  # On a CPU attention stays as it is.
  with pytest.raises(
    UserError, match="There is no attention 'splat'. Did you mean 'splash'. There are: auto, dense, sparse, x"
  ):
    with_kernels(model, "splat", ONE)
  with pytest.raises(UserError, match="attention is 'cudnn', which needs a gpu; the mesh is of cpu devices. Use auto."):
    with_kernels(model, "cudnn", ONE)


def test_one_line_of_a_config_chooses(tmp_path):
  (tmp_path / "a.txt").write_text("Of many words, some are said twice. " * 9)
  config = with_defaults(
    {
      "seed": 3,
      "steps": 2,
      "batch_size": 8,
      "workdir": "unused",
      "model": {"family": "gpt", **SIZES, "vocab_size": 260, "max_length": 16},
      "objective": {"name": "causal_lm"},
      "data": {
        "name": "language",
        "source": f"text:{tmp_path}",
        "tokenizer": "bytes",
        "max_length": 17,
        "cache": False,
      },
      "optimizer": {"learning_rate": 1e-2},
      "mesh": {"data": -1},
      "sharding": "replicated",
      "eval": {},
    }
  )
  assert config["attention"] == "auto"
  result = {}
  for name in ("auto", "xla"):
    built = experiment(ConfigDict(config | {"attention": name}), MESHES["data"])
    batch = put_batch(built.batches[0], MESHES["data"])
    state = jax.jit(built.init, out_shardings=built.placed)(jax.random.key(0))
    result[name] = built.compiled_step()(state, batch)[1]
    assert built.attention.lines() == (["attention: xla"] if name == "xla" else [])
    assert built.model == zoo.build(**config["model"])  # The model that is saved and evaluated has no kernel.
  for one, other in zip(jax.tree.leaves(result["xla"]), jax.tree.leaves(result["auto"]), strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-5)
