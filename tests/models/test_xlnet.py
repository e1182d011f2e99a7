import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.filled import filled
from zoo.errors import UserError
from zoo.layers.stack import stack_layers

SIZES = dict(vocab_size=23, dim=6, depth=2, num_heads=3, mlp_dim=10)
RNG = np.random.default_rng(0)
TOKENS = RNG.integers(0, 23, (2, 9))


def test_a_token_is_predicted_by_those_before_it_in_its_order_alone():
  model = zoo.build("xlnet", **SIZES)
  params = filled(model, *model.example())
  order = np.stack([RNG.permutation(9) for _ in range(2)])  # The turn of each token.
  sees = order[:, :, None] > order[:, None, :]
  everything = np.arange(9)[None].repeat(2, 0)
  call = jax.jit(lambda tokens: model.apply({"params": params}, tokens, sees=sees, predict=everything)["mlm"])
  before = np.asarray(call(TOKENS))
  # The first sees none: as in the reference, it gets the mean of all.
  for turn in (0, 4, 8):
    changed = np.where(order == turn, (TOKENS + 1) % 23, TOKENS)
    moved = abs(np.asarray(call(changed)) - before).max(-1)
    assert (moved[(order <= turn) & (order > 0)] < 1e-6).all() and (moved[order > turn] > 1e-5).all()


def test_without_an_order_each_token_reads_all():
  model = zoo.build("xlnet", **SIZES)
  params = filled(model, *model.example())
  call = jax.jit(lambda tokens: model.apply({"params": params}, tokens)["mlm"])
  changed = TOKENS.copy()
  changed[:, 4] = (changed[:, 4] + 1) % 23
  assert (abs(call(changed) - call(TOKENS)).max(-1) > 1e-5).all()


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(side):
  model = zoo.build("xlnet", **SIZES, head="classify", num_classes=3)
  params = filled(model, *model.example())
  widths = ((0, 0), (3, 0) if side == "left" else (0, 3))
  tokens, valid = np.pad(TOKENS, widths, constant_values=7), np.pad(np.ones((2, 9), bool), widths)
  padded = model.apply({"params": params}, tokens, valid=valid)["logits"]
  np.testing.assert_allclose(padded, model.apply({"params": params}, TOKENS)["logits"], rtol=0, atol=1e-5)


def test_the_memory_of_a_scan_is_that_of_a_loop_and_gets_no_gradient():
  loop, scan = (zoo.build("xlnet", **SIZES, memory_length=4, scan=scan) for scan in (False, True))
  params = filled(loop, *loop.example())
  stacked = stack_layers(params)
  outputs = []
  for model, weights in ((loop, params), (scan, stacked)):
    memory = jax.eval_shape(model.init, jax.random.key(0), TOKENS)["memory"]
    memory = {"memory": jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), memory)}

    def second(first, model=model, weights=weights, memory=memory):
      _, after = model.apply({"params": first, **memory}, TOKENS, mutable=["memory"])
      return model.apply({"params": weights, **after}, TOKENS)["mlm"]

    outputs.append(second(weights))
    grads = jax.grad(lambda first, second=second: second(first).sum())(weights)
    assert all((x == 0).all() for x in jax.tree.leaves(grads))
  np.testing.assert_allclose(outputs[0], outputs[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
  "sizes, message",
  [
    ({"memory_length": -1}, "memory_length is -1. It must be at least 0."),
    ({"clamp": 0}, "clamp is 0. It must be at least 1."),
    ({"dim": 9}, "dim is 9. It must be even, for pairs of sine and cosine."),
    ({"drop_path": 0.1}, "drop_path is 0.1, and the layers of an xlnet cannot be dropped."),
    ({"head": "lm"}, "head is 'lm'. It may be: mlm, classify"),
  ],
)
def test_what_cannot_be_built_is_refused_in_one_line(sizes, message):
  with pytest.raises(UserError, match=f"^xlnet: {message}"):
    zoo.build("xlnet", **{**SIZES, **sizes})
