"""What every family promises, each with tiny sizes that are hardly ever alike."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.filled import filled
from zoo.build import count_parameters
from zoo.errors import UserError
from zoo.layers.stack import stack_layers
from zoo.paths import flatten

TOWER = dict(dim=6, depth=2, num_heads=3)
LOCAL = dict(window=3, pattern=["local", "global"], local_theta=50.0, sandwich=True, qk_norm=True, cap=30.0)
TINY = {
  "gpt": dict(vocab_size=23, max_length=11, **TOWER),
  "openai_gpt": dict(vocab_size=23, max_length=11, **TOWER),
  "bert": dict(vocab_size=23, max_length=11, **TOWER),
  "roberta": dict(vocab_size=23, max_length=11, **TOWER),
  "distilbert": dict(vocab_size=23, max_length=11, **TOWER),
  "modernbert": dict(vocab_size=23, max_length=11, mlp_dim=10, window=3, **{**TOWER, "depth": 5}),
  "sentence_bert": dict(vocab_size=23, max_length=11, num_classes=5, **TOWER),
  "llama": dict(vocab_size=23, max_length=11, mlp_dim=10, **TOWER),
  "mixtral": dict(vocab_size=23, max_length=11, mlp_dim=10, num_experts=3, top_k=2, **TOWER),
  "gemma": dict(vocab_size=23, max_length=11, mlp_dim=14, **{**TOWER, "depth": 3}, **LOCAL),
  "vit": dict(image_size=6, patch_size=3, num_classes=5, **TOWER),
  "mae": dict(image_size=6, patch_size=3, **{**TOWER, "dim": 12}),
  "dinov2": dict(image_size=7, patch_size=3, num_classes=5, registers=2, **TOWER),
  "clip": dict(
    **dict(image_size=6, patch_size=3, image_dim=6, image_depth=2, image_heads=3),
    **dict(text_dim=10, text_depth=2, text_heads=5, embed_dim=7, vocab_size=23, max_length=11),
  ),
  "clip_text": dict(vocab_size=23, max_length=11, embed_dim=7, **TOWER),
  "clip_vision": dict(image_size=6, patch_size=3, embed_dim=7, **TOWER),
  "siglip": dict(
    **dict(image_size=7, patch_size=3, image_dim=6, image_depth=2, image_heads=3),
    **dict(text_dim=10, text_depth=2, text_heads=5, vocab_size=23, max_length=11),
  ),
  "siglip2": dict(
    **dict(image_size=9, patch_size=3, image_dim=6, image_depth=2, image_heads=3),
    **dict(text_dim=10, text_depth=2, text_heads=5, vocab_size=23, max_length=11),
  ),
  "siglip_text": dict(vocab_size=23, max_length=11, embed_dim=7, **TOWER),
  "siglip_vision": dict(image_size=7, patch_size=3, **TOWER),
  "siglip2_vision": dict(image_size=9, patch_size=3, **TOWER),
  "t5": dict(vocab_size=23, **TOWER),
  "bart": dict(vocab_size=23, max_length=11, **TOWER),
  "marian": dict(vocab_size=23, max_length=11, **TOWER),
  "transformer": dict(vocab_size=23, **TOWER),
  "whisper": dict(vocab_size=23, source_length=7, max_length=11, mels=5, **TOWER),
}
FAMILIES = pytest.mark.parametrize("family", TINY)
FIXED = {"whisper": {"encoder/positions/embedding"}, "mae": {"positions/embedding"}}  # What training leaves alone.

# As published: the papers' tables, the released checkpoints, and their ports counted tensor by tensor.
PUBLISHED = {
  "gpt/gpt2": 124_439_808,
  "gpt/gpt2-medium": 354_823_168,
  "gpt/gpt2-large": 774_030_080,
  "gpt/gpt2-xl": 1_557_611_200,
  "openai_gpt/openai-gpt": 116_534_784,
  "bert/base": 110_106_428,
  "bert/large": 336_226_108,
  "roberta/base": 124_697_433,
  "roberta/large": 355_412_057,
  "distilbert/base-uncased": 66_985_530,
  "distilbert/base-cased": 65_812_036,
  "modernbert/base": 149_655_232,
  "modernbert/large": 395_881_664,
  "sentence_bert/all-MiniLM-L6-v2": 22_565_376,
  "sentence_bert/all-MiniLM-L12-v2": 33_212_160,
  "mixtral/8x7b": 46_702_792_704,
  "mixtral/8x22b": 140_630_071_296,
  "mixtral/qwen3-30b-a3b": 30_532_122_624,
  "mixtral/qwen3-235b-a22b": 235_093_634_560,
  "gemma/gemma-2b": 2_506_172_416,
  "gemma/gemma-7b": 8_537_680_896,
  "gemma/gemma-2-2b": 2_614_341_888,
  "gemma/gemma-2-9b": 9_241_705_984,
  "gemma/gemma-2-27b": 27_227_128_320,
  "gemma/gemma-3-270m": 268_098_176,
  "gemma/gemma-3-1b": 999_885_952,
  "gemma/gemma-3-4b": 3_880_263_168,
  "gemma/gemma-3-12b": 11_766_034_176,
  "gemma/gemma-3-27b": 27_009_346_304,
  "llama/llama-7b": 6_738_415_616,
  "llama/llama-2-7b": 6_738_415_616,
  "llama/llama-2-13b": 13_015_864_320,
  "llama/llama-2-70b": 68_976_648_192,
  "llama/llama-3-8b": 8_030_261_248,
  "llama/llama-3-70b": 70_553_706_496,
  "llama/llama-3.1-8b": 8_030_261_248,
  "llama/llama-3.2-1b": 1_235_814_400,
  "llama/llama-3.2-3b": 3_212_749_824,
  "llama/mistral-7b": 7_241_732_096,
  "llama/mistral-7b-v0.3": 7_248_023_552,
  "llama/qwen2-0.5b": 494_032_768,
  "llama/qwen2-1.5b": 1_543_714_304,
  "llama/qwen2-7b": 7_615_616_512,
  "llama/qwen3-0.6b": 596_049_920,
  "llama/qwen3-1.7b": 1_720_574_976,
  "llama/qwen3-4b": 4_022_468_096,
  "llama/qwen3-8b": 8_190_735_360,
  "llama/qwen3-32b": 32_762_123_264,
  "vit/Ti/16": 5_717_416,
  "vit/S/32": 22_878_952,
  "vit/S/16": 22_050_664,
  "vit/B/32": 88_224_232,
  "vit/B/16": 86_567_656,
  "vit/L/32": 306_535_400,
  "vit/L/16": 304_326_632,
  "vit/H/14": 632_045_800,
  "mae/base": 85_798_656,
  "mae/large": 303_301_632,
  "mae/huge": 630_764_800,
  "dinov2/S/14": 22_056_576,
  "dinov2/B/14": 86_580_480,
  "dinov2/L/14": 304_368_640,
  "dinov2/g/14": 1_136_480_768,
  "dinov2/S/14-registers": 22_058_112,
  "dinov2/B/14-registers": 86_583_552,
  "dinov2/L/14-registers": 304_372_736,
  "dinov2/g/14-registers": 1_136_486_912,
  "clip/ViT-B/32": 151_277_313,
  "clip/ViT-B/16": 149_620_737,
  "clip/ViT-L/14": 427_616_513,
  "clip_text/ViT-B": 63_428_096,
  "clip_text/ViT-L": 123_650_304,
  "clip_vision/ViT-B/32": 87_849_216,
  "clip_vision/ViT-B/16": 86_192_640,
  "clip_vision/ViT-L/14": 303_966_208,
  "siglip/B/16": 203_155_970,
  "siglip/L/16": 652_150_786,
  "siglip/So400m/14": 877_960_498,
  "siglip/2-B/16": 375_187_970,
  "siglip/2-L/16": 881_526_786,
  "siglip/2-So400m/14": 1_135_463_602,
  "siglip2/B/16-naflex": 375_234_050,
  "siglip2/So400m/16-naflex": 1_135_670_962,
  "siglip_text/B": 110_271_744,
  "siglip_text/L": 336_194_560,
  "siglip_text/So400m": 449_734_896,
  "siglip_text/2-B": 282_303_744,
  "siglip_text/2-L": 565_570_560,
  "siglip_text/2-So400m": 707_782_896,
  "siglip_vision/B/16": 92_884_224,
  "siglip_vision/L/16": 315_956_224,
  "siglip_vision/So400m/14": 428_225_600,
  "siglip_vision/2-B/16": 92_884_224,
  "siglip_vision/2-L/16": 315_956_224,
  "siglip_vision/2-So400m/14": 427_680_704,
  "siglip2_vision/B/16-naflex": 92_930_304,
  "siglip2_vision/So400m/16-naflex": 427_888_064,
  "t5/t5-small": 60_506_624,
  "t5/t5-base": 222_903_552,
  "t5/t5-large": 737_668_096,
  "t5/t5-3b": 2_851_598_336,
  "t5/t5-11b": 11_307_321_344,
  "t5/v1_1-small": 76_961_152,
  "t5/v1_1-base": 247_577_856,
  "t5/v1_1-large": 783_150_080,
  "t5/v1_1-xl": 2_849_757_184,
  "t5/v1_1-xxl": 11_135_332_352,
  "t5/mt5-small": 300_176_768,
  "t5/mt5-base": 582_401_280,
  "t5/mt5-large": 1_229_581_312,
  "t5/mt5-xl": 3_742_619_648,
  "t5/mt5-xxl": 12_921_057_280,
  "bart/base": 139_420_416,
  "bart/large": 406_291_456,
  "marian/opus-mt-en-de": 73_886_208,
  "transformer/base": 63_082_496,
  "transformer/big": 214_245_376,
  "whisper/tiny.en": 37_760_256,
  "whisper/base.en": 72_593_408,
  "whisper/small.en": 241_734_144,
  "whisper/medium.en": 763_856_896,
  "whisper/tiny": 37_760_640,
  "whisper/base": 72_593_920,
  "whisper/small": 241_734_912,
  "whisper/medium": 763_857_920,
  "whisper/large": 1_543_304_960,
  "whisper/large-v3": 1_543_490_560,
  "whisper/large-v3-turbo": 808_878_080,
}


def inputs(model):
  """Random ones in the shapes of `example`."""
  draw = lambda x: (
    jax.random.randint(jax.random.key(3), x.shape, 0, 23)
    if x.dtype == jnp.int32
    else jax.random.normal(jax.random.key(4), x.shape)
  )
  return jax.tree.map(draw, model.example(2))


def made(model):
  return filled(model, *model.example())


@functools.partial(jax.jit, static_argnums=(0, 1))
def apply(model, train, variables, rngs):
  return model.apply(variables, *inputs(model), train=train, rngs=rngs)


def forward(model, params, rng=None):
  rngs = {} if rng is None else {"dropout": rng}
  return apply(model, rng is not None, {"params": params}, rngs)


def close(one, other, tolerance):
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * float(abs(b).max()))


def test_has_as_many_parameters_as_published():
  assert {f"{row.family}/{row.variant}": row.parameters for row in zoo.list_models()} == PUBLISHED


def test_the_encoder_of_bert_has_as_many_parameters_as_published():
  heads = {None: 109_482_240, "mlm": 109_514_298, "pretraining": 110_106_428}
  assert {head: count_parameters(zoo.build("bert", "base", head=head)) for head in heads} == heads


@FAMILIES
def test_models_built_alike_are_equal(family):
  one, other = (zoo.build(family, **TINY[family], dtype="bfloat16") for _ in range(2))
  assert one == other and hash(one) == hash(other)
  assert one != zoo.build(family, **TINY[family])


@FAMILIES
def test_gradients_reach_every_parameter_and_scanning_changes_nothing(family):
  loop, scan = (zoo.build(family, **TINY[family], scan=scan) for scan in (False, True))
  params = made(loop)

  def outcome(model, params):
    def loss(params):
      out = model.apply({"params": params}, *inputs(model))
      rng = np.random.default_rng(0)  # A random direction: the mean of a normed vector, say, does not depend on it.
      return sum((rng.standard_normal(leaf.shape) * leaf).sum() for leaf in jax.tree.leaves(out)), out

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)

  (_, out), grads = outcome(loop, params)
  left = {path for path, leaf in flatten(grads).items() if not np.any(leaf)}
  assert left == FIXED.get(family, set())
  like = jax.eval_shape(scan.init, jax.random.key(0), *scan.example())["params"]
  (_, scanned), scanned_grads = outcome(scan, stack_layers(params, like))
  close(scanned, out, 1e-5)
  largest = max(float(abs(leaf).max()) for leaf in jax.tree.leaves(grads))
  for a, b in zip(jax.tree.leaves(scanned_grads), jax.tree.leaves(stack_layers(grads, like)), strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * largest)


@FAMILIES
def test_bfloat16_is_computed_in_and_float32_is_kept(family):
  exact, coarse = (zoo.build(family, **TINY[family], dtype=dtype) for dtype in (None, "bfloat16"))
  params = made(coarse)
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
  out = forward(coarse, params)
  close(jax.tree.map(lambda x: x.astype(jnp.float32), out), forward(exact, params), 0.1)
  named = out if isinstance(out, dict) else {"logits": out}
  coarsely = {name for name, leaf in named.items() if leaf.dtype == jnp.bfloat16}
  assert coarsely == set(named) & {"hidden", "pooled", "encoded", "embedded"}
  # Every product of matrices: what it multiplies is bfloat16.
  jaxpr = jax.make_jaxpr(lambda p: coarse.apply({"params": p}, *inputs(coarse)))(params).jaxpr
  products = [equation for equation in jaxpr.eqns if equation.primitive.name == "dot_general"]
  assert {operand.aval.dtype for equation in products for operand in equation.invars} == {jnp.dtype("bfloat16")}


@FAMILIES
def test_chance_acts_in_training_only_and_comes_from_the_key(family):
  plain = zoo.build(family, **TINY[family])
  thinned = zoo.build(family, **TINY[family], dropout=0.4, drop_path=0.4)
  params = made(plain)
  close(forward(thinned, params), forward(plain, params), 1e-6)
  first, again, other = (jax.tree.leaves(forward(thinned, params, jax.random.key(seed))) for seed in (0, 0, 1))
  assert all(np.array_equal(a, b) for a, b in zip(first, again))
  assert any(not np.array_equal(a, b) for a, b in zip(first, other))


@FAMILIES
def test_impossible_sizes_are_refused_in_one_line(family):
  kind = "text_" if family in ("clip", "siglip", "siglip2") else ""
  heads = f"{kind}heads" if kind else "num_heads"
  mistakes = {
    f"{kind}depth is 0. It must be at least 1.": {f"{kind}depth": 0},
    f"{kind}dim is -6. It must be at least 1.": {f"{kind}dim": -6},
    f"does not divide into {heads} 7. Make {kind}dim a multiple of {heads}": {heads: 7},
    "dropout is 1.5. It is a probability": {"dropout": 1.5},
    "drop_path is -0.1. It is a probability": {"drop_path": -0.1},
    "dtype is 'bf16'": {"dtype": "bf16"},
    "remat is 'half'": {"remat": "half"},
  }
  for message, sizes in mistakes.items():
    with pytest.raises(UserError, match=message) as error:
      zoo.build(family, **{**TINY[family], **sizes})
    assert str(error.value).startswith(f"{family}: ") and "\n" not in str(error.value)
