"""Users' modules and models that contain old ones as submodules."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization

from tests.compat.cases import BERT, TEXT, VISION, randomised, text_inputs
from zoo import compat
from zoo.tree import flatten

IMAGES = np.random.default_rng(3).normal(size=(2, 12, 12, 3)).astype(np.float32)


class Checker(nn.Module):
  """Built like diffusers' safety checkers: an old module and a parameter of its own."""

  config: compat.Config

  def setup(self):
    self.vision_model = compat.FlaxCLIPVisionModule(self.config)
    self.judge = nn.Dense(2)
    self.concepts = self.param("concepts", nn.initializers.ones, (3,))

  def __call__(self, images):
    return self.judge(self.vision_model(images)[1]) + self.concepts.sum()


class FlaxChecker(compat.FlaxPreTrainedModel):
  module_class = Checker
  main_input_name = "images"

  def __init__(self, config, input_shape=(1, 12, 12, 3), seed=0, dtype=jnp.float32, _do_init=True):
    super().__init__(config, Checker(config), input_shape, seed, dtype, _do_init)

  def init_weights(self, rng, input_shape, params=None):
    fresh = self.module.init(rng, jnp.zeros(input_shape))["params"]
    return fresh if params is None else {**fresh, **params}

  def __call__(self, images, params=None):
    return self.module.apply({"params": self.params if params is None else params}, images)


def test_an_old_module_is_a_part_of_a_linen_module():
  module = Checker(compat.Config(**VISION))
  shapes = jax.eval_shape(module.init, jax.random.key(0), IMAGES)["params"]
  alone = compat.FlaxCLIPVisionModel(VISION, _do_init=False)
  assert flatten(shapes["vision_model"]).keys() == flatten(alone.params_shape_tree).keys()
  params = randomised(shapes)
  pooled = np.asarray(alone(IMAGES.transpose(0, 3, 1, 2), params["vision_model"]).pooler_output)
  want = pooled @ params["judge"]["kernel"] + params["judge"]["bias"] + params["concepts"].sum()
  np.testing.assert_allclose(module.apply({"params": params}, IMAGES), want, atol=1e-5)
  gradient = jax.jit(jax.grad(lambda params: module.apply({"params": params}, IMAGES).sum()))(params)
  assert jax.tree.map(jnp.shape, gradient) == jax.tree.map(jnp.shape, params)
  assert abs(gradient["vision_model"]["vision_model"]["embeddings"]["class_embedding"]).max() > 0


def test_a_model_of_ones_own_is_saved_and_loaded(tmp_path):
  model = FlaxChecker(compat.Config(**VISION), seed=3)
  model.save_pretrained(tmp_path)
  again = FlaxChecker.from_pretrained(tmp_path)
  jax.tree.map(np.testing.assert_array_equal, again.params, model.params)
  np.testing.assert_array_equal(again(IMAGES), model(IMAGES))
  assert again.config.hidden_size == VISION["hidden_size"] and again.name_or_path == str(tmp_path)

  lacking = {name: branch for name, branch in model.params.items() if name != "judge"}
  (tmp_path / "model.safetensors").unlink()
  (tmp_path / "flax_model.msgpack").write_bytes(serialization.msgpack_serialize(jax.tree.map(np.asarray, lacking)))
  with pytest.warns(UserWarning, match="has no judge/bias, judge/kernel: left out. init_weights"):
    bare, params = FlaxChecker.from_pretrained(tmp_path, _do_init=False)
  assert "judge" not in params and bare.init_weights(bare.key, (1, 12, 12, 3), params)["judge"]["kernel"].shape == (
    10,
    2,
  )
  with pytest.warns(UserWarning, match="initialised at random"):
    jax.tree.map(np.testing.assert_array_equal, FlaxChecker.from_pretrained(tmp_path).params, again.params | {
      "judge": FlaxChecker(compat.Config(**VISION)).params["judge"]})  # fmt: skip
  with pytest.raises(ValueError, match=r"concepts \(3,\) instead of \(5,\)|class_embedding .* instead of"):
    FlaxChecker.from_pretrained(tmp_path, hidden_size=12)
  with pytest.raises(ValueError, match="from_pretrained: .*nonsense"):
    FlaxChecker.from_pretrained(tmp_path, nonsense=1)


def test_a_family_is_called_with_a_module_of_ones_own(tmp_path):
  class Tagger(nn.Module):
    config: compat.Config
    dtype: jnp.dtype = jnp.float32

    def setup(self):
      self.bert = compat.FlaxBertModule(self.config, dtype=self.dtype, add_pooling_layer=False)
      self.tags = nn.Dense(3)

    def __call__(self, input_ids, attention_mask, token_type_ids, position_ids, head_mask, **options):
      return self.tags(self.bert(input_ids, attention_mask, token_type_ids, position_ids, **options)[0])

  class FlaxTagger(compat.FlaxBertPreTrainedModel):
    module_class = Tagger

  base = compat.FlaxBertModel(BERT, _do_init=False)
  params = randomised(base.params_shape_tree)
  base.save_pretrained(tmp_path, params)
  with pytest.warns(UserWarning, match="has no tags/bias, tags/kernel: initialised at random"):
    model = FlaxTagger.from_pretrained(tmp_path, dtype=jnp.float32)
  inputs = text_inputs(2, 8)
  hidden = base(**inputs, params=params)[0]
  np.testing.assert_allclose(model(**inputs), hidden @ model.params["tags"]["kernel"], atol=1e-5)


def test_a_model_without_a_pooler_lacks_it_everywhere(tmp_path):
  model = compat.FlaxBertModel(BERT, _do_init=False, add_pooling_layer=False)
  assert "pooler" not in model.params_shape_tree
  params = randomised(model.params_shape_tree)
  out = model(**text_inputs(2, 8), params=params)
  assert out.pooler_output is None and list(out) == ["last_hidden_state"]
  model.save_pretrained(tmp_path, params)
  again = compat.FlaxBertModel.from_pretrained(tmp_path, add_pooling_layer=False)
  jax.tree.map(np.testing.assert_array_equal, again.params, params)
  with pytest.warns(UserWarning, match="has no pooler.dense.bias, pooler.dense.weight: initialised at random"):
    whole = compat.FlaxBertModel.from_pretrained(tmp_path)
  np.testing.assert_allclose(whole(**text_inputs(2, 8))[0], out[0], atol=1e-6)
  with pytest.raises(ValueError, match="FlaxCLIPTextModel: add_pooling_layer=False is not an argument"):
    compat.FlaxCLIPTextModel(TEXT, add_pooling_layer=False)
