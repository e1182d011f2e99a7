import jax.numpy as jnp
import numpy as np
import pytest

from tests.objectives.test_classify import Fixed
from zoo.errors import UserError
from zoo.objectives.regress import regress

BATCH = {"tokens": jnp.zeros((3, 2), int), "score": jnp.array([1.0, 2.0, 5.0])}


def test_the_loss_is_the_mean_square_of_rows_that_count():
  objective = regress(Fixed(logits=jnp.array([[2.0], [0.0], [5.0]])))
  assert float(objective.loss({}, BATCH)[0]) == pytest.approx((1 + 4 + 0) / 3)
  loss, metrics = objective.loss({}, {**BATCH, "weight": jnp.array([1.0, 0.0, 1.0])})
  assert float(loss) == float(metrics["loss"]) == 0.5


def test_a_model_of_several_numbers_is_refused():
  with pytest.raises(UserError, match=r"regress needs a model of one number, this one gives logits \(3, 2\)"):
    regress(Fixed(logits=jnp.zeros((3, 2)))).loss({}, BATCH)


def test_a_batch_without_numbers_is_refused():
  with pytest.raises(UserError, match="regress needs score and tokens in a batch"):
    regress(Fixed(logits=0)).init(None, {"label": np.zeros(3)})
