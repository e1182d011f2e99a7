"""head_mask of old models."""

import numpy as np
import pytest

from tests.compat.cases import BERT, randomised, text_inputs
from zoo import compat


def test_a_mask_of_heads_takes_their_weights_away():
  model = compat.FlaxBertModel(BERT, _do_init=False)
  params = randomised(model.params_shape_tree)
  mask = np.ones((2, 3), np.float32)
  mask[1, 2] = 0
  watched = dict(params=params, output_attentions=True)
  plain, masked = (model(**text_inputs(2, 8), head_mask=heads, **watched) for heads in (None, mask))
  np.testing.assert_allclose(masked.attentions[0], plain.attentions[0], atol=1e-6)
  assert (masked.attentions[1][:, 2] == 0).all() and abs(masked[0] - plain[0]).max() > 1e-3
  every = model(**text_inputs(2, 8), head_mask=np.ones((2, 3)), params=params)
  np.testing.assert_allclose(every[0], plain[0], atol=1e-6)
  with pytest.raises(ValueError, match=r"head_mask is \[1, 3\], the model has 2 layers"):
    model(**text_inputs(2, 8), head_mask=mask[:1], params=params)
