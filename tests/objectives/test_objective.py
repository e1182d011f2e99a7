import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.quick_keys import quick_key
from tests.tiny import OBJECTIVES, drawn, tiny_batch, tiny_objective
from zoo import sharding
from zoo.errors import UserError
from zoo.objectives.objective import join_rows, split_rows, value_and_grad

CONTRASTS = ["contrastive", "sigmoid_contrastive"]
RATIOS = [case for case in OBJECTIVES if case not in CONTRASTS]
RNG = quick_key(2)


def prepared(case, **sizes):
  objective, batch = tiny_objective(case, **sizes), tiny_batch()
  return objective, drawn(objective, batch), batch


@functools.cache
def whole(case):
  """-> objective, params, batch, and the compiled gradient of the batch in one part."""
  objective, params, batch = prepared(case)
  return objective, params, batch, jax.jit(value_and_grad(objective)).lower(params, batch, RNG).compile()


@functools.cache
def in_parts(case):
  """The compiled gradient of the batch in four parts."""
  objective, params, batch, _ = whole(case)
  return jax.jit(value_and_grad(objective, 4)).lower(params, batch, RNG).compile()


def spread(batch):
  """The rows over 8 devices."""
  return jax.device_put(batch, sharding.batch_sharding(sharding.make_mesh({"data": 8})))


def assert_close(got, want, tolerance=1e-5):
  """Equal to `tolerance` of each array's largest entry, or of a hundredth of the largest of all."""
  largest = max(np.abs(x).max() for x in jax.tree.leaves(want))
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(np.abs(b).max(), largest / 100))


@pytest.mark.parametrize("case", OBJECTIVES)
def test_parts_of_a_batch_give_the_loss_and_gradient_of_the_whole(case):
  _, params, batch, grad = whole(case)
  assert_close(in_parts(case)(params, batch, RNG), grad(params, batch, RNG))


@pytest.mark.parametrize("case", OBJECTIVES)
def test_a_batch_spread_over_8_devices_gives_the_loss_and_gradient_of_one_device(case):
  objective, params, batch, grad = whole(case)
  assert_close(jax.jit(value_and_grad(objective))(params, spread(batch), RNG), grad(params, batch, RNG))


@pytest.mark.parametrize("case", OBJECTIVES)
def test_rows_without_weight_count_for_nothing(case):
  objective, params, batch, _ = whole(case)
  forward, reduce = jax.jit(objective.forward), jax.jit(objective.reduce)
  changed = {
    name: x if name == "weight" else np.concatenate([x[:14], x[:2]]) for name, x in jax.device_get(batch).items()
  }
  outputs, others = forward(params, batch), forward(params, changed)
  want = reduce({name: x[:14] for name, x in jax.device_get(outputs).items()})
  assert_close(reduce(outputs), want)
  assert_close(reduce(others), want)


@pytest.mark.parametrize("case", OBJECTIVES)
def test_an_rng_means_training(case):
  class Model:
    asked, start_token = None, 0

    def apply(self, variables, *inputs, train, rngs, **options):
      Model.asked = train, list(rngs)
      raise InterruptedError

  for rng, want in ((None, (False, [])), (RNG, (True, ["dropout"]))):
    with pytest.raises(InterruptedError):
      tiny_objective(case, model=Model()).forward({}, tiny_batch(), rng)
    assert Model.asked == want


@pytest.mark.parametrize("case", ["masked_lm", "contrastive"])
def test_parts_draw_the_same_dropout_in_both_passes(case):
  """Else the gradient of parts would not be the slope of their loss."""
  objective, params, batch = prepared(case, dropout=0.2)
  grad = jax.jit(value_and_grad(objective, 2))
  grads, params = jax.device_get([grad(params, batch, RNG)[1], params])
  norm = np.sqrt(sum((x**2).sum() for x in jax.tree.leaves(grads)))
  step = lambda t: jax.tree.map(lambda p, g: (p + t * g / norm).astype(p.dtype), params, grads)
  slope = (grad(step(5e-3), batch, RNG)[0][0] - grad(step(-5e-3), batch, RNG)[0][0]) / 1e-2
  np.testing.assert_allclose(slope, norm, rtol=1e-2)


def products(compiled):
  """How many matrix products a program has; the body of a loop counts once."""
  return compiled.as_text().count(" dot(")


