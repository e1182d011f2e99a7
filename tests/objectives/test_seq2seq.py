import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.tiny import drawn, tiny_batch, tiny_model
from zoo.errors import UserError
from zoo.objectives.seq2seq import seq2seq


class Fixed:
  """A model whose outputs are given, and which notes what it was asked."""

  start_token = 6

  def __init__(self, logits):
    self.logits = logits

  def apply(self, variables, *inputs, **options):
    self.inputs, self.options = inputs, options
    return {"logits": self.logits}


def toy():
  """-> batch, logits, log p(.) of two rows with two and three real target tokens."""
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(2, 3, 7)).astype(np.float32)
  target, valid = rng.integers(0, 7, (2, 3)), np.array([[1, 1, 0], [1, 1, 1]], bool)
  batch = {"tokens": jnp.array(rng.integers(0, 7, (2, 5))), "valid": jnp.array(rng.random((2, 5)) < 0.7)}
  batch |= {"target_tokens": jnp.array(target), "target_valid": jnp.array(valid)}
  return batch, logits, logits - np.log(np.exp(logits).sum(-1, keepdims=True))


PLACES = [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]


def test_the_loss_is_the_mean_over_real_target_tokens_of_their_smoothed_negative_log_probability():
  batch, logits, log_p = toy()
  loss, metrics = seq2seq(Fixed(jnp.array(logits)), label_smoothing=0.3).loss({}, batch)
  target = np.array(batch["target_tokens"])
  nll = np.mean([-log_p[row, t, target[row, t]] for row, t in PLACES])
  smooth = np.mean(
    [-np.eye(7)[target[row, t]] @ log_p[row, t] * 0.7 - log_p[row, t].sum() * 0.3 / 7 for row, t in PLACES]
  )
  np.testing.assert_allclose(loss, smooth, rtol=1e-6)
  np.testing.assert_allclose(metrics["loss"], smooth, rtol=1e-6)
  np.testing.assert_allclose(metrics["nll"], nll, rtol=1e-6)
  np.testing.assert_allclose(metrics["perplexity"], np.exp(nll), rtol=1e-6)
  right = np.mean([logits[row, t].argmax() == target[row, t] for row, t in PLACES])
  np.testing.assert_allclose(metrics["accuracy"], right, rtol=1e-6)
  assert metrics["tokens"] == 5


def test_without_smoothing_the_loss_is_the_nll():
  batch, logits, _ = toy()
  loss, metrics = seq2seq(Fixed(jnp.array(logits))).loss({}, batch)
  assert loss == metrics["nll"]


def test_the_decoder_sees_the_target_behind_the_start_token():
  batch, logits, _ = toy()
  model = Fixed(jnp.array(logits))
  seq2seq(model).loss({}, batch)
  source, decoder_input = model.inputs
  np.testing.assert_array_equal(source, batch["tokens"])
  np.testing.assert_array_equal(decoder_input, np.concatenate([[[6], [6]], batch["target_tokens"][:, :-1]], axis=1))
  np.testing.assert_array_equal(model.options["valid"], batch["valid"])


def test_padding_has_no_influence():
  objective, batch = seq2seq(tiny_model("seq2seq")), tiny_batch()
  params = drawn(objective, batch)
  other = dict(batch)
  for name in ("", "target_"):
    tokens = batch[f"{name}tokens"]
    other[f"{name}tokens"] = jnp.where(batch[f"{name}valid"], tokens, (tokens + 1) % 23)
  loss = jax.jit(objective.loss)
  np.testing.assert_allclose(loss(params, batch)[0], loss(params, other)[0], rtol=1e-6)


@pytest.mark.parametrize("family", ["t5", "transformer"])
def test_the_loss_of_packed_pairs_is_that_of_the_same_pairs_in_rows_of_their_own(family):
  sizes = {"max_length": 13} if family == "transformer" else {}
  model = zoo.build(family, vocab_size=23, dim=6, depth=1, num_heads=3, **sizes)
  rng = np.random.default_rng(0)
  pairs = [[rng.integers(1, 23, length) for length in lengths] for lengths in ((3, 5), (6, 2), (4, 3), (8, 4))]

  def batch(rows):
    arrays = {"tokens": np.zeros((len(rows), 13), np.int32), "target_tokens": np.zeros((len(rows), 11), np.int32)}
    ids = {"segment_ids": np.zeros_like(arrays["tokens"]), "target_segment_ids": np.zeros_like(arrays["target_tokens"])}
    for n, row in enumerate(rows):
      for side, prefix in enumerate(("", "target_")):
        parts = [pair[side] for pair in row]
        joined = np.concatenate(parts)
        arrays[f"{prefix}tokens"][n, : len(joined)] = joined
        ids[f"{prefix}segment_ids"][n, : len(joined)] = np.repeat(range(1, len(parts) + 1), [len(x) for x in parts])
    arrays |= {"valid": ids["segment_ids"] > 0, "target_valid": ids["target_segment_ids"] > 0}
    return arrays | (ids if len(rows) < len(pairs) else {})

  together, apart = batch([pairs[:3], pairs[3:]]), batch([[pair] for pair in pairs])
  objective = seq2seq(model, label_smoothing=0.1)
  params = drawn(objective, apart)
  run = jax.jit(objective.loss)
  (loss, metrics), (expected, others) = run(params, together), run(params, apart)
  np.testing.assert_allclose(loss, expected, rtol=1e-5)
  assert metrics["tokens"] == others["tokens"] == 14
  assert abs(run(params, {n: x for n, x in together.items() if "segment" not in n})[0] - expected) > 1e-3


def test_an_example_counts_by_its_length_not_as_one_of_the_rows():
  """Two rows in one batch weigh as their tokens do: the mean of the rows' losses, weighted by their lengths."""
  batch, logits, _ = toy()
  rows = [
    seq2seq(Fixed(jnp.array(logits[n : n + 1]))).loss({}, {name: x[n : n + 1] for name, x in batch.items()})[0]
    for n in range(2)
  ]
  loss = seq2seq(Fixed(jnp.array(logits))).loss({}, batch)[0]
  np.testing.assert_allclose(loss, (2 * rows[0] + 3 * rows[1]) / 5, rtol=1e-6)


def test_mistakes_end_in_one_line():
  with pytest.raises(UserError, match="seq2seq.label_smoothing is 1.0. It must be 0 or more and below 1"):
    seq2seq(Fixed(None), label_smoothing=1.0)
  with pytest.raises(UserError, match="seq2seq needs a model with an encoder and a decoder; gpt is not one"):
    seq2seq(tiny_model("causal_lm"))
  with pytest.raises(UserError, match="model.start_token is 23, and the model's tokens are 0 to 22. Set it"):
    seq2seq(tiny_model("seq2seq", start_token=23))
  with pytest.raises(UserError, match="seq2seq needs target_tokens in a batch, the data have tokens"):
    seq2seq(Fixed(None)).init(jax.random.key(0), {"tokens": jnp.zeros((2, 5), int)})
  with pytest.raises(UserError, match="seq2seq needs a model that predicts the next token. Build it with head='lm'"):
    seq2seq(Fixed(jnp.zeros((2, 7)))).loss({}, toy()[0])
