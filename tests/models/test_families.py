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

TOWER = dict(dim=6, depth=2, num_heads=3)
TINY = {
  "gpt": dict(vocab_size=23, max_length=11, **TOWER),
  "bert": dict(vocab_size=23, max_length=11, **TOWER),
  "vit": dict(image_size=6, patch_size=3, num_classes=5, **TOWER),
  "clip": dict(
    **dict(image_size=6, patch_size=3, image_dim=6, image_depth=2, image_heads=3),
    **dict(text_dim=10, text_depth=2, text_heads=5, embed_dim=7, vocab_size=23, max_length=11),
  ),
}
FAMILIES = pytest.mark.parametrize("family", TINY)

# As published: the papers' tables, the released checkpoints, and their ports counted tensor by tensor.
PUBLISHED = {
  "gpt/gpt2": 124_439_808,
  "gpt/gpt2-medium": 354_823_168,
  "gpt/gpt2-large": 774_030_080,
  "gpt/gpt2-xl": 1_557_611_200,
  "bert/base": 110_106_428,
  "bert/large": 336_226_108,
  "vit/Ti/16": 5_717_416,
  "vit/S/32": 22_878_952,
  "vit/S/16": 22_050_664,
  "vit/B/32": 88_224_232,
  "vit/B/16": 86_567_656,
  "vit/L/32": 306_535_400,
  "vit/L/16": 304_326_632,
  "vit/H/14": 632_045_800,
  "clip/ViT-B/32": 151_277_313,
  "clip/ViT-B/16": 149_620_737,
  "clip/ViT-L/14": 427_616_513,
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
  assert not [jax.tree_util.keystr(path) for path, leaf in jax.tree.leaves_with_path(grads) if not np.any(leaf)]
  (_, scanned), scanned_grads = outcome(scan, stack_layers(params))
  close(scanned, out, 1e-5)
  largest = max(float(abs(leaf).max()) for leaf in jax.tree.leaves(grads))
  for a, b in zip(jax.tree.leaves(scanned_grads), jax.tree.leaves(stack_layers(grads)), strict=True):
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
  assert coarsely == {"bert": {"hidden", "pooled"}, "vit": {"hidden", "pooled"}}.get(family, set())
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
  kind = "text_" if family == "clip" else ""
  heads = "text_heads" if family == "clip" else "num_heads"
  mistakes = {
    f"{kind}depth is 0. It must be at least 1.": {f"{kind}depth": 0},
    f"{kind}dim is -6. It must be at least 1.": {f"{kind}dim": -6},
    f"does not divide into {heads} 4. Make {kind}dim a multiple of {heads}": {heads: 4},
    "dropout is 1.5. It is a probability": {"dropout": 1.5},
    "drop_path is -0.1. It is a probability": {"drop_path": -0.1},
    "dtype is 'bf16'": {"dtype": "bf16"},
    "remat is 'half'": {"remat": "half"},
  }
  for message, sizes in mistakes.items():
    with pytest.raises(UserError, match=message) as error:
      zoo.build(family, **{**TINY[family], **sizes})
    assert str(error.value).startswith(f"{family}: ") and "\n" not in str(error.value)