@pytest.mark.parametrize("case", RATIOS)
def test_a_loss_that_is_a_ratio_does_not_pay_for_a_second_forward_pass(case):
  *_, grad = whole(case)
  assert products(in_parts(case)) == products(grad)
  # cost_analysis counts the body of the loop once: a quarter of the rows, and what is done per part besides.
  assert in_parts(case).cost_analysis()["flops"] < 0.4 * grad.cost_analysis()["flops"]


@pytest.mark.parametrize("case", CONTRASTS)
def test_a_contrast_pays_for_a_second_forward_pass(case):
  *_, grad = whole(case)
  assert products(in_parts(case)) > products(grad)


def test_every_part_has_rows_of_every_device_and_none_moves():
  x = spread(jnp.arange(16.0)[:, None])
  compiled = jax.jit(lambda x: jax.lax.map(jnp.sin, split_rows(x, 2))).lower(x).compile()
  assert not [name for name in ("all-", "collective", "permute") if name in compiled.as_text()]
  assert split_rows(x, 2)[0].ravel().tolist() == list(range(0, 16, 2))
  np.testing.assert_array_equal(join_rows(split_rows(x, 4)), x)


def test_parts_keep_all_devices_busy():
  """A device of 8 does about an eighth of the arithmetic; it would do half if a part lay on half of the devices."""
  objective, params, batch, grad = whole("contrastive")
  compiled = jax.jit(value_and_grad(objective, 2)).lower(params, spread(batch), RNG).compile()
  assert_close(compiled(params, spread(batch), RNG), grad(params, batch, RNG))
  alone = jax.jit(value_and_grad(objective, 2)).lower(params, batch, RNG).compile()
  assert compiled.cost_analysis()["flops"] < 0.3 * alone.cost_analysis()["flops"]


def test_accumulate_must_divide_the_batch():
  objective, params, batch = prepared("causal_lm")
  with pytest.raises(UserError, match="accumulate 3 does not divide the batch of 16 rows. Change accumulate or batch"):
    value_and_grad(objective, 3)(params, batch)


@pytest.mark.parametrize("accumulate", [0, -1, 1.5, "2", True])
def test_accumulate_must_be_a_count(accumulate):
  with pytest.raises(UserError, match=f"accumulate is {accumulate!r}. It must be an int"):
    value_and_grad(tiny_objective("causal_lm"), accumulate)


@pytest.mark.parametrize(
  "case, other, message",
  [
    ("causal_lm", "masked_lm", "causal_lm needs a model that predicts the next token, this one returns hidden, mlm"),
    (
      "masked_lm",
      "classify",
      "masked_lm needs a model with the output mlm, this one returns hidden, pooled, logits.",
    ),
    (
      "next_sentence",
      "causal_lm",
      "next_sentence needs a model with the output nsp, this one returns logits of the next token",
    ),
    (
      "classify",
      "contrastive",
      "classify needs a model with the output logits, this one returns image, text, scale.",
    ),
    (
      "contrastive",
      "masked_lm",
      "a contrast needs a model with the output image, this one returns hidden, mlm. Use family clip",
    ),
  ],
)
def test_a_model_that_does_not_give_what_is_asked_for_is_refused(case, other, message):
  class Model:
    gives = {
      "causal_lm": jnp.zeros((16, 11, 23)),
      "masked_lm": {"hidden": 0, "mlm": 0},
      "classify": {"hidden": 0, "pooled": 0, "logits": 0},
      "contrastive": {"image": 0, "text": 0, "scale": 0},
    }

    def apply(self, *inputs, **options):
      return self.gives[other]

  with pytest.raises(UserError, match=message):
    tiny_objective(case, model=Model()).forward({}, tiny_batch())


@pytest.mark.parametrize(
  "case, keys, message",
  [
    ("causal_lm", ["image"], "causal_lm needs tokens in a batch, the data have image. Choose other data or another"),
    ("masked_lm", ["image"], "masked_lm needs tokens in a batch"),
    ("whole words", ["tokens"], "masked_lm needs word_start in a batch, the data have tokens"),
    ("next_sentence", ["tokens"], "next_sentence needs is_random in a batch"),
    ("bert_pretraining", ["tokens"], "bert_pretraining needs is_random in a batch"),
    ("contrastive", ["valid"], "a contrast needs image and tokens in a batch, the data have valid"),
    ("classify", ["image"], "classify needs label in a batch"),
    ("classify", ["valid"], "classify needs label and tokens in a batch"),
  ],
)
def test_data_without_what_is_asked_for_is_refused(case, keys, message):
  batch = tiny_batch()
  with pytest.raises(UserError, match=message):
    tiny_objective(case, model=object()).init(jax.random.key(0), {key: batch[key] for key in keys})
