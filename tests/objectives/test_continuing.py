"""Rows that go on from batch to batch learn with what they carry; those that begin anew do not."""

import jax
import numpy as np
import pytest

import zoo
from tests.filled import filled
from zoo.errors import UserError
from zoo.objectives.causal_lm import causal_lm
from zoo.objectives.objective import Context

SIZES = dict(vocab_size=23, dim=6, depth=2, num_heads=3, memory_length=5)
TOKENS = np.random.default_rng(0).integers(0, 23, (2, 15))


@pytest.mark.parametrize("scan", [False, True])
def test_a_row_learns_with_its_memory_unless_it_begins_anew(scan):
  model = zoo.build("transformer_xl", **SIZES, scan=scan)
  objective, params = causal_lm(model), filled(model, *model.example())
  first = {"tokens": TOKENS[:, :8], "continues": np.array([False, False])}
  carry = objective.carry(jax.random.key(0), first)
  _, (_, carry) = objective.loss_and_carry(params, first, context=Context(carry=carry))

  @jax.jit
  def nll(continues):
    batch = {"tokens": TOKENS[:, 7:], "continues": continues}
    return objective.forward(params, batch, context=Context(carry=carry))["nll"]

  both, one, none = (nll(np.array(rows)) for rows in ([True, True], [True, False], [False, False]))
  alone = model.apply({"params": params}, TOKENS[:, 7:-1])
  expected = -np.take_along_axis(np.asarray(jax.nn.log_softmax(alone)), TOKENS[:, 8:, None], 2).sum((1, 2))
  np.testing.assert_allclose(none, expected, rtol=1e-5)
  np.testing.assert_allclose(one, [both[0], none[1]], rtol=1e-5)
  assert (abs(both - none) > 1e-3).all()


def test_data_whose_rows_do_not_continue_are_refused():
  model = zoo.build("transformer_xl", **SIZES)
  objective, batch = causal_lm(model), {"tokens": TOKENS}
  with pytest.raises(UserError, match="The model carries memory from batch to batch, and rows of these data do not"):
    objective.carry(jax.random.key(0), batch)
