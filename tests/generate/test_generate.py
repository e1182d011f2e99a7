import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.filled import filled
from zoo.errors import UserError
from zoo.generate import decode_step, grow, prefill, sample
from zoo.generate.sampling import probabilities
from zoo.layers.stack import stack_layers

SIZES = dict(vocab_size=23, max_length=40, dim=6, depth=2, num_heads=3)
MODEL = zoo.build("gpt", **SIZES)
PARAMS = filled(MODEL, *MODEL.example(), seed=5)
PROMPT = jax.random.randint(jax.random.key(0), (2, 5), 0, 23)
APPLY = jax.jit(lambda tokens: MODEL.apply({"params": PARAMS}, tokens))


def recomputed(tokens, new):
  """Greedy decoding by a full pass per token over a text padded to a fixed length, which causality hides."""
  tokens = np.asarray(tokens)
  for _ in range(new):
    padded = np.pad(tokens, ((0, 0), (0, 40 - tokens.shape[1])))
    best = np.asarray(APPLY(padded))[:, tokens.shape[1] - 1].argmax(-1)
    tokens = np.concatenate([tokens, best[:, None]], axis=1)
  return tokens


def test_greedy_decoding_equals_recomputing_the_full_pass():
  out = zoo.generate(MODEL, PARAMS, PROMPT, max_new_tokens=20)
  np.testing.assert_array_equal(out, recomputed(PROMPT, 20))
  assert out.dtype == jnp.int32 and len(np.unique(out[:, 5:])) > 3


def test_scanned_layers_decode_alike():
  scanned = zoo.build("gpt", **SIZES, scan=True)
  out = zoo.generate(scanned, stack_layers(PARAMS), PROMPT, max_new_tokens=20)
  np.testing.assert_array_equal(out, recomputed(PROMPT, 20))


def test_a_text_may_fill_max_length_and_does_by_default():
  out = zoo.generate(MODEL, PARAMS, PROMPT, max_new_tokens=35)
  np.testing.assert_array_equal(zoo.generate(MODEL, PARAMS, PROMPT), out)
  assert out.shape == (2, 40)
  np.testing.assert_array_equal(out, recomputed(PROMPT, 35))


