import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization
from flax.core import freeze

import zoo
from tests.compat.cases import BERT, CLIP, COMPOSED, CONFIGS, OLD_NAMES, T5, TEXT, VISION, randomised, text_inputs
from zoo import compat
from zoo.compat.config import Config
from zoo.tree import flatten

IMAGES = np.random.default_rng(3).normal(size=(3, 3, 12, 12)).astype(np.float32)


def without(cls, config, **options):
  """A model that keeps no parameters, and parameters for it."""
  model = cls(config, _do_init=False, **options)
  return model, randomised(model.params_shape_tree)


@pytest.fixture
def clip_folder(tmp_path):
  """A CLIP in the hub's layout, and its parameters under the old names."""
  model, params = without(compat.FlaxCLIPModel, CLIP)
  model.save_pretrained(tmp_path / "clip", params)
  return tmp_path / "clip", params


@pytest.mark.parametrize("name", [*CONFIGS, *COMPOSED])
def test_parameters_bear_the_old_names(name):
  config = (CONFIGS | COMPOSED)[name]
  shapes = getattr(compat, name.partition("-")[0])(config, _do_init=False).params_shape_tree
  assert {path: list(leaf.shape) for path, leaf in flatten(shapes).items()} == OLD_NAMES[name]


def test_module_apply_is_the_model_of_the_zoo(tmp_path):
  model, params = without(compat.FlaxCLIPTextModel, TEXT)
  model.save_pretrained(tmp_path, params)
  ours, ours_params = zoo.load(tmp_path)
  inputs = text_inputs(2, 8)
  positions = np.broadcast_to(np.arange(8), (2, 8))

  def old(params):
    return model.module.apply({"params": params}, inputs["input_ids"], inputs["attention_mask"], positions)

  want = ours.apply({"params": ours_params}, jnp.asarray(inputs["input_ids"]), valid=inputs["attention_mask"] > 0)
  got = jax.jit(old)(params)
  np.testing.assert_allclose(got[0], want["hidden"], atol=1e-6)
  np.testing.assert_allclose(got.pooler_output, want["pooled"], atol=1e-6)
  np.testing.assert_allclose(old(freeze(params))[1], got[1], atol=1e-6)
  gradient = jax.jit(jax.grad(lambda params: old(params)[1].sum()))(params)
  assert jax.tree.map(jnp.shape, gradient) == jax.tree.map(jnp.shape, params)
  assert all(abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient["text_model"]["final_layer_norm"]))


def test_outputs_are_read_by_name_by_place_and_by_key():
  model, params = without(compat.FlaxBertModel, BERT)
  out = model(**text_inputs(2, 8), params=params, output_hidden_states=True)
  assert list(out.keys()) == ["last_hidden_state", "pooler_output", "hidden_states"] and out.attentions is None
  assert out[0] is out.last_hidden_state is out["last_hidden_state"] and len(out[:2]) == 2
  np.testing.assert_array_equal(out.hidden_states[-1], out[0])
  assert len(out.to_tuple()) == 3 and len(jax.tree.leaves(out)) == 5
  assert isinstance(model(**text_inputs(2, 8), params=params, return_dict=False), tuple)
  with pytest.raises(AttributeError, match="has no logits. It has: last_hidden_state, pooler_output, hidden_states"):
    out.logits  # noqa: B018


def test_a_config_decides_what_is_returned():
  model, params = without(compat.FlaxT5EncoderModel, {**T5, "output_attentions": True, "return_dict": False})
  hidden, attentions = model(**text_inputs(2, 8), params=params)
  assert hidden.shape == (2, 8, 12) and [a.shape for a in attentions] == [(2, 3, 8, 8)] * 2
  config = model.config
  assert (config.hidden_size, config.num_hidden_layers, config.d_ff, config.use_return_dict) == (12, 2, 30, False)
  assert compat.FlaxCLIPModel(CLIP, _do_init=False).config.vision_config.patch_size == 4
  with pytest.raises(AttributeError, match="no entry hidden"):
    config.hidden  # noqa: B018


def test_models_keep_parameters_unless_they_are_told_not_to(tmp_path):
  model = compat.FlaxBertForSequenceClassification({**BERT, "num_labels": 5}, seed=1, input_shape=(2, 8))
  assert model(**text_inputs(2, 8)).logits.shape == (2, 5) and model.config.num_labels == 5
  fresh = model.init_weights(jax.random.PRNGKey(2), (1, 1))
  kept = model.init_weights(jax.random.PRNGKey(2), (1, 1), {"classifier": model.params["classifier"]})
  jax.tree.map(np.testing.assert_array_equal, kept, {**fresh, "classifier": model.params["classifier"]})
  with pytest.raises(
    ValueError, match="params lack 2 of FlaxBertForSequenceClassification: classifier/bias, classifier/kernel"
  ):
    model.params = {"bert": model.params["bert"]}
  model.save_pretrained(tmp_path)

  bare, params = compat.FlaxBertForSequenceClassification.from_pretrained(tmp_path, _do_init=False)
  jax.tree.map(np.testing.assert_array_equal, params, model.params)
  with pytest.raises(ValueError, match="keeps no params .*_do_init=False"):
    bare.params  # noqa: B018
  with pytest.raises(ValueError, match="keeps no params"):
    bare.params = params


