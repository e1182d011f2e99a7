import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import tiny_batch, tiny_model
from zoo.errors import UserError
from zoo.objectives.classify import classify


class Fixed:
  def __init__(self, **outputs):
    self.outputs = outputs

  def apply(self, variables, *inputs, **options):
    return self.outputs


LOGITS = np.array([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3]], np.float32)
LOG_P = LOGITS - np.log(np.exp(LOGITS).sum(-1, keepdims=True))


def loss_of(label, weight=(1.0, 1.0), **options):
  batch = {"image": jnp.zeros((2, 6, 6, 3)), "label": jnp.array(label), "weight": jnp.array(weight)}
  return classify(Fixed(logits=jnp.array(LOGITS)), **options).loss({}, batch)


def test_is_the_mean_negative_log_probability():
  loss, metrics = loss_of([0, 1])
  np.testing.assert_allclose(loss, -(LOG_P[0, 0] + LOG_P[1, 1]) / 2, rtol=1e-6)
  assert metrics["accuracy"] == 0.5
  np.testing.assert_allclose(loss_of([0, 1], weight=(1.0, 0.0))[0], -LOG_P[0, 0], rtol=1e-6)


def test_label_smoothing_mixes_in_the_uniform_distribution():
  want = [-(0.8 * LOG_P[row, label] + 0.2 * LOG_P[row].mean()) for row, label in ((0, 0), (1, 1))]
  np.testing.assert_allclose(loss_of([0, 1], label_smoothing=0.2)[0], np.mean(want), rtol=1e-6)


def test_a_label_of_no_class_makes_the_loss_nan_unless_it_has_no_weight():
  assert np.isnan(loss_of([0, 3])[0]) and np.isnan(loss_of([0, -1])[0])
  np.testing.assert_allclose(loss_of([0, -1], weight=(1.0, 0.0))[0], -LOG_P[0, 0], rtol=1e-6)


def test_soft_targets_are_distributions_over_classes():
  targets = np.array([[0.7, 0.3, 0.0], [0.0, 0.4, 0.6]], np.float32)
  loss, metrics = loss_of(targets)
  np.testing.assert_allclose(loss, -(targets * LOG_P).sum(-1).mean(), rtol=1e-6)
  assert metrics["accuracy"] == 1
  np.testing.assert_allclose(loss_of(np.eye(3, dtype=np.float32)[[0, 1]])[0], loss_of([0, 1])[0], rtol=1e-6)


def test_texts_are_classified_too():
  objective = classify(tiny_model("next_sentence", head="classify", num_classes=5))
  batch = {name: x for name, x in tiny_batch(rows=3).items() if name != "image"}
  params = jax.jit(objective.init)(jax.random.key(0), batch)
  loss = jax.jit(objective.loss)
  other = {**batch, "segments": 1 - batch["segments"]}
  assert loss(params, batch)[0] != loss(params, other)[0]


def test_mistakes_are_told():
  with pytest.raises(UserError, match="label_smoothing is 1.5. It must be from 0 to 1"):
    classify(None, label_smoothing=1.5)
  with pytest.raises(UserError, match=r"soft labels \(2, 4\) do not fit logits \(2, 3\). Set model.num_classes to the"):
    loss_of(np.ones((2, 4), np.float32) / 4)
  with pytest.raises(UserError, match="needs a model with the output logits, this one returns hidden, pooled. Set"):
    classify(Fixed(hidden=0, pooled=0)).loss({}, tiny_batch())