@pytest.mark.parametrize("scan", [False, True])
def test_prefill_and_steps_give_the_logits_of_the_full_pass(scan):
  model, params = zoo.build("gpt", **SIZES, scan=scan), stack_layers(PARAMS) if scan else PARAMS
  text = jax.random.randint(jax.random.key(1), (2, 9), 0, 23)
  full = APPLY(text)
  logits, positions, cache = prefill(model, params, text[:, :5], jnp.ones((2, 5), bool), 4)
  np.testing.assert_array_equal(positions, [5, 5])
  step = jax.jit(lambda *args: decode_step(model, params, *args))
  for i in range(5, 9):
    np.testing.assert_allclose(logits, full[:, i - 1], rtol=1e-4, atol=1e-4)
    logits, cache = step(cache, text[:, i], positions)
    positions = positions + 1
  np.testing.assert_allclose(logits, full[:, 8], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_prompts_continue_as_they_would_alone(side):
  alone = [zoo.generate(MODEL, PARAMS, PROMPT[i : i + 1, :n], max_new_tokens=9)[0, n:] for i, n in enumerate((5, 3))]
  short = jnp.roll(PROMPT[1], 2) if side == "left" else PROMPT[1]
  valid = jnp.array([[True] * 5, [False] * 2 + [True] * 3 if side == "left" else [True] * 3 + [False] * 2])
  out = zoo.generate(MODEL, PARAMS, jnp.stack([PROMPT[0], short]), max_new_tokens=9, valid=valid)
  np.testing.assert_array_equal(out[:, 5:], np.stack(alone))


def test_after_the_end_of_text_a_row_is_filled_with_it():
  free = np.asarray(zoo.generate(MODEL, PARAMS, PROMPT, max_new_tokens=20))
  eos = int(free[0, 9])
  out = np.asarray(zoo.generate(MODEL, PARAMS, PROMPT, max_new_tokens=20, eos=eos))
  for row, wanted in zip(out, free):
    ends = np.flatnonzero(wanted[5:] == eos)
    end = 5 + ends[0] if len(ends) else 25
    np.testing.assert_array_equal(row[:end], wanted[:end])
    assert (row[end:] == eos).all()
  assert (out[0, 9:] == eos).all()


def test_draws_come_from_the_key_and_not_from_the_room():
  draw = lambda seed, new: zoo.generate(
    MODEL, PARAMS, PROMPT, max_new_tokens=new, temperature=1.5, rng=jax.random.key(seed)
  )
  np.testing.assert_array_equal(draw(0, 12), draw(0, 12))
  assert (draw(0, 12) != draw(1, 12)).any()
  np.testing.assert_array_equal(draw(0, 12), draw(0, 20)[:, :17])  # 20 new tokens take another program than 12.


def test_sizes_nearby_share_a_program():
  from zoo.generate.decoding import advance, begin

  counts = lambda: (begin._cache_size(), advance._cache_size())
  zoo.generate(MODEL, PARAMS, PROMPT, max_new_tokens=9)
  programs = counts()
  zoo.generate(MODEL, PARAMS, PROMPT[:, :3], max_new_tokens=16)
  zoo.generate(zoo.build("gpt", **SIZES), PARAMS, PROMPT, max_new_tokens=7, eos=3)
  assert counts() == programs


LOGITS = jnp.log(jnp.array([[0.05, 0.4, 0.3, 0.15, 0.1]]))


def drawn(rows=4000, **options):
  """How often each of five tokens is drawn."""
  logits = jnp.tile(LOGITS, (rows, 1))
  tokens = jax.jit(lambda key: sample(key, logits, **options))(jax.random.key(0))
  return np.bincount(np.asarray(tokens), minlength=5) / rows


@pytest.mark.parametrize(
  "options, chances",
  [
    (dict(temperature=1.0), [0.05, 0.4, 0.3, 0.15, 0.1]),
    (dict(temperature=0.5), np.array([0.05, 0.4, 0.3, 0.15, 0.1]) ** 2 / 0.285),
    (dict(temperature=1.0, top_k=2), [0, 4 / 7, 3 / 7, 0, 0]),
    (dict(temperature=1.0, top_k=1), [0, 1, 0, 0, 0]),
    (dict(temperature=1.0, top_p=0.75), np.array([0, 0.4, 0.3, 0.15, 0]) / 0.85),
    (dict(temperature=1.0, top_p=0.1), [0, 1, 0, 0, 0]),
    (dict(temperature=1.0, top_p=1.0), [0.05, 0.4, 0.3, 0.15, 0.1]),
    # Of the two likeliest, 4/7 alone hold half of the probability.
    (dict(temperature=1.0, top_k=2, top_p=0.5), [0, 1, 0, 0, 0]),
  ],
)
def test_draws_have_the_chances_they_should(options, chances):
  chances = np.asarray(chances)
  error = 5 * np.sqrt(chances * (1 - chances) / 4000)
  assert (abs(drawn(**options) - chances) <= error + 1e-9).all()


def test_a_grown_cache_is_empty_behind():
  _, _, cache = prefill(MODEL, PARAMS, PROMPT, jnp.ones((2, 5), bool), 0)
  layer, longer = (c["stack"]["layer_0"]["self_attention"] for c in (cache, grow(cache, 3)))
  np.testing.assert_array_equal(longer["positions"][:, 5:], -1)
  np.testing.assert_array_equal(longer["keys"][:, :, :5], layer["keys"])
  assert longer["values"].shape[2] == 8 and longer["index"] == 5


MISTAKES = {
  "tokens are int32 [5]. They must be ints [batch, prompt length].": dict(tokens=PROMPT[0]),
  "tokens are float32 [2, 5].": dict(tokens=PROMPT / 2),
  "tokens have shape [2, 0]. Give every prompt at least one token": dict(tokens=PROMPT[:, :0]),
  "valid has shape [2, 4], tokens [2, 5].": dict(valid=np.ones((2, 4), bool)),
  "A row of valid is all False.": dict(valid=np.array([[True] * 5, [False] * 5])),
  "max_new_tokens is 0. It must be an int, at least 1.": dict(max_new_tokens=0),
  "max_new_tokens is 1.5. It must be an int": dict(max_new_tokens=1.5),
  "max_new_tokens is 4294967296. It must be an int": dict(max_new_tokens=2**32),
  "tokens is 'a text', which cannot be converted to an array": dict(tokens="a text"),
  "tokens is [[1], [2, 3]], which cannot be": dict(tokens=[[1], [2, 3]]),
  "tokens have the token 23, the model's tokens are 0 to 22. Use the model's own tokenizer.": dict(
    tokens=PROMPT + 23 - PROMPT.max()
  ),
  "tokens have the token -1, the model's tokens are": dict(tokens=PROMPT - 1 - PROMPT.min()),
  "A prompt of 5 and max_new_tokens 36 exceed the model's max_length 40. Crop the prompt to its last 4 tokens": dict(
    max_new_tokens=36
  ),
  "A prompt of 5 and max_new_tokens 41 exceed the model's max_length 40. Ask for fewer": dict(max_new_tokens=41),
  "temperature is -1.0. It must be a number, at least 0; 0 takes": dict(temperature=-1.0),
  "temperature is nan. It must be a number": dict(temperature=float("nan")),
  "temperature is 'hot'. It must be a number": dict(temperature="hot"),
  "rng is 3. It must be a key: jax.random.key(0).": dict(temperature=1.0, rng=3),
  "repetition_penalty is nan. It must be a number, above 0": dict(repetition_penalty=float("nan")),
  "repetition_penalty is inf. It must be a number, above 0": dict(repetition_penalty=float("inf")),
  "no_repeat_ngram is [3]. It must be an int, at least 0": dict(no_repeat_ngram=[3]),
  "min_new_tokens is -1. It must be an int": dict(min_new_tokens=-1),
  "length_penalty is None. It must be a number": dict(num_beams=2, length_penalty=None),
  "num_beams is True. It must be an int": dict(num_beams=True),
  "num_return is 3 of num_beams 2. It must be at most num_beams.": dict(num_beams=2, num_return=3),
  "early_stopping is 'nan'. It must be True, False or": dict(num_beams=2, early_stopping="nan"),
  "suppress is 'abc'. It must be a list of token ids.": dict(suppress="abc"),
  "suppress and suppress_first are all": dict(suppress=range(20), suppress_first=range(23)),
  "num_beams is 24, the model has 23 tokens": dict(num_beams=24),
  "suppress has 1.5. Its tokens must be ints.": dict(suppress=[1.5]),
  "suppress_first has token -1, the model's tokens are": dict(suppress_first=[-1]),
  "forced is [[0, 1]]. It must be a dict of steps to tokens": dict(forced=[[0, 1]]),
  "A step of forced is 'x'. It must be an int": dict(forced={"x": 1}),
  "stop is 3. It must be a list of token ids.": dict(stop=[3]),
  "eos has None. Its tokens must be ints.": dict(eos=[None]),
  "pad is 'x'. It must be an int": dict(pad="x"),
  "more_rules is True. It must be a list of rules": dict(more_rules=True),
  "more_rules has <built-in function print>. A rule is a NamedTuple": dict(more_rules=[print]),
  "return_scores is 1. It must be True or False.": dict(return_scores=1),
  "stream is 3. It must be a function": dict(stream=3),
  "cache_dtype is ['int8']. It must be 'bfloat16'": dict(cache_dtype=["int8"]),
  "temperature 0.5 samples and needs an rng: rng=jax.random.key(0).": dict(temperature=0.5),
  "top_k is 0. It must be an int, at least 1, or None for all tokens.": dict(top_k=0),
  "top_k is 2.0. It must be an int": dict(top_k=2.0),
  "top_p is 0. It must be a number, above 0 and at most 1: a probability.": dict(top_p=0),
  "top_p is 1.5.": dict(top_p=1.5),
  "bert does not decode": dict(model=zoo.build("bert", **SIZES)),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_a_mistake_ends_in_one_line_that_helps(message):
  options = {"model": MODEL, "params": PARAMS, "tokens": PROMPT, "max_new_tokens": 3, **MISTAKES[message]}
  with pytest.raises(UserError) as error:
    zoo.generate(**options)
  assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_a_keyword_that_does_not_exist_is_refused_by_name():
  with pytest.raises(TypeError, match="unexpected keyword argument 'repetition'"):
    zoo.generate(MODEL, PARAMS, PROMPT, max_new_tokens=3, repetition=1.2)


@pytest.mark.parametrize("temperature", [1e-5, 1e-30, 1e-38, 1e-45])
def test_a_tiny_temperature_takes_the_likeliest_token(temperature):
  logits = jnp.array([[-jnp.inf, 3e4, 3.1e4, -7.0], [0.1, -0.2, 0.0, -jnp.inf]])
  assert sample(jax.random.key(0), logits, temperature).tolist() == [2, 0]
  np.testing.assert_array_equal(probabilities(logits, temperature, top_p=0.9), np.eye(4)[[2, 0]])
