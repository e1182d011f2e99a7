import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.filled import filled
from zoo.errors import UserError
from zoo.layers.stack import stack_layers

SIZES = dict(vocab_size=23, dim=6, depth=2, num_heads=3, head_dim=4, mlp_dim=10, memory_length=4)
RNG = np.random.default_rng(0)
TEXT = RNG.integers(0, 23, (2, 12))


def model_and_variables(**sizes):
  model = zoo.build("transformer_xl", **{**SIZES, **sizes})
  return model, filled(model, *model.example())


def empty_memory(model, tokens):
  return {"memory": jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(
    model.init, jax.random.key(0), tokens)["memory"])}  # fmt: skip


def by_segments(model, params, pieces, valid=None):
  """Logits of tokens that come in several calls, one after the other."""
  memory, outputs, start = empty_memory(model, pieces[0]), [], 0
  for piece in pieces:
    options = {} if valid is None else {"valid": valid[:, start : start + piece.shape[1]]}
    logits, memory = model.apply({"params": params, **memory}, piece, **options, mutable=["memory"])
    outputs.append(logits)
    start += piece.shape[1]
  return np.concatenate(outputs, axis=1)


@pytest.mark.parametrize("scan", [False, True])
def test_segments_with_memory_give_what_one_pass_gives(scan):
  """Each token sees as many before it, wherever segments end: the window is the memory and itself."""
  model, params = model_and_variables(same_length=True, clamp=2, scan=scan)
  whole = model.apply({"params": params}, TEXT)
  for lengths in ((5, 7), (1, 3, 4, 4)):
    pieces = np.split(TEXT, np.cumsum(lengths)[:-1], axis=1)
    np.testing.assert_allclose(by_segments(model, params, pieces), whole, rtol=0, atol=2e-5)
  without = model.apply({"params": params}, TEXT[:, 5:])
  assert abs(without[:, 0] - whole[:, 5]).max() > 0.01


def test_a_segment_sees_all_of_memory_and_of_itself():
  model, params = model_and_variables(memory_length=7)
  pieces = np.split(TEXT, [5], axis=1)
  whole = model.apply({"params": params}, TEXT)
  np.testing.assert_allclose(by_segments(model, params, pieces), whole, rtol=0, atol=2e-5)


def test_padding_in_memory_moves_nothing():
  model, params = model_and_variables(memory_length=9)
  padded = np.insert(TEXT, [2, 2, 6], 7, axis=1)
  valid = np.insert(np.ones(TEXT.shape, bool), [2, 2, 6], False, axis=1)
  # Distances count tokens of rows as they lie: the same text is compared at the same places.
  moved = np.where(valid, padded, 11)
  one, other = (by_segments(model, params, np.split(x, [8], axis=1), valid) for x in (padded, moved))
  np.testing.assert_allclose(one[valid], other[valid], rtol=0, atol=1e-6)


def test_memory_gets_no_gradient_and_the_future_is_not_seen():
  model, params = model_and_variables()
  memory = empty_memory(model, TEXT[:, :5])

  def loss(params, through):
    _, memory_after = model.apply({"params": through, **memory}, TEXT[:, :5], mutable=["memory"])
    return model.apply({"params": params, **memory_after}, TEXT[:, 5:]).sum()

  assert all((x == 0).all() for x in jax.tree.leaves(jax.grad(loss, argnums=1)(params, params)))
  changed = TEXT.copy()
  changed[:, 7] += 1
  before, after = (model.apply({"params": params}, tokens % 23) for tokens in (TEXT, changed))
  np.testing.assert_array_equal(before[:, :7], after[:, :7])
  assert (abs(before - after)[:, 7:].max(-1) > 1e-4).all()


