import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.evaluate.toys import Toy
from zoo.errors import UserError
from zoo.evaluate.masked_lm_accuracy import masked_lm_accuracy

VOCAB, MASK = 53, 3


class Neighbour:
  """A hidden token is the one before it plus `params["step"]`; a pair whose first token is even is random."""

  def apply(self, variables, tokens, *, predict, segments=None, valid=None, train=False, rngs=None):
    before = jnp.take_along_axis(tokens, predict - 1, 1) + variables["params"]["step"]
    even = 1 - tokens[:, 0] % 2
    return {"mlm": 50.0 * jax.nn.one_hot(before, VOCAB), "nsp": jnp.stack([1 - even, even], 1)}


class Constant:
  """Every hidden token is params["token"]."""

  def apply(self, variables, tokens, *, predict, segments=None, valid=None, train=False, rngs=None):
    return {"mlm": jax.nn.one_hot(jnp.full(predict.shape, variables["params"]["token"]), VOCAB)}


def counting(rows=36, length=13):
  """Rows count upwards from some number; the first token is special, so every hidden one has a neighbour."""
  tokens = (np.arange(rows)[:, None] + 4 + np.arange(length)).astype(np.int32)
  special = np.broadcast_to(np.arange(length) == 0, tokens.shape)
  return Toy(tokens=tokens, special=special, is_random=1 - tokens[:, 0] % 2, info={"vocab_size": VOCAB})


OPTIONS = {"data": counting(), "mask_token": MASK, "mask_rate": 1.0, "random_rate": 0.0, "rate": 0.08}


def test_one_hidden_token_in_a_counting_row_is_found_and_a_wrong_rule_finds_none():
  evaluate = masked_lm_accuracy(Neighbour(), **OPTIONS)
  metrics = evaluate({"step": 1})
  assert metrics["accuracy"] == 1.0 and metrics["loss"] < 1e-6
  assert metrics["predictions"] == 36
  assert metrics["nsp_accuracy"] == 1.0 and metrics["unigram/nsp_accuracy"] == 0.5
  assert evaluate({"step": 2})["accuracy"] == 0.0


def test_the_unigram_is_the_best_constant_on_the_same_places():
  unigram = masked_lm_accuracy(Neighbour(), **OPTIONS)({"step": 1})
  evaluate = masked_lm_accuracy(Constant(), **OPTIONS)
  shares = np.array([evaluate({"token": token})["accuracy"] for token in range(VOCAB)])
  assert unigram["unigram/accuracy"] == shares.max() > 1 / VOCAB
  assert unigram["unigram/loss"] == pytest.approx(-np.sum(shares * np.log(np.maximum(shares, 1e-9))))


def test_the_same_tokens_are_hidden_at_every_evaluation_in_any_batch_size():
  runs = [
    masked_lm_accuracy(Neighbour(), batch_size=b, **{**OPTIONS, "rate": 0.3})({"step": 1}) for b in (1, 7, 36, 64)
  ]
  assert runs[0]["accuracy"] < 1  # some neighbours are hidden too
  assert all(run == runs[0] for run in runs)
  other = masked_lm_accuracy(Neighbour(), seed=1, **{**OPTIONS, "rate": 0.3})({"step": 1})
  assert other["unigram/accuracy"] != runs[0]["unigram/accuracy"]


def test_a_model_without_the_head_is_refused():
  class Headless:
    def apply(self, variables, tokens, **options):
      return {"hidden": tokens}

  with pytest.raises(UserError, match="needs a model with the output mlm, this one returns hidden"):
    masked_lm_accuracy(Headless(), **OPTIONS)({})


def test_data_that_do_not_tell_their_mask_token_are_refused():
  with pytest.raises(UserError, match="do not name their tokenizer. Set mask_token"):
    masked_lm_accuracy(Neighbour(), data=counting())
