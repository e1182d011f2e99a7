import numpy as np
import pytest

from tests.evaluate.toys import Toy
from zoo.errors import UserError
from zoo.evaluate.linear_probe import linear_probe


class Corner:
  """Two pixels of the image as features: those that determine the label, or two that are independent of it."""

  def __init__(self, row):
    self.row = row

  def apply(self, variables, image, *, train=False, rngs=None):
    return {"pooled": image[:, self.row, :2, 0]}


def records(seed, count=60, classes=3):
  rng = np.random.default_rng(seed)
  label = np.arange(count) % classes
  image = rng.normal(size=(count, 9, 9, 1))
  angle = 2 * np.pi * label / classes
  image[:, 0, :2, 0] = 3 * np.stack([np.cos(angle), np.sin(angle)], 1) + 0.3 * rng.normal(size=(count, 2))
  return Toy(image=image.astype(np.float32), label=label.astype(np.int32))


TRAIN, TEST = records(0), records(1)


def test_good_features_are_learned_from_few_examples_and_pixels_are_not():
  metrics = linear_probe(Corner(0), data=TEST, train_data=TRAIN, shots=(1, 5), repeats=3)({})
  assert metrics["accuracy_5_shot"] > 0.95 > metrics["pixels/accuracy_5_shot"]
  assert (
    metrics["accuracy_5_shot"]
    >= metrics["accuracy_1_shot"]
    > metrics["majority/accuracy_1_shot"]
    == pytest.approx(1 / 3)
  )


def test_features_that_tell_nothing_are_worth_nothing():
  assert linear_probe(Corner(5), data=TEST, train_data=TRAIN, shots=5, repeats=5)({})["accuracy_5_shot"] < 0.6


def test_the_same_draws_and_so_the_same_numbers_in_any_batch_size():
  runs = [linear_probe(Corner(0), data=TEST, train_data=TRAIN, batch_size=b, repeats=2)({}) for b in (7, 60)]
  assert runs[0] == runs[1]
  assert runs[0]["std_1_shot"] >= 0


def test_no_shots_are_refused():
  with pytest.raises(UserError, match=r"shots \[0\] and repeats 5 must be positive"):
    linear_probe(Corner(0), data=TEST, train_data=TRAIN, shots=[0])