@pytest.mark.parametrize("same_length", [False, True])
@pytest.mark.parametrize("scan", [False, True])
def test_generation_goes_on_with_as_much_before_each_token_as_memory_holds(same_length, scan):
  model, params = model_and_variables(same_length=same_length, memory_length=5, scan=scan)
  text = np.asarray(zoo.generate(model, params, TEXT[:, :4], max_new_tokens=13))
  # A window of the memory: what a pass over all of it sees.
  windowed, _ = model_and_variables(same_length=True, memory_length=5 if same_length else 6, scan=scan)
  logits = windowed.apply({"params": params}, text)
  np.testing.assert_array_equal(logits.argmax(-1)[:, 3:-1], text[:, 4:])
  padded = np.pad(TEXT[:, :4], ((0, 0), (3, 0)))
  left = zoo.generate(model, params, padded, valid=np.arange(7)[None].repeat(2, 0) > 2, max_new_tokens=13)
  np.testing.assert_array_equal(left[:, 7:], text[:, 4:])


def test_positions_that_are_given_are_those_that_are_counted():
  model, params = model_and_variables(memory_length=0)
  positions = np.arange(12)[None] + 3
  whole = model.apply({"params": params}, TEXT)
  np.testing.assert_allclose(model.apply({"params": params}, TEXT, positions=positions), whole, rtol=0, atol=1e-5)
  restart = np.concatenate([np.arange(5), np.arange(7)])[None]
  packed = model.apply({"params": params}, TEXT, positions=restart)
  segments = model.apply({"params": params}, TEXT, segment_ids=np.repeat([[0, 1]], 2, 0).repeat([5, 7], 1))
  np.testing.assert_allclose(packed, segments, rtol=0, atol=1e-5)
  np.testing.assert_allclose(packed[:, 5:], model.apply({"params": params}, TEXT[:, 5:]), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
  "sizes, message",
  [
    ({"memory_length": -1}, "memory_length is -1. It must be at least 0."),
    ({"memory_length": 0, "same_length": True}, "memory_length is 0. It must be at least 1."),
    ({"cutoffs": [5, 5]}, r"cutoffs are \[5, 5\] of 23 tokens. They must rise, between them."),
    ({"cutoffs": [5, 23]}, r"cutoffs are \[5, 23\] of 23 tokens."),
    ({"cutoffs": [5, 11], "narrowing": 3}, "embed_dim is 6 and narrowing 3: no dimension is left for"),
    ({"cutoffs": [5], "own_projections": [True]}, "own_projections has 1 entries for 2 clusters."),
    ({"clamp": 0}, "clamp is 0. It must be at least 1."),
    ({"dim": 9}, "dim is 9. It must be even, for pairs of sine and cosine."),
  ],
)
def test_what_cannot_be_built_is_refused_in_one_line(sizes, message):
  with pytest.raises(UserError, match=f"^transformer_xl: {message}"):
    zoo.build("transformer_xl", **{**SIZES, **sizes})


def test_a_memory_of_another_batch_and_packed_rows_are_refused():
  model, params = model_and_variables()
  memory = empty_memory(model, TEXT)
  for changed in ({"memory_length": SIZES["memory_length"] + 1}, {"memory_length": SIZES["memory_length"] - 1}):
    other = zoo.build("transformer_xl", **{**SIZES, **changed})
    remembers = f"the layer remembers {other.spec['memory_length']} of width {SIZES['dim']}. Start with an empty memory"
    with pytest.raises(ValueError, match=f"The memory holds {SIZES['memory_length']} tokens of width .*, {remembers}"):
      other.apply({"params": params, **memory}, TEXT)
  with pytest.raises(ValueError, match="The memory holds 2 rows, the batch has 1. Start with an empty memory."):
    model.apply({"params": params, **memory}, TEXT[:1])
  with pytest.raises(ValueError, match="Packed sequences do not continue the segment before."):
    model.apply({"params": params, **memory}, TEXT, segment_ids=np.zeros((2, 12), int))


def test_scanned_layers_carry_memories_of_their_own():
  loop, params = model_and_variables(same_length=True)
  scanned, _ = model_and_variables(same_length=True, scan=True)
  pieces = np.split(TEXT, [5], axis=1)
  np.testing.assert_allclose(
    by_segments(scanned, stack_layers(params), pieces), by_segments(loop, params, pieces), rtol=0, atol=1e-5
  )
