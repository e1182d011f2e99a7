import jax.numpy as jnp
import pytest
import transformers

import zoo
from tests.convert.parity import Case, check, one_deep, reference, to_torch
from tests.convert.seq2seq import BARE, ENCODED, LM
from tests.hub_folder import random_params
from zoo.errors import UserError

SMALL = dict(
  vocab_size=37, num_mel_bins=7, max_source_positions=13, max_target_positions=17, d_model=12, encoder_layers=2,
  decoder_layers=2, encoder_attention_heads=3, decoder_attention_heads=3, encoder_ffn_dim=30, decoder_ffn_dim=30,
  pad_token_id=0, decoder_start_token_id=1, classifier_proj_size=9,
)  # fmt: skip
ODD = dict(
  vocab_size=41, num_mel_bins=5, max_source_positions=11, max_target_positions=19, d_model=30, encoder_layers=3,
  decoder_layers=1, encoder_attention_heads=3, decoder_attention_heads=5, encoder_ffn_dim=17, decoder_ffn_dim=23,
  activation_function="relu", scale_embedding=True, pad_token_id=40, decoder_start_token_id=7,
)  # fmt: skip
HEADS = {
  "WhisperForConditionalGeneration": LM | ENCODED,
  "WhisperModel": BARE,
  "WhisperForAudioClassification": LM,
}


def case(cls, name, config):
  """Texts of two lengths: sound has no padding in the reference."""
  shape = (2, 2 * config["max_source_positions"], config["num_mel_bins"])
  decodes = cls != "WhisperForAudioClassification"

  def inputs(rng):
    valid = rng.random((2, 11)) < 0.7
    valid[:, 0] = True
    return rng.normal(size=shape), rng.integers(2, 36, (2, 11)), valid

  def ours(rng):
    features, tokens, valid = inputs(rng)
    features = jnp.asarray(features, jnp.float32)
    return ((features, jnp.asarray(tokens)), {"decoder_valid": jnp.asarray(valid)}) if decodes else ((features,), {})

  def theirs(rng):
    features, tokens, valid = inputs(rng)
    arguments = {"input_features": to_torch(features.transpose(0, 2, 1))}
    more = {"decoder_input_ids": to_torch(tokens), "decoder_attention_mask": to_torch(valid)}
    return arguments | (more if decodes else {})

  layers = {"encoder": "encoder_", "decoder": "decoder_"} if decodes else {"encoder": ""}
  weights = [(rf"{t}/stack/layer_(\d+)/self_attention", f"{front}attentions") for t, front in layers.items()]
  weights += [(r"decoder/stack/layer_(\d+)/cross_attention", "cross_attentions")] * decodes
  return Case(
    f"{cls}-{name}", cls, "WhisperConfig", config, ours, theirs, HEADS[cls], weights=tuple(weights),
    hidden=tuple((rf"{t}/stack/layer_(\d+)", f"{front}hidden_states") for t, front in layers.items()),
    last_is_normed=True,
  )  # fmt: skip


CASES = [case(cls, "small", config) for cls, config in one_deep(HEADS, SMALL)]
CASES += [
  case("WhisperForConditionalGeneration", "odd", ODD),
  case("WhisperForAudioClassification", "odd", {**ODD, "num_labels": 5}),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_reference(case, tmp_path):
  check(case, tmp_path)


def test_the_encoder_of_speech_recognition_classifies(tmp_path):
  reference(case("WhisperForConditionalGeneration", "", SMALL)).save_pretrained(tmp_path)
  with pytest.warns(UserWarning, match="has no classify/out/bias, .*: initialised at random"):
    _, params = zoo.load(tmp_path, head="classify")
  assert set(params) == {"stem", "encoder", "classify"}


@pytest.mark.parametrize(
  "option, message",
  [
    ({"use_weighted_layer_sum": True}, "use_weighted_layer_sum is True, which the zoo does not have"),
    ({"activation_function": "tanh"}, "activation_function is 'tanh', which the zoo does not have"),
  ],
)
def test_what_is_not_implemented_is_refused_by_name(option, message, tmp_path):
  reference(case("WhisperForAudioClassification", "", {**SMALL, **option})).save_pretrained(tmp_path)
  with pytest.raises(UserError, match=message):
    zoo.load(tmp_path)


@pytest.mark.parametrize("tokens, eos", [({"eos": 3}, 3), ({"pad": 5}, 5), ({}, None)])
def test_the_reference_stops_where_a_model_of_ours_says(tokens, eos, tmp_path):
  model = zoo.build("whisper", vocab_size=31, source_length=9, max_length=15, dim=12, depth=1, num_heads=3, **tokens)
  zoo.save_hf(tmp_path, model, random_params(model))
  there = transformers.WhisperForConditionalGeneration.from_pretrained(tmp_path)
  stated = there.generation_config
  assert (there.config.eos_token_id, stated.eos_token_id, stated.bos_token_id) == (eos, eos, eos)
  assert (stated.pad_token_id, stated.decoder_start_token_id) == (tokens.get("pad"), 0)
  assert zoo.load(tmp_path)[0].spec["eos"] == eos


def test_a_generation_config_that_is_there_is_left_alone(tmp_path):
  (tmp_path / "generation_config.json").write_text("{}")
  model = zoo.build("whisper", vocab_size=31, source_length=9, max_length=15, dim=12, depth=1, num_heads=3)
  zoo.save_hf(tmp_path, model, random_params(model))
  assert (tmp_path / "generation_config.json").read_text() == "{}"
