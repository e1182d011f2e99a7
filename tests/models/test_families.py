"""What every family promises, each with tiny sizes that are hardly ever alike."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.filled import filled
from tests.narrow_sums import programs
from tests.quick_keys import quick_key
from zoo.config.registry import lookup, names, takes
from zoo.errors import UserError
from zoo.layers.stack import stack_layers
from zoo.tree import flatten

TOWER = dict(dim=6, depth=2, num_heads=3)
LOCAL = dict(window=3, pattern=["local", "global"], local_theta=50.0, sandwich=True, qk_norm=True, cap=30.0)
TINY = {
  "gpt": dict(vocab_size=23, max_length=11, **TOWER),
  "openai_gpt": dict(vocab_size=23, max_length=11, **TOWER),
  "rnn": dict(vocab_size=23, dim=6, depth=2),
  "transformer_xl": dict(vocab_size=23, cutoffs=[5, 11], narrowing=2, memory_length=5, **TOWER),
  "bert": dict(vocab_size=23, max_length=11, **TOWER),
  "roberta": dict(vocab_size=23, max_length=11, **TOWER),
  "longformer": dict(vocab_size=23, max_length=11, window=4, head="classify", num_classes=5, **TOWER),
  "mpnet": dict(vocab_size=23, max_length=11, **TOWER),
  "xlnet": dict(vocab_size=23, memory_length=5, **TOWER),
  "reformer": dict(vocab_size=23, max_length=11, local_chunk=2, lsh_chunk=3, buckets=4, rounds=2, **TOWER),
  "distilbert": dict(vocab_size=23, max_length=11, **TOWER),
  "bigbird": dict(vocab_size=23, max_length=11, block_size=1, num_random=1, **TOWER),
  "visual_bert": dict(vocab_size=23, max_length=11, region_dim=7, **TOWER),
  "vision_encoder_decoder": dict(
    encoder=dict(family="vit", image_size=6, patch_size=3, **TOWER),
    decoder=dict(family="gpt", vocab_size=23, max_length=11, **{**TOWER, "dim": 9}),
  ),
  "hierarchical": dict(
    encoder=dict(family="sentence_bert", vocab_size=23, max_length=11, **TOWER),
    **dict(max_chunks=5, depth=2, num_heads=5, dim=10, head="classify", num_classes=5),
  ),
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
  "umt5": dict(vocab_size=23, **TOWER),
  "bart": dict(vocab_size=23, max_length=11, **TOWER),
  "led": dict(vocab_size=23, source_length=13, max_length=11, window=4, **TOWER),
  "marian": dict(vocab_size=23, max_length=11, **TOWER),
  "transformer": dict(vocab_size=23, **TOWER),
  "whisper": dict(vocab_size=23, source_length=7, max_length=11, mels=5, **TOWER),
}
# Of the scope of a module, tests run family by family: what they share is computed once.
FAMILIES = pytest.mark.parametrize("family", TINY, scope="module")
# What training leaves alone, or a call with tokens alone does not use.
FIXED = {
  "whisper": {"encoder/positions/embedding"},
  "mae": {"positions/embedding"},
  "led": {
    f"encoder/stack/layer_{i}/self_attention/global_{name}/{array}"
    for i in range(2)
    for name in ("query", "key", "value")
    for array in ("kernel", "bias")
  },
  "xlnet": {
    "unknown",
    *(f"stack/layer_{i}/self_attention/{name}" for i in range(2) for name in ("segments", "segment_bias")),
  },
}
WITHOUT_BRANCHES = {"reformer", "rnn", "xlnet"}  # That drop_path could drop.
# Keywords that mask -> the inputs that they mask.
MASKS = {"valid": "tokens", "decoder_valid": "decoder_tokens"}
# Masks that hide less than a padded input: Whisper's convolutions mix a frame with its neighbours.
UNMASKED = {"whisper": {"valid"}}
VALID = np.resize([True, False, True, True, False, True, False, True], 64)  # Of the tokens of an example.


def inputs(model):
  """Random ones in the shapes of `example`, drawn at once: a program is not to contain the generator."""
  draw = lambda x: (
    jax.random.randint(jax.random.key(3), x.shape, 0, 23)
    if x.dtype == jnp.int32
    else jax.random.normal(jax.random.key(4), x.shape)
  )
  with jax.ensure_compile_time_eval():
    return jax.tree.map(draw, model.example(2))


def chances(family, rate):
  """The sizes by which something is dropped in training."""
  return {"dropout": rate} if family in WITHOUT_BRANCHES else {"dropout": rate, "drop_path": rate}


def variables_of(model):
  return filled(model, *model.example())


@functools.partial(jax.jit, static_argnums=(0, 2))
def forward(model, params, train=False, rngs=None):
  return model.apply({"params": params}, *inputs(model), train=train, rngs=rngs)


def close(one, other, tolerance):
  for a, b in zip(*map(jax.tree.leaves, jax.device_get([one, other])), strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * float(abs(b).max()))


@functools.lru_cache(maxsize=1)
def exact(family):
  """Parameters, outputs and gradients of a family in float32, its layers in a loop."""
  model = zoo.build(family, **TINY[family])
  params = variables_of(model)
  return params, *outcome(model, params)


def outcome(model, params):
  """Outputs, and gradients of a random combination of them: the mean of a normed vector, say, does not depend on it."""

  def loss(params):
    out = model.apply({"params": params}, *inputs(model))
    rng = np.random.default_rng(0)
    return sum((rng.standard_normal(leaf.shape) * leaf).sum() for leaf in jax.tree.leaves(out)), out

  grads, out = jax.jit(jax.grad(loss, has_aux=True))(params)
  return out, grads


def products(program):
  """Every product of matrices in the program, in what it calls too."""
  for equation in program.eqns:
    if equation.primitive.name == "dot_general":
      yield equation
    for inner in programs(equation):
      yield from products(inner)


def masks_of(family, model):
  """What the model takes that masks, but for what is exempt: {keyword: index of the input}."""
  parameters = list(inspect.signature(type(model).__call__).parameters)[1:]
  return {
    mask: parameters.index(masked)
    for mask, masked in MASKS.items()
    if mask in parameters and mask not in UNMASKED.get(family, ())
  }


def test_every_family_has_sizes_here():
  assert set(TINY) == set(names("models")), "add the family's tiny sizes to TINY"


@FAMILIES
def test_models_built_alike_are_equal(family):
  one, other = (zoo.build(family, **TINY[family], dtype="bfloat16") for _ in range(2))
  assert one == other and hash(one) == hash(other)
  assert one != zoo.build(family, **TINY[family])


@FAMILIES
def test_gradients_reach_every_parameter_and_scanning_changes_nothing(family):
  scan = zoo.build(family, **TINY[family], scan=True)
  params, out, grads = exact(family)
  left = {path for path, leaf in flatten(grads).items() if not np.any(leaf)}
  assert left == FIXED.get(family, set())
  like = jax.eval_shape(scan.init, jax.random.key(0), *scan.example())["params"]
  scanned, scanned_grads = outcome(scan, stack_layers(params, like))
  close(scanned, out, 1e-5)
  largest = max(float(abs(leaf).max()) for leaf in jax.tree.leaves(jax.device_get(grads)))
  for a, b in zip(jax.tree.leaves(scanned_grads), jax.tree.leaves(stack_layers(grads, like)), strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * largest)


@FAMILIES
def test_bfloat16_is_computed_in_and_float32_is_kept(family):
  coarse = zoo.build(family, **TINY[family], dtype="bfloat16")
  params, finely, _ = exact(family)
  assert {leaf.dtype for leaf in jax.tree.leaves(variables_of(coarse))} == {jnp.dtype("float32")}
  traced = jax.jit(lambda params: coarse.apply({"params": params}, *inputs(coarse))).trace(params)
  out = traced.lower().compile()(params)
  close(jax.tree.map(lambda x: x.astype(jnp.float32), out), finely, 0.1)
  named = out if isinstance(out, dict) else {"logits": out}
  coarsely = {name for name, leaf in named.items() if leaf.dtype == jnp.bfloat16}
  assert coarsely == set(named) & {"hidden", "hidden_regions", "pooled", "encoded", "embedded"}
  # Every product of matrices: what it multiplies is bfloat16.
  assert {operand.aval.dtype for product in products(traced.jaxpr.jaxpr) for operand in product.invars} == {
    jnp.dtype("bfloat16")
  }


@FAMILIES
def test_padding_changes_nothing(family):
  model = zoo.build(family, **TINY[family])
  masks = masks_of(family, model)
  if not masks:
    pytest.skip("it takes no mask")
  # Two rows that differ in padding alone, within and at no end: what is causal would not see padding at the end anyway.
  arrays, options = list(jax.tree.map(lambda x: x[:1].repeat(2, axis=0), jax.device_get(inputs(model)))), {}
  for mask, index in masks.items():
    tokens = arrays[index].copy()
    valid = np.broadcast_to(VALID[: tokens.shape[-1]], tokens.shape[1:])
    for row, filling in zip(tokens, (7, 11)):
      row[~valid] = filling  # Of no meaning to any model, as its token `pad` may have.
    arrays[index], options[mask] = tokens, np.stack([valid, valid])
  out = jax.jit(lambda params: model.apply({"params": params}, *arrays, **options))(variables_of(model))
  for leaf in jax.tree.leaves(jax.device_get(out)):
    lengths = [valid.shape[1] for valid in options.values()]
    if leaf.ndim > 1 and leaf.shape[1] in lengths:  # One for each token: those of padding are read by nobody.
      leaf = leaf[:, VALID[: leaf.shape[1]]]
    if leaf.ndim and leaf.shape[0] == 2:
      np.testing.assert_allclose(leaf[0], leaf[1], rtol=0, atol=1e-5 * float(abs(leaf).max()))


@FAMILIES
def test_chance_acts_in_training_only_and_comes_from_the_key(family):
  plain = zoo.build(family, **TINY[family])
  thinned = zoo.build(family, **TINY[family], **chances(family, 0.4))
  params = variables_of(plain)
  program = lambda model: str(jax.make_jaxpr(lambda params: model.apply({"params": params}, *inputs(model)))(params))
  assert program(thinned) == program(plain)
  first, again, other = (
    jax.tree.leaves(forward(thinned, params, True, {"dropout": quick_key(seed)})) for seed in (0, 0, 1)
  )
  assert all(np.array_equal(a, b) for a, b in zip(first, again))
  assert any(not np.array_equal(a, b) for a, b in zip(first, other)), "dropout and drop_path of 0.4 change nothing"


@pytest.mark.parametrize("family", ["bert", "bigbird", "hierarchical", "led", "longformer", "reformer", "xlnet"])
def test_a_mask_of_another_shape_is_refused_in_one_line(family):
  model = zoo.build(family, **TINY[family])
  (tokens, *others), params = model.example(2), jax.eval_shape(model.init, jax.random.key(0), *model.example(2))
  valid = np.ones((*tokens.shape[:-1], tokens.shape[-1] - 1), bool)
  with pytest.raises(ValueError, match="valid is of shape .*, the tokens are .*. Make them equal.") as error:
    jax.eval_shape(lambda params: model.apply(params, tokens, *others, valid=valid), params)
  assert "\n" not in str(error.value)


@FAMILIES
def test_impossible_sizes_are_refused_in_one_line(family):
  sizes_taken = takes(lookup("models", family))
  kind = "text_" if "text_depth" in sizes_taken else ""
  heads = f"{kind}heads" if kind else "num_heads"
  mistakes = {
    f"{kind}depth is 0. It must be at least 1.": {f"{kind}depth": 0},
    f"{kind}dim is -6. It must be at least 1.": {f"{kind}dim": -6},
    f"does not divide into {heads} 7. Make {kind}dim a multiple of {heads}": {heads: 7},
    "dropout is 1.5. It must be a probability": {"dropout": 1.5},
    "drop_path is -0.1. It must be a probability": {"drop_path": -0.1},
    "dtype is 'bf16'": {"dtype": "bf16"},
    "remat is 'half'": {"remat": "half"},
  }
  # Without attention there are no heads, and of stages that differ there is no one depth.
  mistakes = {message: sizes for message, sizes in mistakes.items() if set(sizes) <= set(sizes_taken)}
  for message, sizes in mistakes.items():
    with pytest.raises(UserError, match=message) as error:
      zoo.build(family, **{**TINY[family], **sizes})
    assert str(error.value).startswith(f"{family}: ") and "\n" not in str(error.value)
