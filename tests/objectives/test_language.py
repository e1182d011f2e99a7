import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.tiny import MASKED, drawn, tiny_batch, tiny_model
from zoo.errors import UserError
from zoo.objectives.bert_pretraining import bert_pretraining
from zoo.objectives.causal_lm import causal_lm
from zoo.objectives.masked_lm import masked_lm
from zoo.objectives.next_sentence import next_sentence


class Fixed:
  """A model whose outputs are given, and which notes what it was asked."""

  def __init__(self, outputs):
    self.outputs = outputs

  def apply(self, variables, *inputs, **options):
    self.inputs, self.options = inputs, options
    return self.outputs


def log_softmax(x):
  return x - np.log(np.exp(x).sum(-1, keepdims=True))


def test_causal_lm_is_the_mean_over_valid_targets_of_their_negative_log_probability():
  rng = np.random.default_rng(0)
  tokens, logits = rng.integers(0, 7, (2, 5)), rng.normal(size=(2, 4, 7)).astype(np.float32)
  valid = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], bool)
  model = Fixed(jnp.array(logits))
  batch = {"tokens": jnp.array(tokens), "valid": jnp.array(valid)}
  loss, metrics = causal_lm(model).loss({}, batch)
  pairs = [(row, t) for row in range(2) for t in range(4) if valid[row, t + 1]]
  nll = [-log_softmax(logits)[row, t, tokens[row, t + 1]] for row, t in pairs]
  correct = [logits[row, t].argmax() == tokens[row, t + 1] for row, t in pairs]
  np.testing.assert_allclose(loss, np.mean(nll), rtol=1e-6)
  np.testing.assert_allclose(metrics["perplexity"], np.exp(np.mean(nll)), rtol=1e-6)
  assert metrics["tokens"] == 6
  np.testing.assert_allclose(metrics["accuracy"], np.mean(correct), rtol=1e-6)
  np.testing.assert_array_equal(model.inputs[0], tokens[:, :-1])
  np.testing.assert_array_equal(model.options["valid"], valid[:, :-1])


def test_causal_lm_of_a_batch_without_targets_is_zero():
  batch = {"tokens": jnp.zeros((2, 5), int), "valid": jnp.zeros((2, 5), bool)}
  assert causal_lm(Fixed(jnp.zeros((2, 4, 7)))).loss({}, batch)[0] == 0


def test_masked_lm_is_the_mean_over_chosen_tokens_and_asks_for_no_other_logits():
  batch = tiny_batch()
  objective = masked_lm(None, vocab_size=23, **MASKED)
  masked = objective.prepare(batch, jax.random.key(0))
  logits = np.random.default_rng(0).normal(size=(16, 2, 23)).astype(np.float32)  # ceil(0.15 * 11) = 2
  model = Fixed({"mlm": jnp.array(logits)})
  loss, metrics = masked_lm(model, vocab_size=23, **MASKED).loss({}, masked)
  weight = np.array(masked["chosen"] * batch["weight"][:, None])
  nll = -np.take_along_axis(log_softmax(logits), np.array(masked["target"])[..., None], -1)[..., 0]
  np.testing.assert_allclose(loss, (nll * weight).sum() / weight.sum(), rtol=1e-6)
  correct = logits.argmax(-1) == np.array(masked["target"])
  np.testing.assert_allclose(metrics["accuracy"], (correct * weight).sum() / weight.sum(), rtol=1e-6)
  np.testing.assert_array_equal(model.options["predict"], masked["predict"])
  np.testing.assert_array_equal(model.inputs[0], masked["inputs"])


def test_logits_at_chosen_positions_are_those_of_the_full_output():
  model, batch = tiny_model("masked_lm"), tiny_batch()
  objective = masked_lm(model, **MASKED)
  params = drawn(objective, batch)
  masked = objective.prepare(batch)
  apply = jax.jit(lambda **inputs: model.apply({"params": params}, masked["inputs"], **inputs)["mlm"])
  predicted = apply(segments=batch["segments"], valid=batch["valid"])
  nll = optax.softmax_cross_entropy_with_integer_labels(predicted, batch["tokens"])
  at = jnp.take_along_axis(nll, masked["predict"], axis=1)
  weight = masked["chosen"] * batch["weight"][:, None]
  np.testing.assert_allclose(jax.jit(objective.loss)(params, batch)[0], (at * weight).sum() / weight.sum(), rtol=1e-5)


def test_next_sentence_is_a_cross_entropy_with_0_for_is_next():
  logits = np.array([[2.0, -1.0], [0.5, 0.1], [-1.0, 3.0]], np.float32)
  batch = {"tokens": jnp.zeros((3, 4), int), "is_random": jnp.array([0, 1, 1])}
  loss, metrics = next_sentence(Fixed({"nsp": jnp.array(logits)})).loss({}, batch)
  np.testing.assert_allclose(loss, -log_softmax(logits)[[0, 1, 2], [0, 1, 1]].mean(), rtol=1e-6)
  np.testing.assert_allclose(metrics["accuracy"], 2 / 3, rtol=1e-6)


def test_bert_pretraining_is_the_sum_of_its_two_losses_on_the_same_masked_batch():
  model, batch, rng = tiny_model("bert_pretraining"), tiny_batch(), jax.random.key(5)
  both, words = bert_pretraining(model, **MASKED), masked_lm(model, **MASKED)
  params = drawn(both, batch)
  loss, metrics = jax.jit(both.loss)(params, batch, rng)
  masked = both.prepare(batch, rng)
  sentences = jax.jit(next_sentence(model).loss)(params, {**batch, "tokens": masked["inputs"]}, rng)
  np.testing.assert_allclose(metrics["mlm_loss"], jax.jit(words.loss)(params, batch, rng)[0], rtol=1e-6)
  np.testing.assert_allclose(metrics["nsp_loss"], sentences[0], rtol=1e-6)
  np.testing.assert_allclose(metrics["nsp_accuracy"], sentences[1]["accuracy"], rtol=1e-6)
  np.testing.assert_allclose(loss, metrics["mlm_loss"] + metrics["nsp_loss"], rtol=1e-6)


def test_vocab_size_is_the_models_and_a_model_without_the_head_is_refused():
  assert masked_lm(tiny_model("masked_lm"), **MASKED).prepare(tiny_batch())["inputs"].max() < 23
  with pytest.raises(
    UserError, match="needs a model with the output mlm, this one returns hidden, pooled. Set the model's head"
  ):
    masked_lm(tiny_model("masked_lm", head=None), **MASKED)


def test_rates_must_be_parts_of_a_whole():
  with pytest.raises(UserError, match=r"masked_lm.rate is 15. It must be from 0 to 1"):
    masked_lm(None, rate=15, **MASKED)
  with pytest.raises(UserError, match=r"mask_rate 0.8 and random_rate 0.3 add up to more than 1"):
    masked_lm(None, random_rate=0.3, **MASKED)


def test_whole_words_need_to_know_where_words_begin():
  batch = {"tokens": jnp.zeros((2, 5), int)}
  with pytest.raises(UserError, match="masked_lm.whole_word needs word_start in the batch"):
    masked_lm(None, whole_word=True, vocab_size=7, **MASKED).prepare(batch)
