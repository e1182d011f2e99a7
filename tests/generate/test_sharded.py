import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.filled import filled
from zoo.sharding import make_mesh, shardings

TOWER = dict(vocab_size=24, dim=8, depth=1, num_heads=4)
MODELS = {"gpt": zoo.build("gpt", **TOWER, max_length=40), "t5": zoo.build("t5", **TOWER)}
TOKENS = jax.random.randint(jax.random.key(0), (4, 7), 0, 24)


@pytest.mark.parametrize("family, strategy, beams", [("gpt", "fsdp+tensor", 1), ("t5", "tensor", 2)])
def test_a_sharded_model_writes_the_same(family, strategy, beams):
  model = MODELS[family]
  params = filled(model, *model.example(), seed=1)
  mesh = make_mesh({"data": 2, "model": 4})
  options = dict(max_new_tokens=9, num_beams=beams, return_scores=True)
  wanted, scores = zoo.generate(model, params, TOKENS, **options)
  placed = jax.device_put(params, shardings(params, strategy, mesh))
  assert any(not array.sharding.is_fully_replicated for array in jax.tree.leaves(placed))
  tokens = jax.device_put(TOKENS, jax.NamedSharding(mesh, jax.P("data")))
  sequences, near = zoo.generate(model, placed, tokens, **options)
  np.testing.assert_array_equal(sequences, wanted)
  np.testing.assert_allclose(near, scores, atol=1e-4)
  assert len(jnp.unique(wanted)) > 2
