import jax
import numpy as np
from flax import nnx

import zoo
from tests.hub_folder import published_bert


def test_loaded_weights_are_used_from_nnx(tmp_path):
  published_bert(tmp_path, head=None)
  model, params = zoo.load(tmp_path)
  tokens = np.array([[1, 2, 3, 4, 5]], np.int32)
  bridged = nnx.bridge.ToNNX(model, nnx.Rngs(0)).lazy_init(tokens)
  for path, variable in nnx.to_flat_state(nnx.state(bridged, nnx.Param)):
    leaf = params
    for name in path:
      leaf = leaf[name]
    variable.set_value(leaf) if hasattr(variable, "set_value") else setattr(variable, "value", leaf)
  want = jax.jit(lambda: model.apply({"params": params}, tokens)["hidden"])()
  np.testing.assert_allclose(bridged(tokens)["hidden"], want, rtol=1e-5, atol=1e-6)
  assert jax.tree.leaves(nnx.state(bridged, nnx.Param))
