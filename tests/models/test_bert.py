import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.filled import filled
from zoo.errors import UserError

SIZES = dict(vocab_size=23, max_length=11, dim=6, depth=2, num_heads=3)
MODEL = zoo.build("bert", **SIZES)
APPLY = jax.jit(MODEL.apply)
TOKENS = jax.random.randint(jax.random.key(0), (2, 7), 0, 23)


def variables_of(model=MODEL):
  return {"params": filled(model, *model.example())}


def test_every_token_sees_every_token():
  params, apply = variables_of(), APPLY
  before, after = apply(params, TOKENS)["hidden"], apply(params, TOKENS.at[:, 5].add(1) % 23)["hidden"]
  assert (abs(before - after).max(-1) > 1e-4).all()


def test_padding_changes_nothing_for_the_rest():
  params = variables_of()
  valid = jnp.array([[True] * 4 + [False] * 3, [True] * 7])
  out = APPLY(params, TOKENS, valid=valid)
  short, whole = APPLY(params, TOKENS[:1, :4]), APPLY(params, TOKENS)
  np.testing.assert_allclose(out["mlm"][:1, :4], short["mlm"], rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(out["nsp"][0], short["nsp"][0], rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(out["nsp"][1], whole["nsp"][1], rtol=1e-4, atol=1e-4)


def test_segments_are_the_first_sentence_unless_given():
  params = variables_of()
  plain = APPLY(params, TOKENS)["hidden"]
  np.testing.assert_array_equal(plain, APPLY(params, TOKENS, segments=jnp.zeros_like(TOKENS))["hidden"])
  assert abs(plain - APPLY(params, TOKENS, segments=jnp.ones_like(TOKENS))["hidden"]).max() > 0.01


def test_masked_tokens_where_asked_are_those_of_the_whole():
  params = variables_of()
  predict = jnp.array([[3, 0, 6], [5, 5, 1]])
  some, whole = APPLY(params, TOKENS, predict=predict)["mlm"], APPLY(params, TOKENS)["mlm"]
  np.testing.assert_allclose(some, jnp.take_along_axis(whole, predict[:, :, None], 1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
  "head, outputs",
  [
    ("pretraining", {"hidden": (2, 7, 6), "pooled": (2, 6), "mlm": (2, 7, 23), "nsp": (2, 2)}),
    ("mlm", {"hidden": (2, 7, 6), "mlm": (2, 7, 23)}),
    ("classify", {"hidden": (2, 7, 6), "pooled": (2, 6), "logits": (2, 5)}),
    (None, {"hidden": (2, 7, 6), "pooled": (2, 6)}),
  ],
)
def test_outputs_are_those_of_the_head(head, outputs):
  model = zoo.build("bert", **SIZES, head=head, num_classes=5 if head == "classify" else None)
  shapes = jax.eval_shape(lambda rng: model.init_with_output(rng, TOKENS)[0], jax.random.key(0))
  assert {name: out.shape for name, out in shapes.items()} == outputs


def test_an_impossible_head_is_refused():
  with pytest.raises(UserError, match="head is 'nsp'. It may be: pretraining, mlm, next_sentence, .*, None."):
    zoo.build("bert", **SIZES, head="nsp")


def test_starts_with_the_spread_of_the_paper():
  model = zoo.build("bert", **{**SIZES, "vocab_size": 997, "dim": 48})
  params = jax.jit(lambda rng: model.init(rng, *model.example()))(jax.random.key(0))["params"]
  for array in (params["embed"]["embedding"], params["stack"]["layer_1"]["feed_forward"]["down"]["kernel"]):
    assert abs(array).max() <= 0.04 + 1e-6
    np.testing.assert_allclose(array.std(), 0.02 * 0.8796, rtol=0.03)  # Cut at two standard deviations.