def test_labels_keep_their_names(tmp_path):
  config = {**BERT, "id2label": {"0": "bad", "1": "fair", "2": "good"}, "label2id": {"bad": 0, "fair": 1, "good": 2}}
  model, params = without(compat.FlaxBertForSequenceClassification, config)
  model.save_pretrained(tmp_path, params)
  assert json.loads((tmp_path / "config.json").read_text())["id2label"]["2"] == "good"
  assert zoo.load(tmp_path)[0].spec["num_classes"] == 3
  with pytest.raises(ValueError, match="classifier"):
    compat.FlaxBertForSequenceClassification.from_pretrained(tmp_path, num_labels=4)
  with pytest.warns(UserWarning, match="has no qa_outputs.bias, qa_outputs.weight: initialised at random"):
    compat.FlaxBertForQuestionAnswering.from_pretrained(tmp_path)


def test_a_tower_is_read_out_of_a_whole_clip(clip_folder):
  folder, params = clip_folder
  text = compat.FlaxCLIPTextModelWithProjection.from_pretrained(folder, from_pt=True)
  assert text.config.projection_dim == 7 and text.config.model_type == "clip_text_model"
  whole = compat.FlaxCLIPModel.from_pretrained(folder)
  inputs = text_inputs(2, 8)
  np.testing.assert_allclose(text(**inputs).text_embeds, whole.get_text_features(**inputs), atol=1e-6)
  vision = compat.FlaxCLIPVisionModel.from_pretrained(folder)
  jax.tree.map(np.testing.assert_array_equal, vision.params, {"vision_model": params["vision_model"]})
  features = vision(IMAGES).pooler_output @ params["visual_projection"]["kernel"]
  np.testing.assert_allclose(features, whole.get_image_features(IMAGES), atol=1e-5)


def test_towers_have_their_hidden_states(clip_folder):
  model = compat.FlaxCLIPModel.from_pretrained(clip_folder[0])
  out = model(**text_inputs(2, 8), pixel_values=IMAGES, output_hidden_states=True)
  assert list(out)[-2:] == ["text_model_output", "vision_model_output"] and out.logits_per_image.shape == (3, 2)
  assert [len(tower.hidden_states) for tower in (out.text_model_output, out.vision_model_output)] == [3, 3]
  assert isinstance(out.to_tuple()[-1], tuple)


def test_parameters_are_of_the_dtype_of_the_files_and_computed_in_another(tmp_path):
  model, params = without(compat.FlaxT5EncoderModel, T5)
  model.save_pretrained(tmp_path / "text_encoder_2", model.to_bf16(params))
  loaded = compat.FlaxT5EncoderModel.from_pretrained(tmp_path, subfolder="text_encoder_2")
  assert {leaf.dtype for leaf in jax.tree.leaves(loaded.params)} == {jnp.dtype("bfloat16")}
  inputs = text_inputs(2, 8)
  assert loaded(**inputs)[0].dtype == jnp.float32
  half = compat.FlaxT5EncoderModel.from_pretrained(tmp_path, jnp.bfloat16, subfolder="text_encoder_2")
  assert half.dtype == jnp.bfloat16 and half(**inputs)[0].dtype == jnp.bfloat16
  np.testing.assert_allclose(half(**inputs)[0].astype(jnp.float32), loaded(**inputs)[0], atol=0.2)
  mask = jax.tree.map(lambda leaf: leaf.ndim > 1, params)
  cast = half.to_fp32(half.params, mask)
  assert cast["shared"]["embedding"].dtype == jnp.float32
  assert cast["encoder"]["final_layer_norm"]["weight"].dtype == jnp.bfloat16
  with pytest.raises(ValueError, match="has no subfolder 'text_encoder'. It has: text_encoder_2"):
    compat.FlaxT5EncoderModel.from_pretrained(tmp_path, subfolder="text_encoder")


