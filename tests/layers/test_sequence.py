import inspect

import jax.numpy as jnp
import numpy as np
import pytest

from zoo.layers import attention, blocks, towers
from zoo.layers.sequence import SequenceInfo, segment_positions

IDS = jnp.array([[1, 1, 1, 2, 2, 0], [4, 2, 2, 2, 2, 2]])


def test_positions_count_anew_in_every_packed_sequence():
  np.testing.assert_array_equal(segment_positions(IDS), [[0, 1, 2, 0, 1, 0], [0, 0, 1, 2, 3, 4]])


def test_positions_of_real_tokens_leave_the_others_out():
  real = jnp.array([[False, True, True, True, False, True], [True, True, False, True, True, True]])
  np.testing.assert_array_equal(segment_positions(IDS, real), [[0, 0, 1, 0, 1, 0], [0, 0, 1, 1, 2, 3]])


def test_positions_that_are_given_go_before_those_of_a_packed_row():
  positions = jnp.array([[5, 4, 3, 2, 1, 0]])
  for info in (SequenceInfo(positions=positions), SequenceInfo(positions=positions, segment_ids=IDS)):
    assert info.packed_positions() is positions and info.token_positions(6) is positions


def test_positions_of_which_nothing_is_known_count_from_0():
  info = SequenceInfo(valid=IDS > 1)
  assert info.packed_positions() is None  # A table of positions is sliced then, not looked up in.
  np.testing.assert_array_equal(info.token_positions(3), [[0, 1, 2]])


@pytest.mark.parametrize("part", [attention.Attention, blocks.PreNormBlock, blocks.PostNormBlock, towers.Tower])
def test_what_layers_are_told_of_tokens_is_one_value_for_the_input_and_one_for_the_context(part):
  taken = set(inspect.signature(part.__call__).parameters)
  assert {"info", "context_info"} <= taken
  assert not [name for name in taken if name.rpartition("context_")[2] in SequenceInfo._fields]
