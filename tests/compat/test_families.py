"""The other families' old classes: they call the zoo's models, decode with a cache as without, and generate."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.compat.cases import BART, DISTILBERT, GPT2, IMAGES, LLAMA, ROBERTA, T5, WHISPER, randomised
from zoo import compat
from zoo.compat.families import FILES, names_in

RNG = np.random.default_rng(5)
TOKENS = RNG.integers(4, 36, (2, 7)).astype(np.int32)
MASK = np.array([[1] * 7, [1] * 5 + [0] * 2])
SOUND = RNG.normal(size=(2, 5, 16)).astype(np.float32)
WINDOW = {**LLAMA, "sliding_window": 3}
FIRST = {"FlaxWhisperForConditionalGeneration": SOUND}


def drawn(name, config):
  model = getattr(compat, name)(config, _do_init=False)
  return model, randomised(model.params_shape_tree)


def test_roberta_counts_positions_from_behind_padding():
  model, params = drawn("FlaxRobertaModel", ROBERTA)
  tokens = np.where(MASK > 0, TOKENS, 1)
  positions = np.where(MASK > 0, np.cumsum(MASK, axis=1) + 1, 1)
  plain = model(tokens, MASK, params=params)
  np.testing.assert_allclose(model(tokens, MASK, position_ids=positions, params=params)[0][0], plain[0][0], atol=1e-6)
  moved = model(tokens, MASK, position_ids=positions + 1, params=params)[0]
  assert plain.pooler_output.shape == (2, 12) and abs(moved[0] - plain[0][0]).max() > 0.01


def test_images_are_classified_channels_first(tmp_path):
  images = RNG.normal(size=(2, 3, 12, 12)).astype(np.float32)
  model, params = drawn("FlaxViTForImageClassification", IMAGES)
  model.save_pretrained(tmp_path, params)
  ours, ours_params = zoo.load(tmp_path)
  want = ours.apply({"params": ours_params}, images.transpose(0, 2, 3, 1))["logits"]
  np.testing.assert_allclose(model(images, params).logits, want, atol=1e-5)
  with pytest.warns(UserWarning, match="pooler.dense.weight: initialised at random"):
    body = compat.FlaxViTModel.from_pretrained(tmp_path)
  np.testing.assert_array_equal(body.params["layernorm"]["scale"], params["vit"]["layernorm"]["scale"])


def test_texts_have_no_token_types_in_distilbert():
  model, params = drawn("FlaxDistilBertForMaskedLM", DISTILBERT)
  out = model(TOKENS, MASK, params=params, output_attentions=True)
  assert out.logits.shape == (2, 7, 37) and [a.shape for a in out.attentions] == [(2, 3, 7, 7)]


@pytest.mark.parametrize("name, config", {"FlaxGPT2LMHeadModel": GPT2, "FlaxLlamaForCausalLM": LLAMA}.items())
def test_a_text_goes_on_in_a_cache_as_without_one(name, config):
  model, params = drawn(name, config)
  positions = np.array([[0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 0, 1, 2]])
  whole = model(TOKENS, position_ids=positions, params=params).logits
  cache, room = model.init_cache(2, 11), np.ones((2, 11), np.int32)
  first = model(TOKENS[:, :5], room, positions[:, :5], params=params, past_key_values=cache)
  last = model(TOKENS[:, 5:], room, positions[:, 5:], params=params, past_key_values=first.past_key_values)
  np.testing.assert_allclose(first.logits, whole[:, :5], atol=1e-5)
  np.testing.assert_allclose(last.logits, whole[:, 5:], atol=1e-5)
  assert jax.tree.map(jnp.shape, last.past_key_values) == jax.tree.map(jnp.shape, cache)


@pytest.mark.parametrize("name, config, back", [("FlaxGPT2Model", GPT2, 7), ("FlaxMistralModel", WINDOW, 3)])
def test_positions_that_count_from_0_again_say_nothing_of_who_sees_whom(name, config, back):
  model, params = drawn(name, config)
  positions, watched = np.array([[0, 1, 2, 3, 0, 1, 2]]), dict(params=params, output_attentions=True)
  distances = np.arange(7)[:, None] - np.arange(7)
  shown = (distances >= 0) & (distances < back)
  weights = model(TOKENS, None, positions, **watched).attentions[0]
  np.testing.assert_array_equal(weights > 0, np.broadcast_to(shown, (2, 3, 7, 7)))
  cache = model(
    TOKENS[:, :5], None, positions[:, :5], **watched, past_key_values=model.init_cache(2, 7)
  ).past_key_values
  rest = model(TOKENS[:, 5:], None, positions[:, 5:], **watched, past_key_values=cache).attentions[0]
  np.testing.assert_allclose(rest, weights[:, :, 5:], atol=1e-6)


PAIRS = {
  "FlaxT5ForConditionalGeneration": T5,
  "FlaxBartForConditionalGeneration": BART,
  "FlaxWhisperForConditionalGeneration": WHISPER,
}


@pytest.mark.parametrize("name", PAIRS)
def test_an_answer_is_encoded_and_decoded_by_parts_as_at_once(name):
  model, params = drawn(name, PAIRS[name])
  source = FIRST.get(name, TOKENS)
  mask = {} if name in FIRST else {"attention_mask": MASK}
  whole = model(source, decoder_input_ids=TOKENS, params=params, output_hidden_states=True, **mask)
  encoded = model.encode(source, params=params, output_hidden_states=True, **mask)
  np.testing.assert_allclose(encoded[0], whole.encoder_last_hidden_state, atol=1e-5)
  assert len(encoded.hidden_states) == len(whole.encoder_hidden_states) == len(whole.decoder_hidden_states)
  np.testing.assert_allclose(encoded.hidden_states[-1], encoded[0], atol=1e-6)
  order = ["logits", "decoder_hidden_states", "encoder_last_hidden_state", "encoder_hidden_states"]
  assert list(whole) == order
  mask = {f"encoder_{key}": value for key, value in mask.items()}
  cache = model.init_cache(2, 9, encoded)
  logits = []
  for columns in (slice(0, 4), slice(4, 5), slice(5, 7)):
    out = model.decode(TOKENS[:, columns], encoded, past_key_values=cache, params=params, **mask)
    cache, logits = out.past_key_values, [*logits, out.logits]
  np.testing.assert_allclose(jnp.concatenate(logits, axis=1), whole.logits, atol=1e-5)
  with pytest.raises(ValueError, match="decoder_input_ids are missing"):
    model.module.apply({"params": params}, source)


def test_answers_begin_with_padding_where_the_start_is_beyond_the_vocabulary():
  model, params = drawn("FlaxMarianMTModel", {**BART, "decoder_start_token_id": 58100, "pad_token_id": 3})
  with pytest.warns(UserWarning, match="decoder_start_token_id is 58100, the model's tokens are 0 to 36"):
    sequences = model.generate(TOKENS, max_length=4, params=params).sequences
  begun = np.full((2, 1), 3, np.int32)
  np.testing.assert_array_equal(
    sequences, model.generate(TOKENS, decoder_input_ids=begun, max_length=4, params=params).sequences
  )


@pytest.mark.parametrize("name", ["FlaxMarianModel", "FlaxBartForQuestionAnswering", "FlaxWhisperModel"])
def test_a_default_start_beyond_the_vocabulary_matters_only_where_it_is_used(name):
  model = getattr(compat, name)({**(WHISPER if "Whisper" in name else BART), "decoder_start_token_id": 58100})
  hidden = model(SOUND if "Whisper" in name else TOKENS, decoder_input_ids=TOKENS)[0]
  assert hidden.shape[:2] == TOKENS.shape and np.isfinite(hidden).all()


@pytest.mark.parametrize("name", ["FlaxGPT2LMHeadModel", "FlaxT5ForConditionalGeneration"])
def test_texts_are_generated_as_the_likeliest_token_is_chosen_by_hand(name, tmp_path):
  config = {"FlaxGPT2LMHeadModel": GPT2, **PAIRS}[name]
  model, params = drawn(name, {**config, "eos_token_id": 50256})  # As defaults of configs are: a token beyond the end.
  sequences = model.generate(TOKENS, attention_mask=np.ones_like(MASK), max_length=10, params=params).sequences
  answers = name == "FlaxT5ForConditionalGeneration"
  text = np.zeros((2, 1), np.int32) if answers else TOKENS
  while text.shape[1] < 10:
    inputs = dict(input_ids=TOKENS, decoder_input_ids=text) if answers else dict(input_ids=text)
    text = np.concatenate([text, model(**inputs, params=params).logits[:, -1:].argmax(-1)], axis=1)
  np.testing.assert_array_equal(sequences, text)
  traced = jax.jit(lambda tokens, params: model.generate(tokens, max_length=10, params=params).sequences)
  np.testing.assert_array_equal(traced(TOKENS, params), text)
  several = dict(max_length=9, num_beams=2, num_return_sequences=2, forced_bos_token_id=None if answers else 8)
  best = model.generate(TOKENS, **several, params=params)
  assert best.sequences.shape == (4, 9) and best.scores.shape == (4,)
  traced = jax.jit(lambda tokens, params: model.generate(tokens, **several, params=params).sequences)
  np.testing.assert_array_equal(traced(TOKENS, params), best.sequences)

  model.generation_config.max_length = 8
  model.save_pretrained(tmp_path, params)
  assert json.loads((tmp_path / "generation_config.json").read_text())["max_length"] == 8
  again = type(model).from_pretrained(tmp_path)
  assert again.can_generate() and again.generate(TOKENS).sequences.shape == (2, 8)
  drawn_once = again.generate(TOKENS, do_sample=True, prng_key=jax.random.PRNGKey(3)).sequences
  np.testing.assert_array_equal(
    drawn_once, again.generate(TOKENS, do_sample=True, prng_key=jax.random.PRNGKey(3)).sequences
  )
  with pytest.raises(ValueError, match="logits_processor is not supported"):
    again.generate(TOKENS, logits_processor=[1])
  with pytest.raises(ValueError, match="do_samples is not an argument. Did you mean 'do_sample'"):
    again.generate(TOKENS, do_samples=True)


def test_an_array_that_several_of_ours_lie_in_is_random_as_a_whole(tmp_path):
  model, params = drawn("FlaxGPT2LMHeadModel", GPT2)
  model.save_pretrained(tmp_path, params)
  with pytest.warns(UserWarning, match="the shapes did not match: .*c_attn.weight"):
    wide = compat.FlaxGPT2LMHeadModel.from_pretrained(tmp_path, n_embd=15, n_inner=48, ignore_mismatched_sizes=True)
  kernel = np.asarray(wide.params["transformer"]["h"]["0"]["attn"]["c_attn"]["kernel"])
  assert kernel.shape == (45, 15) and abs(kernel).min(axis=1).max() > 0 and (kernel.std(axis=1) > 0).all()


def test_every_file_of_transformers_has_names():
  for file in FILES:
    assert any(name.endswith("Model") for name in names_in(file)), file


def test_auto_classes_choose_by_what_a_config_says(tmp_path):
  model, params = drawn("FlaxDistilBertForMaskedLM", DISTILBERT)
  model.save_pretrained(tmp_path, params)
  sequences, _ = compat.FlaxAutoModelForMaskedLM.from_pretrained(tmp_path, _do_init=False)
  assert type(sequences) is compat.FlaxDistilBertForMaskedLM
  config = {"model_type": "gpt2", **GPT2}
  assert type(compat.FlaxAutoModelForCausalLM.from_config(config, _do_init=False)) is compat.FlaxGPT2LMHeadModel
  assert compat.FlaxAutoModelForSpeechSeq2Seq.CLASSES == {"whisper": compat.FlaxWhisperForConditionalGeneration}
  assert compat.FlaxAutoModelForSeq2SeqLM.CLASSES["marian"] is compat.FlaxMarianMTModel
  with pytest.raises(ValueError, match="has no model_type 'distilbert'. It has: bart, bert, gemma, gpt2"):
    compat.FlaxAutoModelForCausalLM.from_pretrained(tmp_path)
  with pytest.raises(ValueError, match="by from_pretrained.folder. and from_config"):
    compat.FlaxAutoModel()