def test_old_flax_files_are_read_whole_and_in_pieces(tmp_path):
  model, params = without(compat.FlaxT5EncoderModel, T5)
  model.save_pretrained(tmp_path, params)
  (tmp_path / "model.safetensors").unlink()
  pieces = {"flax_model-00001-of-00002.msgpack": "shared", "flax_model-00002-of-00002.msgpack": "encoder"}
  for file, part in pieces.items():
    (tmp_path / file).write_bytes(serialization.msgpack_serialize({part: params[part]}))
  files = {path: file for path in flatten(params) for file, part in pieces.items() if path.startswith(part)}
  (tmp_path / "flax_model.msgpack.index.json").write_text(json.dumps({"weight_map": files}))
  in_pieces = compat.FlaxT5EncoderModel.from_pretrained(tmp_path).params
  (tmp_path / "flax_model.msgpack").write_bytes(serialization.msgpack_serialize(params))
  whole = compat.FlaxT5EncoderModel.from_pretrained(tmp_path).params
  for got in (in_pieces, whole):
    jax.tree.map(np.testing.assert_array_equal, got, params)


def test_dropout_acts_in_training_and_checkpointing_changes_nothing():
  model, params = without(compat.FlaxBertForMaskedLM, {**BERT, "hidden_dropout_prob": 0.5})
  inputs = text_inputs(2, 8)

  def logits(**options):
    return np.asarray(model(**inputs, params=params, **options).logits)

  sure = logits()
  rngs = [jax.random.PRNGKey(seed) for seed in (0, 0, 1)]
  first, again, other = (logits(dropout_rng=rng, train=True) for rng in rngs)
  np.testing.assert_array_equal(first, again)
  assert abs(first - other).max() > 0.01 and abs(first - sure).max() > 0.01
  model.enable_gradient_checkpointing()
  np.testing.assert_allclose(logits(), sure, atol=1e-6)


def test_large_models_are_loaded_where_arrays_go_by_default(clip_folder):
  with jax.default_device(jax.devices()[3]):
    params = compat.FlaxCLIPVisionModel.from_pretrained(clip_folder[0]).params
  assert {device for leaf in jax.tree.leaves(params) for device in leaf.devices()} == {jax.devices()[3]}


