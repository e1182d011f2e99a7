import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.tiny import drawn, tiny_batch, tiny_model
from zoo.errors import UserError
from zoo.objectives.contrastive import clamp, contrastive
from zoo.objectives.sigmoid_contrastive import sigmoid_contrastive
from zoo.preprocessing import as_float

SOFTMAX, SIGMOID = (jax.jit(objective(None).reduce) for objective in (contrastive, sigmoid_contrastive))


def unit(rng, *shape):
  x = rng.normal(size=shape)
  return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def outputs(rows=5, scale=3.0, bias=None, seed=0, **more):
  """What `forward` of a two-tower model gives, without the model."""
  rng = np.random.default_rng(seed)
  embedded = {"image": unit(rng, rows, 7), "text": unit(rng, rows, 7), "scale": np.full(rows, scale, np.float32)}
  embedded |= {} if bias is None else {"bias": np.full(rows, bias, np.float32)}
  return {"weight": np.ones(rows, np.float32), **embedded, **more}


def info_nce(image, text, scale):
  """Algorithm of figure 3 of the paper, in numpy."""
  logits = np.float64(scale) * image @ text.T
  rows = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  columns = np.exp(logits) / np.exp(logits).sum(0, keepdims=True)
  return -(np.log(np.diag(rows)).mean() + np.log(np.diag(columns)).mean()) / 2


def test_is_the_formula_of_the_paper():
  embedded = outputs()
  loss, metrics = SOFTMAX(embedded)
  np.testing.assert_allclose(loss, info_nce(embedded["image"], embedded["text"], 3.0), rtol=1e-6)
  assert metrics["scale"] == 3


def test_rows_of_a_group_share_the_target():
  embedded = outputs(group=np.array([4, 9, 4, 4, 2]))
  logits = 3 * embedded["image"] @ embedded["text"].T
  targets = np.array([[1, 0, 1, 1, 0], [0, 3, 0, 0, 0], [1, 0, 1, 1, 0], [1, 0, 1, 1, 0], [0, 0, 0, 0, 3]]) / 3
  cross_entropy = jax.jit(lambda logits: optax.softmax_cross_entropy(logits, targets.astype(np.float32)).mean())
  want = (cross_entropy(logits) + cross_entropy(logits.T)) / 2
  np.testing.assert_allclose(SOFTMAX(embedded)[0], want, rtol=1e-6)


def test_accuracy_counts_both_ways_and_any_row_of_the_group():
  vectors = np.eye(4, 7, dtype=np.float32)
  swapped = vectors[[1, 0, 2, 2]]  # Row 0 and 1 swapped; the text of row 3 is that of row 2.
  alone = SOFTMAX(outputs(4, image=vectors, text=swapped))[1]
  assert (alone["image_to_text"], alone["text_to_image"]) == (0.25, 0.25)
  grouped = SOFTMAX(outputs(4, image=vectors, text=swapped, group=np.array([5, 5, 6, 6])))[1]
  assert grouped["image_to_text"] == 0.75  # Image 3 is like no text and picks the first.
  assert grouped["text_to_image"] == 1
  assert grouped["accuracy"] == 0.875


def test_rows_of_no_weight_are_no_answers_either():
  some = outputs(7, weight=np.array([1, 1, 0, 1, 1, 0, 1], np.float32))
  keep = np.array([0, 1, 3, 4, 6])
  less = {name: x[keep] for name, x in some.items()}
  for reduce in (SOFTMAX, SIGMOID):
    both = {"bias": np.full(7, -2, np.float32)}, {"bias": np.full(5, -2, np.float32)}
    for a, b in zip(*[reduce({**x, **y})[1].values() for x, y in zip((some, less), both)], strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize(
  "scale, towards, want", [(3.0, 1, 1), (3.0, -1, -1), (100.0, 1, 1), (100.0, -1, 0), (120.0, -1, 0)]
)
def test_at_the_clamp_only_a_gradient_that_lowers_the_scale_passes(scale, towards, want):
  assert jax.grad(lambda x: towards * clamp(x, 100.0))(scale) == want
  assert clamp(jnp.array(scale), 100.0) == min(scale, 100)


def test_the_scale_stays_at_the_clamp_and_can_come_back():
  """Perfect pairs push the scale up; descent stops at the clamp. Then wrong pairs pull it down."""
  vectors = np.eye(4, 7, dtype=np.float32)

  @jax.jit
  @jax.grad
  def slope(log_scale, text):
    embedded = outputs(4, image=vectors, text=text) | {"scale": jnp.full(4, jnp.exp(log_scale))}
    return contrastive(None, max_scale=4.0).reduce(embedded)[0]

  def descend(log_scale, text, steps):
    for _ in range(steps):
      log_scale -= 0.5 * np.asarray(slope(log_scale, text))
    return log_scale

  top = descend(np.log(np.float32(3)), vectors, 30)
  assert np.log(4) <= top < np.log(4) + 0.1
  assert descend(top, vectors[::-1], 3) < np.log(3)


def test_the_sigmoid_loss_is_the_formula_of_the_paper():
  embedded = outputs(bias=-2.0, group=np.array([4, 9, 4, 4, 2]))
  image, text = np.array(embedded["image"], np.float64), np.array(embedded["text"], np.float64)
  group = np.array(embedded["group"])
  sign = np.where(group[:, None] == group[None], 1, -1)
  want = np.log(1 + np.exp(-sign * (3 * image @ text.T - 2))).sum() / 5
  loss, metrics = SIGMOID(embedded)
  np.testing.assert_allclose(loss, want, rtol=1e-6)
  assert metrics["bias"] == -2


def test_the_sigmoid_loss_needs_a_bias():
  with pytest.raises(UserError, match="needs a model with a logit bias. Set model.logit_bias=-10.0"):
    SIGMOID(outputs())


def test_images_of_bytes_are_those_of_floats():
  model, batch = tiny_model("contrastive"), tiny_batch(rows=3)
  bytes_ = np.arange(3 * 6 * 6 * 3).astype(np.uint8).reshape(3, 6, 6, 3)
  objective = contrastive(model)
  params = drawn(objective, batch)
  loss = jax.jit(lambda image: objective.loss(params, {**batch, "image": image})[0])
  of_bytes, of_floats = loss(bytes_), loss((bytes_ / 127.5 - 1).astype(np.float32))
  np.testing.assert_allclose(of_bytes, of_floats, rtol=1e-6)
  np.testing.assert_array_equal(as_float(jnp.array([0, 255], jnp.uint8)), [-1, 1])
