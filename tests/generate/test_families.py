import importlib
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
import zoo.models
from tests.filled import filled
from zoo.generate import decode_step, prefill
from zoo.generate.steps import encodes, with_caches_for

TOWER = dict(vocab_size=23, dim=8, depth=2, num_heads=2)
MIXED = dict(window=3, pattern=["local", "global"], num_kv_heads=1)
SIZES = {
  "gpt": dict(max_length=40),
  "openai_gpt": dict(max_length=40),
  "llama": dict(max_length=40, mlp_dim=7, qk_norm=True, **MIXED),
  "gemma": dict(max_length=40, mlp_dim=7, attention_cap=5.0, cap=9.0, sandwich=True, **MIXED),
  "mixtral": dict(max_length=40, mlp_dim=7, num_experts=3, top_k=2),
  "t5": dict(head_dim=5, num_buckets=6, max_distance=5),
  "umt5": dict(head_dim=5, num_buckets=6, max_distance=5),
  "bart": dict(max_length=40),
  "marian": dict(max_length=40, decoder_vocab_size=19),
  "transformer": {},
  "whisper": dict(source_length=7, max_length=40, mels=5),
}
SOURCE = jax.random.randint(jax.random.key(0), (2, 7), 0, 23)
FEATURES = jax.random.normal(jax.random.key(1), (2, 13, 5))
TEXT = jax.random.randint(jax.random.key(2), (2, 12), 0, 19)
VALID = jnp.array([[True] * 7, [True] * 5 + [False] * 2])


def test_every_family_that_decodes_is_here():
  modules = (importlib.import_module(f"zoo.models.{part.name}") for part in pkgutil.iter_modules(zoo.models.__path__))
  families = {module.__name__.rpartition(".")[2]: module for module in modules if hasattr(module, "VARIANTS")}
  decodes = {name for name, module in families.items() if zoo.build(name, next(iter(module.VARIANTS))).decodes}
  assert decodes == set(SIZES)


@pytest.mark.parametrize("family", SIZES)
def test_cached_decoding_equals_the_full_pass(family):
  model = zoo.build(family, **TOWER, **SIZES[family])
  params = filled(model, *model.example(), seed=1)
  source = FEATURES if family == "whisper" else SOURCE

  @jax.jit
  def uncached(params):
    if encodes(model):
      return model.apply({"params": params}, source, TEXT, valid=VALID)["logits"]
    return model.apply({"params": params}, TEXT)

  @jax.jit
  def cached(params):
    keeps = with_caches_for(model, 12)
    if encodes(model):
      first, positions, state = prefill(keeps, params, source, VALID, 7, decoder_tokens=TEXT[:, :5])
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
