"""Encoder-decoders, streaming, scores and stops: features of `generate` that the reference lacks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.filled import filled
from zoo.errors import UserError
from zoo.generate import prefill, rules, starts
from zoo.generate.steps import with_caches_for
from zoo.layers.stack import stack_layers

TOWER = dict(vocab_size=23, dim=6, depth=2, num_heads=3)
SIZES = {
  "gpt": dict(TOWER, max_length=40),
  "t5": dict(TOWER, decoder_depth=1, head_dim=5, num_buckets=6, max_distance=5),
  "bart": dict(TOWER, max_length=40, decoder_heads=2),
  "whisper": dict(TOWER, source_length=7, max_length=40, mels=5, decoder_depth=1),
}
MODELS = {family: zoo.build(family, **sizes) for family, sizes in SIZES.items()}
PARAMS = {family: filled(model, *model.example(), seed=3) for family, model in MODELS.items()}
ANSWERING = pytest.mark.parametrize("family", ["t5", "bart", "whisper"])
RNG = np.random.default_rng(0)
TOKENS = jax.device_put(RNG.integers(0, 23, (2, 7)))
FEATURES = jax.device_put(RNG.standard_normal((2, 13, 5)))
BEGIN = RNG.integers(0, 23, (2, 3)).astype(np.int32)
VALID = np.array([[True] * 4 + [False] * 3, [True] * 7])


def source(family):
  return FEATURES if family == "whisper" else TOKENS


def answer(family, new=9, **options):
  return np.asarray(zoo.generate(MODELS[family], PARAMS[family], source(family), max_new_tokens=new, **options))


def recomputed(family, begin, new, valid):
  """Greedy, by a full pass for every token over an answer padded to one length."""
  model, text = MODELS[family], np.asarray(begin)
  run = jax.jit(lambda text: model.apply({"params": PARAMS[family]}, source(family), text, valid=valid)["logits"])
  for _ in range(new):
    padded = np.pad(text, ((0, 0), (0, begin.shape[1] + new - text.shape[1])))
    text = np.concatenate([text, np.asarray(run(padded))[:, text.shape[1] - 1].argmax(-1)[:, None]], axis=1)
  return text


@ANSWERING
def test_an_answer_equals_recomputing_the_full_pass(family):
  out = answer(family, valid=VALID, decoder_tokens=BEGIN)
  np.testing.assert_array_equal(out, recomputed(family, BEGIN, 9, VALID))
  start = np.full((2, 1), MODELS[family].start_token, np.int32)
  np.testing.assert_array_equal(answer(family, valid=VALID), answer(family, valid=VALID, decoder_tokens=start))


def test_padded_sources_and_answers_go_on_as_they_would_alone():
  begin, real = np.array([[4, 9, 2], [0, 0, 7]], np.int32), np.array([[True] * 3, [False, False, True]])
  out = answer("t5", valid=VALID, decoder_tokens=begin, decoder_valid=real, num_beams=1)
  for row, (length, start) in enumerate([(4, 0), (7, 2)]):
    alone = zoo.generate(
      MODELS["t5"], PARAMS["t5"], TOKENS[row : row + 1, :length], max_new_tokens=9,
      decoder_tokens=begin[row : row + 1, start:],
    )  # fmt: skip
    np.testing.assert_array_equal(out[row, 3:], alone[0, 3 - start :])


@pytest.mark.parametrize("family", ["gpt", "t5"])
def test_scanned_layers_write_the_same(family):
  scanned = zoo.build(family, **SIZES[family], scan=True)
  out = zoo.generate(scanned, stack_layers(PARAMS[family]), TOKENS, max_new_tokens=9, num_beams=2)
  np.testing.assert_array_equal(out, answer(family, num_beams=2))


def test_what_is_streamed_is_what_is_returned():
  streamed, options = [], dict(temperature=0.9, rng=jax.random.key(3), top_k=9, min_p=0.01)
  out = answer("gpt", stream=streamed.append, **options)
  np.testing.assert_array_equal(np.stack(streamed, axis=1), out[:, 7:])
  np.testing.assert_array_equal(out, answer("gpt", **options))


def test_streaming_ends_with_the_last_text():
  streamed, options = [], dict(temperature=3.0, rng=jax.random.key(1))
  free = answer("gpt", **options)
  eos = [int(free[0, 9]), int(free[1, 10])]
  last = [np.isin(row[7:], eos).argmax() for row in free]
  out = answer("gpt", eos=eos, pad=22, stream=streamed.append, **options)
  assert 1 < len(streamed) == 1 + max(last) < 9 and (out[:, 8 + max(last) :] == 22).all()


@jax.jit
def chances(out):
  """The log-probability of each generated token."""
  logits = MODELS["gpt"].apply({"params": PARAMS["gpt"]}, out)[:, 6:-1]
  return jnp.take_along_axis(jax.nn.log_softmax(logits), out[:, 7:, None], axis=2)[:, :, 0]


def test_scores_are_the_logarithms_of_the_chances():
  out, scores = zoo.generate(MODELS["gpt"], PARAMS["gpt"], TOKENS, max_new_tokens=6, return_scores=True)
  np.testing.assert_allclose(scores, chances(out), atol=1e-4)


def test_the_best_beam_has_the_score_of_its_tokens():
  options = dict(max_new_tokens=6, num_beams=3, num_return=2, length_penalty=0.5, return_scores=True)
  out, scores = jax.device_get(zoo.generate(MODELS["gpt"], PARAMS["gpt"], TOKENS, **options))
  assert out.shape == (2, 2, 13) and (scores[:, 0] >= scores[:, 1]).all()
  for i in range(2):
    np.testing.assert_allclose(scores[:, i], chances(out[:, i]).sum(axis=1) / 6**0.5, atol=1e-4)


def test_sequences_of_tokens_end_a_text():
  options = dict(temperature=3.0, rng=jax.random.key(1))
  free = answer("gpt", 12, **options)
  second = free[1, 9:12].tolist()
  stop = [free[0, 9:12].tolist(), [(second[0] + 1) % 23, *second[1:]], [*second, 0, 0, 0, 0]]
  out = answer("gpt", 12, stop=stop, pad=21, **options)
  np.testing.assert_array_equal(out[0, :12], free[0, :12])
  assert (out[0, 12:] == 21).all()
  np.testing.assert_array_equal(out[1], free[1])


def test_prompts_of_several_lengths_share_programs():
  from zoo.generate import beams, decoding

  count = lambda: [program._cache_size() for module in (beams, decoding) for program in (module.begin, module.advance)]
  options = dict(eos=3, suppress=[2], forced={0: 4}, length_penalty=2.0)
  for beam in (1, 2):
    answer("t5", num_beams=beam, **options)
  before = count()
  options = dict(eos=1, suppress=[9], forced={-1: 4}, length_penalty=1.0)
  for beam in (1, 2):
    zoo.generate(MODELS["t5"], PARAMS["t5"], TOKENS[:, :3], max_new_tokens=12, num_beams=beam, **options)
  assert count() == before


def test_the_arrays_that_are_given_stay_as_they_are():
  valid = jnp.ones((2, 7), bool)
  answer("whisper", valid=valid)
  assert valid.all()


MISTAKES = {
  "decoder_tokens and decoder_valid are for encoder-decoders, and a gpt is not one": dict(decoder_tokens=TOKENS),
  "num_beams is 0.": dict(num_beams=0),
  "num_return is 3 of num_beams 2.": dict(num_beams=2, num_return=3),
  "num_beams is 2, temperature 0.5: beam search does not sample.": dict(
    num_beams=2, temperature=0.5, rng=jax.random.key(0)
  ),
  "num_beams is 2: beam search has its tokens only at the end.": dict(num_beams=2, stream=print),
  "early_stopping is 'soon'.": dict(early_stopping="soon"),
  "eos has token 23, the model's tokens are 0 to 22.": dict(eos=[3, 23]),
  "cache_dtype is 'int4'.": dict(cache_dtype="int4"),
  "min_p is 0. It must be a number, above 0 and at most 1: a probability": dict(min_p=0),
  "repetition_penalty is 0. It must be a number, above 0": dict(repetition_penalty=0),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_told(message):
  with pytest.raises(UserError) as error:
    answer("gpt", **MISTAKES[message])
  assert message in str(error.value)


def test_a_source_longer_than_the_encoder_reads_is_refused():
  with pytest.raises(UserError, match="An input of 41 tokens exceeds the encoder's max_length 40."):
    zoo.generate(MODELS["bart"], PARAMS["bart"], jnp.zeros((1, 41), int), max_new_tokens=3)


WINDOWED = zoo.build(
  "gemma",
  vocab_size=23,
  max_length=64,
  dim=6,
  depth=3,
  num_heads=2,
  head_dim=4,
  mlp_dim=7,
  window=5,
  pattern=["local", "global"],
)


@pytest.mark.parametrize("side", ["left", "right"])
def test_layers_with_a_window_keep_no_more_than_it(side):
  params = filled(WINDOWED, *WINDOWED.example(), seed=2)
  alone = [zoo.generate(WINDOWED, params, TOKENS[i : i + 1, :n], max_new_tokens=20)[0, n:] for i, n in ((0, 7), (1, 4))]
  short = jnp.roll(TOKENS[1], 3) if side == "left" else TOKENS[1]
  valid = jnp.array([[True] * 7, [False] * 3 + [True] * 4 if side == "left" else [True] * 4 + [False] * 3])
  out = zoo.generate(WINDOWED, params, jnp.stack([TOKENS[0], short]), max_new_tokens=20, valid=valid)
  np.testing.assert_array_equal(out[:, 7:], np.stack(alone))
  text, run = out[:1], jax.jit(lambda text: WINDOWED.apply({"params": params}, text))
  np.testing.assert_array_equal(run(text)[:, 6:-1].argmax(-1), text[:, 7:])
  ringed = with_caches_for(WINDOWED, 36)
  _, _, cache = jax.eval_shape(lambda: prefill(ringed, params, TOKENS, None, 29))
  layers = cache["stack"]
  assert layers["layer_0"]["self_attention"]["ring_keys"].shape[2] == 5
  assert layers["layer_1"]["self_attention"]["keys"].shape[2] == 36


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
@pytest.mark.parametrize("family", ["gpt", "t5"])
def test_scores_over_fewer_bits_are_near(family, dtype):
  choose = dict(max_new_tokens=3, return_scores=True)
  run = lambda **options: zoo.generate(MODELS[family], PARAMS[family], source(family), **choose, **options)
  (wanted, exact), (actual, near) = run(), run(cache_dtype=dtype)
  np.testing.assert_array_equal(actual, wanted)
  assert 0 < abs(near - exact).max() < 0.1


def test_of_two_tokens_forced_at_one_step_the_last_counts():
  text = rules.Text(None, None, jnp.int32(1), jnp.int32(0), jnp.int32(1))
  (rule,) = rules.from_keywords(forced={0: 4, -1: 2})
  assert jnp.argmax(rule(jnp.zeros((1, 6)), text)) == 2


def test_what_was_encoded_to_detect_a_language_is_not_encoded_again(monkeypatch):
  model, params, start = MODELS["whisper"], PARAMS["whisper"], [4, [7, 9, 13], 2]
  begin, encoded = starts.first_tokens(model, params, FEATURES, None, start)
  assert encoded.shape == (2, 7, 6)
  options = dict(max_new_tokens=9, return_scores=True)
  answers, scores = zoo.generate(model, params, FEATURES, start_token=start, **options)
  again, same = zoo.generate(model, params, FEATURES, decoder_tokens=begin, **options)
  np.testing.assert_array_equal(answers, again)
  np.testing.assert_allclose(scores, same, atol=1e-5)
  # Rows of what was encoded change places, and so do the answers, though the sounds stay.
  swapped = begin[::-1, 1], encoded[::-1]
  monkeypatch.setattr(starts, "_likeliest", lambda *args: swapped)
  other, theirs = zoo.generate(model, params, FEATURES, start_token=start, **options)
  np.testing.assert_array_equal(other, answers[::-1])
  np.testing.assert_allclose(theirs, scores[::-1], atol=1e-5)
  assert abs(scores[0] - scores[1]).max() > 1e-3
