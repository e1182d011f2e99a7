import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.filled import filled
from tests.models.test_families import TINY
from zoo.config.families import variants
from zoo.generate import decode_step, prefill
from zoo.generate.steps import encodes, with_caches_for

MIXED = dict(window=3, pattern=["local", "global"], num_kv_heads=1)
BUCKETS = dict(head_dim=5, num_buckets=6, max_distance=5)
# Sizes that take other paths in generation, besides those of tests/models.
SIZES = {
  "llama": dict(qk_norm=True, **MIXED),
  "gemma": dict(attention_cap=5.0, cap=9.0, **MIXED),
  "t5": BUCKETS,
  "umt5": BUCKETS,
  "marian": dict(decoder_vocab_size=19),
  # One LSH chunk: a token attends to all earlier ones, as in generation.
  "reformer": dict(axial_shape=[8, 5], axial_dims=[2, 4], lsh_chunk=12, local_chunk=4),
  "vision_encoder_decoder": dict(decoder={**TINY["vision_encoder_decoder"]["decoder"], "max_length": 40}),
  "transformer_xl": dict(memory_length=12),  # With shorter chunks, generation attends to fewer tokens than a full pass.
}


def model_of(family):
  longer = {"max_length": 40} if "max_length" in TINY[family] else {}
  return zoo.build(family, **{**TINY[family], **longer, **SIZES.get(family, {})})


DECODE = [family for family in TINY if model_of(family).decodes]
SOURCE = jax.random.randint(jax.random.key(0), (2, 7), 0, 23)
SOURCES = {
  "whisper": jax.random.normal(jax.random.key(1), (2, 13, 5)),
  "vision_encoder_decoder": jax.random.normal(jax.random.key(1), (2, 6, 6, 3)),
}
TEXT = jax.random.randint(jax.random.key(2), (2, 12), 0, 19)
VALID = jnp.array([[True] * 7, [True] * 5 + [False] * 2])


def test_a_family_decodes_in_tiny_sizes_as_in_published_ones():
  published = {family: next(iter(variants(family)), None) for family in TINY}
  assert DECODE == [family for family, variant in published.items() if variant and zoo.build(family, variant).decodes]


@pytest.mark.parametrize("family", DECODE)
def test_cached_decoding_equals_the_full_pass(family):
  model = model_of(family)
  params = filled(model, *model.example(), seed=1)
  source = SOURCES.get(family, SOURCE)
  valid = None if source.ndim == 4 else VALID  # Nothing of an image is padding.
  masks = {} if valid is None else {"valid": valid}

  @jax.jit
  def uncached(params):
    if encodes(model):
      return model.apply({"params": params}, source, TEXT, **masks)["logits"]
    return model.apply({"params": params}, TEXT)

  @jax.jit
  def cached(params):
    keeps = with_caches_for(model, 12)
    if encodes(model):
      first, positions, state = prefill(keeps, params, source, valid, 7, decoder_tokens=TEXT[:, :5])
    else:
      first, positions, state = prefill(keeps, params, TEXT[:, :5], None, 7)

    def step(carry, token):
      state, positions = carry
      logits, state = decode_step(keeps, params, state, token, positions)
      return (state, positions + 1), logits

    _, rest = jax.lax.scan(step, (state, positions), TEXT[:, 5:].T)
    return jnp.concatenate([first[:, None], rest.swapaxes(0, 1)], axis=1)

  wanted = uncached(params)[:, 4:]
  np.testing.assert_allclose(cached(params), wanted, atol=1e-5 * abs(wanted).max())
