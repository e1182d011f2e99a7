import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.filled import filled
from zoo.layers.heads import TokenHeads, refuse_packed, token_heads

X = np.random.default_rng(0).standard_normal((2, 3, 5), np.float32)


class Toy(TokenHeads):
  """A model that returns its input as hidden states."""

  scale: float = 1.0

  def __call__(self, x):
    x = x[:, 0] if self.summarizes else x
    return self.head_outputs(x, (1, 2), before=lambda y: self.scale * y)


def toy(head):
  return Toy(**token_heads(head, 4 if head and head.startswith("classify") else None, nn.Dense))


@pytest.mark.parametrize(
  "head, field, outputs",
  [
    ("classify", "classify", {"logits": (2, 4)}),
    ("multiple_choice", "choose", {"logits": (1, 2)}),
    ("classify_tokens", "classify_tokens", {"logits": (2, 3, 4)}),
    ("question_answering", "answer", {"start": (2, 3), "end": (2, 3)}),
  ],
)
def test_a_head_bears_the_name_of_its_field_and_gives_float32(head, field, outputs):
  model = toy(head)
  params = filled(model, X)
  assert list(params) == [field]
  out = jax.jit(model.apply)({"params": params}, X.astype(jnp.bfloat16))
  assert {name: array.shape for name, array in out.items()} == outputs
  assert {array.dtype for array in out.values()} == {jnp.dtype("float32")}


def test_what_comes_before_a_head_changes_its_input_alone():
  model = toy("question_answering").copy(scale=3.0)
  params = jax.device_get(filled(model, X))
  out = model.apply({"params": params}, X)
  both = 3 * X @ params["answer"]["kernel"] + params["answer"]["bias"]
  for i, name in enumerate(("start", "end")):
    np.testing.assert_allclose(out[name], both[..., i], rtol=1e-5, atol=1e-5)


def test_a_model_without_a_head_gives_nothing():
  model = toy(None)
  assert model.head is None and not model.summarizes
  assert model.apply({}, X) == {}


def test_choices_become_rows_of_a_model_that_chooses_alone():
  arrays = np.zeros((2, 3, 5)), None, np.zeros((1, 5))
  shapes = lambda model: [None if x is None else x.shape for x in model.rows(*arrays)]
  assert shapes(toy("multiple_choice")) == [(6, 5), None, (1, 5)]
  assert shapes(toy("classify")) == [(2, 3, 5), None, (1, 5)]


def test_a_packed_row_has_no_summary():
  refuse_packed(None, True)
  refuse_packed(X, False)
  with pytest.raises(
    ValueError, match="has one output per row, so sequences cannot be packed. Build it with head='mlm'"
  ):
    refuse_packed(X, True)
