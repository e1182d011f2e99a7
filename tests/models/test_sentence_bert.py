import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.filled import filled
from tests.hub_folder import published_bert
from zoo.errors import UserError
from zoo.train.initial import load_into

SIZES = dict(vocab_size=23, max_length=11, dim=6, depth=2, num_heads=3, mlp_dim=7)


def test_what_is_pooled_is_the_mean_over_valid_tokens():
  model = zoo.build("sentence_bert", num_classes=5, **SIZES)
  params = filled(model, *model.example())
  tokens = jnp.array([[4, 5, 6, 7, 0, 0, 0]])
  valid = tokens > 0
  apply = jax.jit(model.apply)
  out, alone = apply({"params": params}, tokens, valid=valid), apply({"params": params}, tokens[:, :4])
  np.testing.assert_allclose(out["pooled"], out["hidden"][:, :4].mean(axis=1), rtol=1e-6, atol=1e-6)
  np.testing.assert_allclose(out["pooled"], alone["pooled"], rtol=1e-5, atol=1e-6)
  kernel, bias = params["classify"]["kernel"], params["classify"]["bias"]
  np.testing.assert_allclose(out["logits"], out["pooled"] @ kernel + bias[None], rtol=1e-5, atol=1e-6)


@pytest.fixture(params=[False, True])
def state(request):
  model = zoo.build("sentence_bert", num_classes=5, scan=request.param, **SIZES)
  params = jax.jit(model.init)(jax.random.key(3), *model.example())["params"]
  return model, {"params": params, "ema": jax.tree.map(lambda x: 2 * x, params), "step": jnp.int32(0)}


def test_training_starts_from_published_weights_with_a_head_of_its_own(state, tmp_path):
  model, begun = state
  published, params = published_bert(tmp_path, head=None)
  notes = []
  loaded = load_into(tmp_path, begun, model, note=notes.append)
  assert notes == [
    "classify/bias, classify/kernel start as initialised.", f"pooler/bias, pooler/kernel of {tmp_path} are not used."
  ]  # fmt: skip
  for name, factor in (("params", 1), ("ema", 2)):
    kernel = factor * begun["params"]["classify"]["kernel"]
    np.testing.assert_array_equal(loaded[name]["classify"]["kernel"], kernel)
  tokens = jnp.array([[4, 5, 6, 7]])
  want = jax.jit(published.apply)({"params": params}, tokens)["hidden"]
  got = jax.jit(model.apply)({"params": loaded["params"]}, tokens)["hidden"]
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_what_is_to_start_anew_does(state, tmp_path):
  model, begun = state
  published_bert(tmp_path, head=None)
  loaded = load_into({"source": str(tmp_path), "fresh": ["segments/.*"]}, begun, model)
  old, new = (tree["params"]["segments"]["embedding"] for tree in (begun, loaded))
  np.testing.assert_array_equal(old, new)
  assert (loaded["params"]["embed"]["embedding"] != begun["params"]["embed"]["embedding"]).all()


def test_weights_of_another_model_are_refused(state, tmp_path):
  model, begun = state
  published_bert(tmp_path / "deeper", head=None, depth=3)
  with pytest.raises(UserError, match="holds another model than the one to train: 16 extra .stack/layer_2"):
    load_into(tmp_path / "deeper", begun, model)
  published_bert(tmp_path / "other", head=None, activation="relu")
  with pytest.raises(UserError, match="was trained with activation 'relu', the model to train has 'gelu'"):
    load_into(tmp_path / "other", begun, model)
  with pytest.raises(UserError, match="init is {'sauce': 'x'}. It must be a folder, or have a 'source'"):
    load_into({"sauce": "x"}, begun, model)
  with pytest.raises(UserError, match="init.fresh: 'had/.*' matches no parameter. The nearest: "):
    load_into({"source": str(tmp_path / "other"), "fresh": ["had/.*"]}, begun, model)
