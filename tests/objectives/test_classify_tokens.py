import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.objectives.test_classify import Fixed
from zoo.errors import UserError
from zoo.objectives.classify_tokens import classify_tokens

LOGITS = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)
LABEL = np.array([[-100, 4, -1], [0, -1, 2]])


def loss_of(**entries):
  batch = {"tokens": jnp.zeros((2, 3), int), "label": jnp.array(LABEL), **entries}
  return classify_tokens(Fixed(logits=jnp.array(LOGITS))).loss({}, batch)


def test_the_loss_is_the_mean_over_tokens_that_have_a_label():
  loss, metrics = loss_of()
  log_p = np.asarray(jax.nn.log_softmax(LOGITS))
  chosen = [log_p[0, 1, 4], log_p[1, 0, 0], log_p[1, 2, 2]]
  assert float(loss) == pytest.approx(-np.mean(chosen), rel=1e-6) and int(metrics["tokens"]) == 3
  right = [LOGITS[0, 1].argmax() == 4, LOGITS[1, 0].argmax() == 0, LOGITS[1, 2].argmax() == 2]
  assert float(metrics["accuracy"]) == pytest.approx(np.mean(right))


def test_rows_without_weight_do_not_count():
  loss, metrics = loss_of(weight=jnp.array([1.0, 0.0]))
  assert float(loss) == pytest.approx(-float(jax.nn.log_softmax(LOGITS[0, 1])[4]), rel=1e-6)
  assert int(metrics["tokens"]) == 1


def test_a_label_that_is_no_class_makes_the_loss_nan():
  assert np.isnan(loss_of(label=jnp.array(LABEL).at[0, 1].set(5))[0])


def test_labels_of_texts_are_refused():
  with pytest.raises(UserError, match=r"classify_tokens: logits \(2, 3, 5\) do not fit labels \(2,\)"):
    loss_of(label=jnp.zeros(2, int))
