import numpy as np
import pytest

from zoo.errors import UserError
from zoo.transcribe.windows import windows


@pytest.mark.parametrize("samples", [1, 2, 29, 30, 31, 49, 50, 51, 70, 997])
@pytest.mark.parametrize("overlap", [0, 5, 14])
def test_windows_hear_every_sample_away_from_their_borders_once(samples, overlap):
  parts = windows(samples, 30, overlap)
  heard = np.zeros(samples, int)
  for part in parts:
    assert 0 < part.length <= 30 and part.end <= samples
    heard[part.start + part.left : part.end - part.right] += 1
  assert (heard == 1).all() and parts[0].left == parts[-1].right == 0
  assert [part.is_last for part in parts] == [False] * (len(parts) - 1) + [True]
  for one, other in zip(parts, parts[1:]):
    assert one.end - other.start == one.right + other.left


def test_an_overlap_that_leaves_nothing_is_refused():
  with pytest.raises(UserError, match="Windows of 30 samples overlap by 15 at either end. Make it less than half"):
    windows(40, 30, 15)
