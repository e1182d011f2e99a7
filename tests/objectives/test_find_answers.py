import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.objectives.test_classify import Fixed
from zoo.errors import UserError
from zoo.objectives.find_answers import find_answers

START, END = np.random.default_rng(0).normal(size=(2, 2, 7)).astype(np.float32)


def loss_of(start, end, **entries):
  batch = {"tokens": jnp.zeros((2, 7), int), "start": jnp.array(start), "end": jnp.array(end), **entries}
  return find_answers(Fixed(start=jnp.array(START), end=jnp.array(END))).loss({}, batch)


def test_the_loss_is_the_mean_of_both_ends():
  loss, metrics = loss_of([3, 0], [5, 0])
  log_start, log_end = (np.asarray(jax.nn.log_softmax(x)) for x in (START, END))
  chosen = [log_start[0, 3], log_end[0, 5], log_start[1, 0], log_end[1, 0]]
  assert float(loss) == pytest.approx(-np.mean(chosen), rel=1e-6)
  best = START.argmax(-1), END.argmax(-1)
  assert float(loss_of(*best)[1]["accuracy"]) == 1
  assert float(loss_of(best[0], (best[1] + 1) % 7)[1]["accuracy"]) == 0  # One end alone is not an answer.
  weighted, _ = loss_of([3, 0], [5, 0], weight=jnp.array([1.0, 0.0]))
  assert float(weighted) == pytest.approx(-np.mean(chosen[:2]), rel=1e-6)


def test_an_end_behind_the_row_makes_the_loss_nan():
  assert np.isnan(loss_of([3, 0], [7, 0])[0])


def test_a_model_without_ends_is_refused():
  batch = {"tokens": jnp.zeros((2, 7), int), "start": jnp.zeros(2, int), "end": jnp.zeros(2, int)}
  with pytest.raises(UserError, match="find_answers needs a model with the output start, this one returns hidden."):
    find_answers(Fixed(hidden=0)).loss({}, batch)


def test_segments_go_to_models_alone_that_tell_texts_apart():
  sizes = dict(vocab_size=11, max_length=7, dim=6, depth=1, num_heads=3, head="question_answering")
  objective = find_answers(zoo.build("distilbert", **sizes))
  batch = {"tokens": jnp.ones((2, 7), int), "start": jnp.zeros(2, int), "end": jnp.zeros(2, int)}
  params = objective.init(jax.random.key(0), batch)
  with_segments = {**batch, "segments": jnp.ones((2, 7), int)}
  assert objective.loss(params, with_segments)[0] == objective.loss(params, batch)[0]
