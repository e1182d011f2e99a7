import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import zoo
from tests.filled import filled
from zoo.errors import UserError
from zoo.generate import speculate
from zoo.layers.stack import stack_layers

SIZES = dict(vocab_size=23, max_length=48, dim=6, depth=2, num_heads=3)
MODEL = zoo.build("gpt", **SIZES)
PARAMS = filled(MODEL, *MODEL.example(), seed=5)
# A draft that is often right: the model itself, disturbed; and one of another kind.
RNG = np.random.default_rng(1)
NEAR = jax.tree.map(lambda x: x + 0.05 * RNG.standard_normal(x.shape).astype(x.dtype), jax.device_get(PARAMS))
DRAFT = zoo.build(
  "gemma", vocab_size=23, max_length=48, dim=4, depth=2, num_heads=1, mlp_dim=5, window=4, pattern=["local"]
)
TOKENS = RNG.integers(0, 23, (2, 7)).astype(np.int32)
VALID = np.array([[True] * 7, [False] * 3 + [True] * 4])


def greedy(draft, params, model=MODEL, params_of_model=PARAMS, **options):
  options = dict(max_new_tokens=20, valid=VALID) | options
  return np.asarray(speculate(model, params_of_model, draft, params, TOKENS, **options))


@pytest.mark.parametrize("guesses", [1, 4])
def test_greedy_speculation_equals_greedy_decoding(guesses):
  wanted = np.asarray(zoo.generate(MODEL, PARAMS, TOKENS, max_new_tokens=20, valid=VALID))
  np.testing.assert_array_equal(greedy(MODEL, NEAR, draft_tokens=guesses), wanted)
  other = filled(DRAFT, *DRAFT.example(), seed=1)
  np.testing.assert_array_equal(greedy(DRAFT, other, draft_tokens=guesses), wanted)


def test_scanned_layers_and_a_text_that_fills_max_length():
  scanned = zoo.build("gpt", **SIZES, scan=True)
  wanted = np.asarray(zoo.generate(MODEL, PARAMS, TOKENS, max_new_tokens=41, valid=VALID, eos=3))
  counts_drawn = greedy(scanned, stack_layers(NEAR), scanned, stack_layers(PARAMS), max_new_tokens=41, eos=3)
  np.testing.assert_array_equal(counts_drawn, wanted)


def test_after_the_end_of_text_a_row_is_filled():
  free = greedy(MODEL, NEAR)
  eos = int(free[0, 12])
  wanted = zoo.generate(MODEL, PARAMS, TOKENS, max_new_tokens=20, valid=VALID, eos=eos, pad=22)
  np.testing.assert_array_equal(greedy(MODEL, NEAR, eos=eos, pad=22), wanted)


SMALL = zoo.build("gpt", vocab_size=4, max_length=24, dim=6, depth=1, num_heads=2)
MINE, OTHER = (filled(SMALL, *SMALL.example(), seed=seed) for seed in (0, 1))
ROWS, NEW = 20_000, 3
START = np.array([[1, 3]], np.int32)


EVERY = np.array(list(itertools.product(range(4), repeat=NEW)), np.int32)


@functools.partial(jax.jit, static_argnums=(1, 2))
def chances(params, temperature, top_k):
  """The log-probability of each text."""
  whole = np.concatenate([np.repeat(START, len(EVERY), axis=0), EVERY], axis=1)
  logits = SMALL.apply({"params": params}, whole)[:, 1:-1] / temperature
  if top_k is not None:
    logits = jnp.where(logits < jax.lax.top_k(logits, top_k)[0][..., -1:], -jnp.inf, logits)
  return jnp.take_along_axis(jax.nn.log_softmax(logits), EVERY[:, :, None], axis=2)[:, :, 0].sum(axis=1)


def surprise(texts, params, temperature, top_k):
  """Chance, by a chi-square test, of texts [rows, NEW] at least so far from what the model of `params` would draw."""
  wanted = ROWS * np.exp(np.asarray(chances(params, temperature, top_k), np.float64))
  counts_drawn = np.bincount(np.asarray(texts) @ np.array([16, 4, 1]), minlength=64)
  assert not counts_drawn[wanted == 0].any()
  rare = wanted < 5  # Too few for the test, one by one.
  counts_drawn, wanted = ([*counts[~rare], counts[rare].sum()] for counts in (counts_drawn, wanted))
  counts_drawn, wanted = (np.array(counts)[np.array(wanted) > 0] for counts in (counts_drawn, wanted))
  return stats.chi2.sf(((counts_drawn - wanted) ** 2 / wanted).sum(), len(counts_drawn) - 1)


@pytest.mark.parametrize("temperature, top_k", [(1.0, None), (0.7, 3)])
def test_draws_are_those_of_the_model_alone(temperature, top_k):
  """A correct program fails for one seed in a million; the draft's distribution is far outside."""
  options = dict(max_new_tokens=NEW, temperature=temperature, top_k=top_k, rng=jax.random.key(7))
  prompts = np.repeat(START, ROWS, axis=0)
  texts = speculate(SMALL, MINE, SMALL, OTHER, prompts, draft_tokens=2, **options)[:, 2:]
  assert surprise(texts, MINE, temperature, top_k) > 1e-6
  assert surprise(zoo.generate(SMALL, MINE, prompts, **options)[:, 2:], MINE, temperature, top_k) > 1e-6
  drafts = zoo.generate(SMALL, OTHER, prompts, **{**options, "top_k": None})[:, 2:]
  assert surprise(drafts, MINE, temperature, None) < 1e-30


def test_models_that_do_not_fit_together_are_refused():
  with pytest.raises(UserError, match="The draft's vocabulary has 4 tokens, the model's 23."):
    speculate(MODEL, PARAMS, SMALL, MINE, TOKENS, max_new_tokens=3)
  with pytest.raises(UserError, match="draft_tokens is 0."):
    greedy(MODEL, NEAR, draft_tokens=0)
