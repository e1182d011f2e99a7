import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.convert.parity import Case, applied, check, one_deep, reference, to_torch
from zoo.errors import UserError

SEPARATOR = 2
SMALL = dict(
  vocab_size=37, max_position_embeddings=29, hidden_size=12, num_hidden_layers=3, num_attention_heads=3,
  intermediate_size=30, attention_window=[4, 8, 6],
)  # fmt: skip
ODD = dict(
  vocab_size=41, max_position_embeddings=31, hidden_size=20, num_hidden_layers=2, num_attention_heads=5,
  intermediate_size=17, attention_window=6, hidden_act="relu", layer_norm_eps=0.02, type_vocab_size=3, pad_token_id=4,
  sep_token_id=3,
)  # fmt: skip
HEADS = {
  "LongformerModel": {"hidden": "last_hidden_state", "pooled": "pooler_output"},
  "LongformerForMaskedLM": {"mlm": "logits"},
  "LongformerForSequenceClassification": {"logits": "logits"},
  "LongformerForTokenClassification": {"logits": "logits"},
  "LongformerForQuestionAnswering": {"start": "start_logits", "end": "end_logits"},
  "LongformerForMultipleChoice": {"logits": "logits"},
}
LENGTH = 23
REAL = [LENGTH, 17]  # Real tokens of the two rows; the rest is padding, whose states are nobody's.


def case(cls, name, config, marked=()):
  """marked: the global tokens of the first row, and those one further of the second; (): the head's own."""
  shape = (2, 2, LENGTH) if cls.endswith("MultipleChoice") else (2, LENGTH)
  pad, separator = config.get("pad_token_id", 1), config.get("sep_token_id", SEPARATOR)

  def inputs(rng):
    tokens = rng.integers(5, config["vocab_size"], shape).astype(np.int32)
    tokens[..., [5, 6, 15]] = separator
    valid = np.arange(LENGTH) < np.array(REAL).reshape((2,) + (1,) * (len(shape) - 1))
    tokens = np.where(valid, tokens, pad).astype(np.int32)
    is_global = np.zeros(shape, bool)
    for row in range(2):
      is_global[row, ..., [place + row for place in marked]] = True
    return (
      tokens,
      rng.integers(0, config.get("type_vocab_size", 2), shape),
      np.ascontiguousarray(np.broadcast_to(valid, shape)),
      is_global,
    )

  def ours(rng):
    tokens, segments, valid, is_global = inputs(rng)
    return (tokens,), {"segments": segments, "valid": jnp.asarray(valid)} | ({"is_global": is_global} if marked else {})

  def theirs(rng):
    tokens, segments, valid, is_global = map(to_torch, inputs(rng))
    named = {"input_ids": tokens, "token_type_ids": segments, "attention_mask": valid}
    return named | ({"global_attention_mask": is_global} if marked else {})

  def real(array, lengths=REAL):
    """The rows' real tokens, where an output has a state of each."""
    if array.ndim < 2 or array.shape[1] != LENGTH:
      return array
    module = np if not hasattr(array, "detach") and isinstance(array, np.ndarray) else None
    parts = [array[row, :length] for row, length in enumerate(lengths)]
    if hasattr(array, "detach"):
      import torch

      return torch.cat(parts)
    return (module or jnp).concatenate(parts)

  outputs = {
    name: (lambda out, name=name: real(out[name]), lambda out, key=key: real(getattr(out, key)))
    for name, key in HEADS[cls].items()
  }
  return Case(f"{cls}-{name}", cls, "LongformerConfig", config, ours, theirs, outputs, hidden=(), weights=(), plain=())


CASES = [case(cls, "small", config) for cls, config in one_deep(HEADS, {**SMALL, "attention_window": 4})]
CASES += [case("LongformerModel", "global", SMALL, (0, 7, 13))]
CASES += [case("LongformerForMaskedLM", "odd", ODD, (3, *range(8, 16)))]
CASES += [case("LongformerForSequenceClassification", "odd", {**ODD, "num_labels": 4})]
CASES += [case("LongformerForTokenClassification", "odd", {**ODD, "num_labels": 1, "hidden_act": "silu"}, (15,))]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_reference(case, tmp_path):
  check(case, tmp_path)


def test_a_merged_mask_is_a_mask_and_global_tokens(tmp_path):
  there = reference(case("LongformerModel", "merged", {**SMALL, "num_hidden_layers": 1, "attention_window": 4}))
  there.save_pretrained(tmp_path)
  model, params = zoo.load(tmp_path)
  tokens = np.random.default_rng(0).integers(5, 37, (2, 13))
  merged = np.ones((2, 13), np.int32)
  merged[0, [2, 9]], merged[1, 10:] = 2, 0
  ours = applied(model, params, tokens, valid=jnp.asarray(merged))["hidden"]
  theirs = there(input_ids=to_torch(tokens), attention_mask=to_torch(merged)).last_hidden_state.detach().numpy()
  np.testing.assert_allclose(np.asarray(ours)[merged > 0], theirs[merged > 0], atol=1e-5)
  apart = applied(model, params, tokens, valid=jnp.asarray(merged > 0), is_global=jnp.asarray(merged == 2))["hidden"]
  np.testing.assert_array_equal(ours, apart)


@pytest.mark.parametrize("option", [{"is_decoder": True}, {"attention_dilation": [2, 2, 2]}, {"autoregressive": True}])
def test_what_is_not_there_is_refused_by_name(option, tmp_path):
  reference(case("LongformerForMaskedLM", "small", {**SMALL, **option})).save_pretrained(tmp_path)
  name, value = next(iter(option.items()))
  with pytest.raises(UserError, match=f"{name} is ".replace("[", "\\[")):
    zoo.load(tmp_path)
  assert value


def test_a_window_is_even_and_there_is_one_for_each_layer():
  sizes = dict(vocab_size=23, max_length=19, dim=6, depth=2, num_heads=3)
  for window, problem in ((5, "window is 5. It must be even"), ([4, 7], "window is 7"), ([4], "lists 1 windows for 2")):
    with pytest.raises(ValueError, match=problem):
      zoo.build("longformer", **sizes, window=window)
  model = zoo.build("longformer", **sizes, window=40)  # Larger than any sequence.
  params = model.init(jax.random.key(0), *model.example())["params"]
  tokens = np.zeros((1, 7), np.int32)
  with pytest.raises(ValueError, match=r"is_global is of shape \[1, 9\], the tokens are \[1, 7\]"):
    model.apply({"params": params}, tokens, is_global=jnp.ones((1, 9), bool))
