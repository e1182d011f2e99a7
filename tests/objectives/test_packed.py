"""Texts that share a row: what is learnt of them is what is learnt of each in a row of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.filled import filled
from zoo.config import registry

TOWER = dict(vocab_size=23, max_length=16, dim=6, depth=2, num_heads=3)
ROTARY = dict(TOWER, head_dim=4, num_kv_heads=1, mlp_dim=7)
DECODERS = {
  "gpt": TOWER,
  "rnn": dict(vocab_size=23, dim=6, depth=2),
  "openai_gpt": TOWER,
  "llama": dict(ROTARY, window=3, pattern=["local", "global"]),
  "gemma": dict(ROTARY, attention_cap=5.0, cap=4.0, sandwich=True, window=3, pattern=["local", "global"]),
  "mixtral": dict(ROTARY, num_experts=4, top_k=2),
}
ENCODERS = {
  "bert": dict(TOWER, head="mlm"),
  "roberta": dict(TOWER, head="mlm"),
  "longformer": dict(TOWER, head="mlm", window=4),
  "mpnet": dict(TOWER, head="mlm"),
  "distilbert": dict(TOWER, head="mlm"),
  "modernbert": dict(TOWER, mlp_dim=7, window=4),
}
LENGTHS = ([5, 3, 6], [7, 2, 4])  # Of the texts of two rows of 16.
RNG = np.random.default_rng(0)
TEXTS = [RNG.integers(2, 23, length) for row in LENGTHS for length in row]


def side_by_side(arrays, length=16):
  """Arrays of each text -> [2, length], as `zoo.data.packed` has them."""
  joined = [np.concatenate(arrays[i : i + 3]) for i in (0, 3)]
  return jnp.array([np.pad(row, (0, length - len(row))) for row in joined])


def alone(arrays, length=9):
  return jnp.array([np.pad(row, (0, length - len(row))) for row in arrays])


def batch(place, segmented):
  numbers = [np.full(len(text), 1 + i % 3) for i, text in enumerate(TEXTS)]
  arrays = {"tokens": place(TEXTS), "valid": place([np.ones(len(text), bool) for text in TEXTS])}
  return {**arrays, "segment_ids": place(numbers)} if segmented else arrays


def grown(objective, params, joined):
  return jax.jit(jax.value_and_grad(lambda params: objective.loss(params, joined), has_aux=True))(params)


def agree(one, other):
  (loss, metrics), grads = one
  (expected, of_each), of_each_grads = other
  np.testing.assert_allclose(loss, expected, rtol=1e-5)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), metrics, of_each)
  largest = max(float(np.abs(x).max()) for x in jax.tree.leaves(of_each_grads))
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5 * largest), grads, of_each_grads)


@pytest.mark.parametrize("family", DECODERS)
def test_a_decoder_learns_of_packed_texts_what_it_learns_of_each(family):
  model = zoo.build(family, **DECODERS[family])
  params = filled(model, *model.example())
  options = {"balance": 0.1} if family == "mixtral" else {}
  objective = registry.build("objectives", {"name": "causal_lm", **options}, model)
  agree(*(grown(objective, params, batch(*how)) for how in ((side_by_side, True), (alone, False))))


@pytest.mark.parametrize("family", ENCODERS)
def test_an_encoder_learns_of_packed_texts_what_it_learns_of_each(family):
  model = zoo.build(family, **ENCODERS[family])
  params = filled(model, *model.example())
  objective = registry.build("objectives", {"name": "masked_lm", "mask_token": 1, "vocab_size": 23}, model)
  each = objective.prepare(batch(alone, False))
  # What is hidden is drawn per row: the packed rows take what was drawn for each text.
  sizes = [len(text) for text in TEXTS]
  arrays = batch(side_by_side, True)
  starts = [sum(sizes[i // 3 * 3 : i]) for i in range(len(TEXTS))]
  arrays["inputs"] = side_by_side([np.asarray(row)[:size] for row, size in zip(each["inputs"], sizes)])
  for name in ("predict", "target", "chosen"):
    shift = np.array(starts)[:, None] if name == "predict" else 0
    arrays[name] = (np.asarray(each[name]) + shift).reshape(2, -1)
  arrays["chosen"] = arrays["chosen"].astype(np.float32)
  agree(grown(objective, params, arrays), grown(objective, params, each))


def test_no_token_is_predicted_from_the_text_before_it():
  model = zoo.build("gpt", **TOWER)
  objective = registry.build("objectives", {"name": "causal_lm"}, model)
  arrays = objective.forward(filled(model, *model.example()), batch(side_by_side, True))
  assert arrays["count"].tolist() == [sum(length - 1 for length in row) for row in LENGTHS]


@pytest.mark.parametrize(
  "family, head", [("bert", "pretraining"), ("roberta", "classify"), ("modernbert", "classify"), ("bert", None)]
)
def test_a_model_that_sums_up_a_row_refuses_several_texts(family, head):
  sizes = {**ENCODERS[family], "head": head, "num_classes": 3 if head == "classify" else None}
  model = zoo.build(family, **sizes)
  joined = batch(side_by_side, True)
  with pytest.raises(
    ValueError, match="This model has one output per row, so sequences cannot be packed. Build it with head='mlm'"
  ):
    model.init(jax.random.key(0), joined["tokens"], segment_ids=joined["segment_ids"])