REFUSED = {
  "past_key_values": "past_key_values is .*do not have",
  "encoder_hidden_states": "encoder_hidden_states is .*do not have",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_only_decoders_take_is_refused(name):
  model, params = without(compat.FlaxBertModel, BERT)
  with pytest.raises(ValueError, match=REFUSED[name]):
    model(**text_inputs(2, 8), params=params, **{name: np.ones((2, 3))})


def test_what_cannot_be_done_is_refused_in_a_line(clip_folder):
  model, params = without(compat.FlaxT5EncoderModel, T5)
  ids = text_inputs(2, 8)["input_ids"]
  with pytest.raises(ValueError, match=r"attention_mask is \[8\], input_ids are \[2, 8\]"):
    model(ids, np.ones(8), params=params)
  with pytest.raises(ValueError, match="params are not those of this t5: 1 missing .shared/embedding"):
    model(ids, params={"encoder": params["encoder"]})
  with pytest.raises(ValueError, match="push_to_hub is True. Save to a folder"):
    model.save_pretrained("nowhere", params, push_to_hub=True)
  with pytest.raises(ValueError, match="config is 3. It must be a dict"):
    compat.FlaxT5EncoderModel(3)
  for named in (compat.FlaxT5EncoderModel, compat.FlaxAutoModel, Config):
    with pytest.raises(OSError, match="^nowhere does not exist. Name a run's folder"):
      named.from_pretrained("./nowhere")
  with pytest.raises(ValueError, match="model_type is 'clip'. FlaxBertModel reads: bert"):
    compat.FlaxBertModel.from_pretrained(clip_folder[0])
  with pytest.raises(ValueError, match="from_pretrained: nonsense=1 is neither an argument nor an entry of the config"):
    compat.FlaxCLIPModel.from_pretrained(clip_folder[0], nonsense=1)
  with pytest.raises(ValueError, match="which the zoo does not have"):
    compat.FlaxCLIPTextModel({**TEXT, "hidden_act": "sine"})


def test_what_is_ignored_counts_as_if_it_were_not_there(clip_folder, tmp_path):
  model, params = without(compat.FlaxBertModel, BERT)
  model.save_pretrained(tmp_path, params)
  entries = json.loads((tmp_path / "config.json").read_text())
  (tmp_path / "config.json").write_text(json.dumps(entries | {"position_embedding_type": "relative_key"}))
  with pytest.raises(ValueError, match="position_embedding_type is 'relative_key'.*ignore=.'position_embedding_type'"):
    compat.FlaxAutoModel.from_pretrained(tmp_path)
  again = compat.FlaxAutoModel.from_pretrained(tmp_path, ignore=("position_embedding_type",))
  jax.tree.map(np.testing.assert_array_equal, again.params, params)
  assert not hasattr(again.config, "position_embedding_type") or again.config.position_embedding_type == "absolute"
  entries = json.loads((clip_folder[0] / "config.json").read_text())
  entries["text_config"]["use_bfloat16_sums"] = True
  odd = dict(config=entries, ignore=("use_bfloat16_sums",))
  with pytest.raises(ValueError, match="position_embedding_type is 'rel'.*ignore=.'position_embedding_type'"):
    compat.FlaxBertModel.from_pretrained(tmp_path, config={**BERT, "position_embedding_type": "rel"})
  compat.FlaxCLIPTextModel.from_pretrained(clip_folder[0], **odd)
  with pytest.raises(ValueError, match="ignore names 'text_config.vocab', which is not in .*config.json"):
    compat.FlaxCLIPModel.from_pretrained(clip_folder[0], ignore=("text_config.vocab",))


def test_vision_takes_channels_first_and_its_module_channels_last():
  model, params = without(compat.FlaxCLIPVisionModel, VISION)
  direct = model.module.apply({"params": params}, IMAGES.transpose(0, 2, 3, 1), True, False, True)
  np.testing.assert_allclose(model(IMAGES, params).pooler_output, direct.pooler_output, atol=1e-6)
  assert len(direct.hidden_states) == 3


def test_arrays_of_another_size_are_random_if_that_is_asked_for(tmp_path):
  model, params = without(compat.FlaxBertForSequenceClassification, {**BERT, "num_labels": 5})
  model.save_pretrained(tmp_path, params)
  with pytest.raises(
    ValueError,
    match=r"word_embeddings.weight \(37, 12\) is not \(31, 12\).* 2 more differ. With ignore_mismatched_sizes=True",
  ):
    compat.FlaxBertForSequenceClassification.from_pretrained(tmp_path, num_labels=4, vocab_size=31)
  with pytest.warns(UserWarning, match="the shapes did not match: .*word_embeddings.weight.*classifier.bias"):
    other = compat.FlaxBertForSequenceClassification.from_pretrained(
      tmp_path, num_labels=4, vocab_size=31, ignore_mismatched_sizes=True
    )
  assert other.params["classifier"]["kernel"].shape == (12, 4) and other.config.num_labels == 4
  jax.tree.map(np.testing.assert_array_equal, other.params["bert"]["encoder"], params["bert"]["encoder"])


def test_a_tree_that_lacks_an_entry_is_saved_loaded_and_filled(tmp_path):
  model, params = without(compat.FlaxT5EncoderModel, T5)
  lacking = {**params, "encoder": {name: x for name, x in params["encoder"].items() if name != "final_layer_norm"}}
  model.save_pretrained(tmp_path, lacking)
  with pytest.warns(UserWarning, match="has no encoder.final_layer_norm.weight: left out. init_weights"):
    model, loaded = compat.FlaxT5EncoderModel.from_pretrained(tmp_path, _do_init=False)
  jax.tree.map(np.testing.assert_array_equal, loaded, lacking)
  whole = model.init_weights(model.key, model.input_shape, params=freeze(loaded))
  np.testing.assert_array_equal(whole["encoder"]["final_layer_norm"]["weight"], np.ones(12))
  with pytest.warns(UserWarning, match="final_layer_norm.weight: initialised at random"):
    assert "final_layer_norm" in compat.FlaxT5EncoderModel.from_pretrained(tmp_path).params["encoder"]


def test_training_asks_for_shapes_alone():
  model = compat.FlaxCLIPTextModel(TEXT, _do_init=False)
  shapes = model.init_weights(rng=jax.random.PRNGKey(0), input_shape=(1, 8), eval_only=True)
  assert flatten(shapes).keys() == flatten(model.params_shape_tree).keys()
  assert isinstance(jax.tree.leaves(shapes)[0], jax.ShapeDtypeStruct)


def test_classes_say_what_they_are():
  kinds = (compat.FlaxCLIPTextModel, compat.FlaxCLIPVisionModel, compat.FlaxBertForMaskedLM, compat.FlaxT5EncoderModel)
  assert [kind.main_input_name for kind in kinds] == ["input_ids", "pixel_values", "input_ids", "input_ids"]
  assert [kind.base_model_prefix for kind in kinds] == ["", "", "bert", "transformer"]
  assert kinds[2].module_class is compat.FlaxBertForMaskedLMModule and not kinds[2].can_generate()
  assert issubclass(kinds[0], compat.FlaxCLIPTextPreTrainedModel) and issubclass(kinds[0], compat.FlaxPreTrainedModel)
  assert kinds[2].__name__ == "FlaxBertForMaskedLM" and kinds[2].__module__ == "zoo.compat.bert"
