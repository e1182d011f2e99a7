import numpy as np
import pytest

from zoo.errors import UserError
from zoo.optim.schedules import make_schedule

PEAK, STEPS, WARMUP = 0.5, 110, 10


def rates(schedule, at, **options):
  rate = make_schedule(STEPS, PEAK, schedule=schedule, warmup_steps=WARMUP, **options)
  return [float(rate(step)) for step in at]


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "exponential", "inverse_sqrt", "wsd"])
def test_every_schedule_warms_up_in_a_straight_line_to_the_peak(schedule):
  np.testing.assert_allclose(rates(schedule, range(WARMUP + 1), end=0.01), PEAK * np.arange(11) / 10, rtol=1e-6)


@pytest.mark.parametrize(
  "schedule, want",
  [
    ("constant", [1, 1, 1, 1]),
    ("linear", [1, 0.775, 0.55, 0.1]),
    ("cosine", [1, 0.1 + 0.45 * (1 + np.cos(np.pi / 4)), 0.55, 0.1]),
    ("exponential", [1, 0.1**0.25, 0.1**0.5, 0.1]),
    ("inverse_sqrt", [1, (10 / 35) ** 0.5, (10 / 60) ** 0.5, (10 / 110) ** 0.5]),
    ("wsd", [1, 1, 1, 0.1]),
    ({"name": "wsd", "decay_steps": 100}, [1, 0.775, 0.55, 0.1]),
    ({"name": "inverse_sqrt", "timescale": 50}, [1, (50 / 75) ** 0.5, 0.5**0.5, (50 / 150) ** 0.5]),
  ],
)
def test_after_the_warmup_each_has_its_shape_and_its_end(schedule, want):
  np.testing.assert_allclose(rates(schedule, [10, 35, 60, 110], end=0.1), PEAK * np.array(want), rtol=1e-5)


def test_inverse_sqrt_is_that_of_the_transformer_and_has_a_floor():
  np.testing.assert_allclose(rates("inverse_sqrt", [40]), PEAK * (10 / 40) ** 0.5, rtol=1e-6)
  np.testing.assert_allclose(rates("inverse_sqrt", [109], end=0.7), PEAK * 0.7, rtol=1e-6)


def test_wsd_decays_in_the_last_tenth():
  np.testing.assert_allclose(rates("wsd", [98, 99, 104.5, 110]), [PEAK, PEAK, PEAK / 2, 0], atol=1e-6)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "wsd"])
def test_a_run_shorter_than_the_warmup_ends_on_its_way_up(schedule):
  rate = make_schedule(5, PEAK, schedule=schedule, warmup_steps=10)
  np.testing.assert_allclose([float(rate(step)) for step in range(5)], PEAK * np.arange(5) / 10, rtol=1e-6)


def test_without_warmup_the_first_step_has_the_peak():
  assert float(make_schedule(10, 0.5)(0)) == 0.5


@pytest.mark.parametrize(
  "options, message",
  [
    (
      {"schedule": "cosin"},
      r"There is no schedule 'cosin'. Did you mean 'cosine'\? There are: constant, linear, cosine",
    ),
    ({"schedule": 3}, "There is no schedule 3. There are: constant"),
    ({"schedule": {"name": "wsd", "decay": 3}}, "schedule wsd takes no 'decay'. Did you mean 'decay_steps'"),
    (
      {"schedule": {"name": "wsd", "decay_steps": 200}},
      "decay_steps is 200. It must be from 1 to 100, the steps after",
    ),
    ({"schedule": {"name": "linear", "timescale": 3}}, "schedule linear takes no 'timescale'"),
    ({"schedule": "inverse_sqrt"}, "timescale is 0. It must be 1 or more; by default it is warmup_steps"),
    ({"schedule": "exponential"}, "optimizer.end is 0.0. The exponential schedule needs an end above 0"),
    ({"end": 1.5}, "optimizer.end is 1.5. It must be from 0 to 1"),
    ({"warmup_steps": -1}, "optimizer.warmup_steps is -1. It must be 0 or more"),
    ({"learning_rate": -0.1}, "optimizer.learning_rate is -0.1. It must be 0 or more"),
    ({"learning_rate": float("nan")}, "optimizer.learning_rate is nan"),
    ({"steps": 0}, "steps is 0. It must be 1 or more"),
  ],
)
def test_mistakes_are_told(options, message):
  with pytest.raises(UserError, match=message):
    make_schedule(**{"steps": 100, "learning_rate": 0.1, **options})
