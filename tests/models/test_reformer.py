import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.filled import filled
from zoo.errors import UserError

SIZES = dict(
  vocab_size=23, max_length=24, dim=6, depth=3, num_heads=3, mlp_dim=10, local_chunk=4, lsh_chunk=6, buckets=4,
  rounds=2, axial_shape=[4, 6], axial_dims=[2, 4],
)  # fmt: skip
RNG = np.random.default_rng(0)
TOKENS = RNG.integers(0, 23, (2, 24))


def built(**sizes):
  model = zoo.build("reformer", **{**SIZES, **sizes})
  return model, filled(model, *model.example())


@pytest.mark.parametrize("pattern, length", [(["local"], 24), (["lsh", "local"], 4)])
def test_no_token_moves_what_is_before_it_unless_rows_are_hashed(pattern, length):
  model, params = built(pattern=pattern)
  call = jax.jit(lambda tokens: model.apply({"params": params}, tokens))
  changed = TOKENS[:, :length].copy()
  changed[:, 2] = (changed[:, 2] + 1) % 23
  moved = abs(call(changed) - call(TOKENS[:, :length])).max(-1)
  assert (moved[:, :2] == 0).all() and (moved[:, 2:4] > 1e-6).all()


def test_in_a_hashed_row_what_comes_later_decides_which_tokens_are_read():
  model, params = built(pattern=["lsh"], depth=1, rounds=1)
  call = jax.jit(lambda tokens: model.apply({"params": params}, tokens))
  others = [np.concatenate([TOKENS[:, :12], RNG.integers(0, 23, (2, 12))], axis=1) for _ in range(4)]
  assert max(abs(call(other) - call(TOKENS))[:, :12].max() for other in others) > 1e-4


def test_chunks_of_the_feed_forward_change_nothing():
  whole, params = built(scan=True, depth=2, pattern=["lsh"])
  parts, _ = built(scan=True, depth=2, pattern=["lsh"], mlp_chunk=5)

  def outcome(model):
    return jax.jit(jax.value_and_grad(lambda params: jnp.sin(model.apply({"params": params}, TOKENS)).sum()))(params)

  for a, b in zip(*map(jax.tree.leaves, (outcome(whole), outcome(parts))), strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * abs(b).max() + 1e-6)


def test_rows_that_it_cannot_take_are_refused_in_one_line():
  model, params = built()
  with pytest.raises(
    ValueError, match="^Axial positions: length 25 exceeds max_length 24. Raise max_length or crop the"
  ):
    model.apply({"params": params}, np.zeros((1, 25), int))
  with pytest.raises(
    ValueError, match="^A Reformer sorts the tokens of a whole row, so packed sequences would depend on"
  ):
    model.apply({"params": params}, TOKENS, segment_ids=np.zeros((2, 24), int))
  with pytest.raises(
    ValueError, match=r"^rotations have shape \[3, 2, 1, 2\], 2 rounds and 4 buckets need \[3, 2, 2, 2\]."
  ):
    model.apply({"params": params}, TOKENS, rotations=np.zeros((3, 2, 1, 2)))


@pytest.mark.parametrize(
  "sizes, message",
  [
    ({"axial_shape": [4, 5]}, r"axial_shape \[4, 5\] holds 20 positions, and max_length is 24. Enlarge the grid"),
    ({"axial_dims": [2, 3]}, r"axial_dims \[2, 3\] have 5 entries together, dim is 6"),
    ({"axial_dims": None}, "axial_shape is .* and axial_dims None. Give two positive sizes for each"),
    ({"pattern": ["full"]}, r"pattern is \['full'\]. It may hold 'local' and 'lsh'"),
    ({"buckets": 3}, r"buckets are \[3\]. There must be one or two factors, even numbers"),
    ({"rounds": 0}, "rounds is 0. It must be at least 1."),
    ({"local_before": -1}, "local_before is -1. It must be at least 0."),
    ({"lsh_after": 1}, "head is 'lm', and local_after or lsh_after not 0"),
    ({"causal": False}, "head is 'lm' and causal False"),
    ({"head": "mlm", "causal": True}, "head is 'mlm' and causal True"),
    ({"remat": "full"}, "remat is 'full', and reversible layers save nothing"),
    ({"drop_path": 0.1}, "drop_path is 0.1, and a reformer's layers cannot be dropped"),
  ],
)
def test_what_cannot_be_built_is_refused_in_one_line(sizes, message):
  with pytest.raises(UserError, match=f"^reformer: {message}"):
    zoo.build("reformer", **{**SIZES, **sizes})
