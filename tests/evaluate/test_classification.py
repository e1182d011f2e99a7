import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.evaluate.toys import Toy
from zoo.errors import UserError
from zoo.evaluate.classification import classification
from zoo.evaluate.masked_lm_accuracy import masked_lm_accuracy
from zoo.evaluate.perplexity import perplexity
from zoo.evaluate.regression import regression


class Picture:
  """The first pixels of an image are its logits."""

  def apply(self, variables, image, *, train=False, rngs=None):
    return {"logits": image[:, 0, :3, 0], "hidden": image}


def records(images, label):
  image = np.zeros((len(images), 2, 3, 1), np.float32)
  image[:, 0, :, 0] = images
  return Toy(image=image, label=np.asarray(label, np.int32))


DATA = records([[1, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 1, 0]], [0, 0, 0, 1, 1])


@pytest.mark.parametrize("batch_size", [1, 2, 5, 8])
def test_accuracy_and_loss_equal_those_counted_by_hand(batch_size):
  metrics = classification(Picture(), data=DATA, batch_size=batch_size)({})
  assert metrics["accuracy"] == 3 / 5
  assert metrics["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2) / 2)
  right, wrong = (-np.log(np.exp(x) / (np.e + 2)) for x in (1, 0))
  assert metrics["loss"] == pytest.approx((3 * right + 2 * wrong) / 5, rel=1e-6)


def test_the_majority_says_the_most_frequent_class():
  metrics = classification(Picture(), data=DATA)({})
  assert metrics["majority/accuracy"] == 3 / 5
  assert metrics["majority/balanced_accuracy"] == 1 / 2


def test_logits_that_are_nan_are_refused():
  with pytest.raises(UserError, match="the model's logits is nan for 1 of 2 examples"):
    classification(Picture(), data=records([[1, 0, 0], [np.nan, 0, 0]], [0, 0]))({})


def test_a_model_without_logits_is_refused():
  class Headless:
    def apply(self, variables, image, *, train=False, rngs=None):
      return {"hidden": jnp.zeros(3)}

  with pytest.raises(UserError, match="classification needs a model with the output logits; this one returns hidden"):
    classification(Headless(), data=DATA)({})


@pytest.mark.parametrize(
  "family, num_classes, evaluator, data, message",
  [
    (
      "gpt",
      None,
      classification,
      {"tokens": 3, "label": 1},
      "output logits; this one returns logits of the next token",
    ),
    ("gpt", None, masked_lm_accuracy, {"tokens": 3}, "output mlm; this one returns logits of the next token"),
    ("gpt", None, perplexity, {"image": 3, "label": 1}, "data with tokens; these have image, label"),
    (
      "bert",
      3,
      classification,
      {"tokens": 3, "score": 1},
      "data with label; these have tokens, score",
    ),
    ("bert", 3, classification, {"label": 1}, "data with image or tokens; these have label"),
    ("bert", 1, regression, {"tokens": 3, "label": 1}, "data with score; these have tokens, label"),
  ],
)
def test_an_evaluator_names_what_model_or_data_lack_before_anything_runs(family, num_classes, evaluator, data, message):
  entries = {} if num_classes is None else {"num_classes": num_classes, "head": "classify"}
  model = zoo.build(family, vocab_size=11, max_length=7, dim=8, depth=1, num_heads=2, **entries)
  columns = {name: np.zeros((2, size) if size > 1 else 2, np.int32) for name, size in data.items()}
  with pytest.raises(UserError, match=f"{evaluator.__name__} needs .*{message}"):
    evaluator(model, data=Toy(**columns))
