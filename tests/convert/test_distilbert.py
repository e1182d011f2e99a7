import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.convert.parity import Case, check, one_deep, reference, to_torch
from zoo.errors import UserError

SMALL = dict(vocab_size=37, max_position_embeddings=19, dim=12, n_layers=3, n_heads=3, hidden_dim=30)
ODD = dict(
  vocab_size=41, max_position_embeddings=11, dim=20, n_layers=2, n_heads=5, hidden_dim=17, activation="relu",
  pad_token_id=3, sinusoidal_pos_embds=True,
)  # fmt: skip
HEADS = {
  "DistilBertModel": {"hidden": "last_hidden_state"},
  "DistilBertForMaskedLM": {"mlm": "logits"},
  "DistilBertForSequenceClassification": {"logits": "logits"},
  "DistilBertForTokenClassification": {"logits": "logits"},
  "DistilBertForQuestionAnswering": {"start": "start_logits", "end": "end_logits"},
  "DistilBertForMultipleChoice": {"logits": "logits"},
}


def case(cls, name, config):
  shape = (2, 3, 7) if cls == "DistilBertForMultipleChoice" else (2, 7)

  def inputs(rng):
    tokens = rng.integers(4, config["vocab_size"], shape).astype(np.int32)
    tokens[1, ..., 5:] = tokens[0, ..., 2] = config.get("pad_token_id", 0)
    valid = rng.random(shape) < 0.8
    valid[..., 0] = True
    return tokens, valid

  def ours(rng):
    tokens, valid = inputs(rng)
    return (tokens,), {"valid": jnp.asarray(valid)}

  def theirs(rng):
    tokens, valid = map(to_torch, inputs(rng))
    return {"input_ids": tokens, "attention_mask": valid}

  outputs = {
    name: (lambda out, name=name: out[name], lambda out, key=key: getattr(out, key)) for name, key in HEADS[cls].items()
  }
  return Case(f"{cls}-{name}", cls, "DistilBertConfig", config, ours, theirs, outputs)


CASES = [case(cls, "small", config) for cls, config in one_deep(HEADS, SMALL)]
CASES += [case("DistilBertForMaskedLM", "odd", ODD)]
CASES += [case("DistilBertForSequenceClassification", "odd", {**ODD, "activation": "gelu_new", "num_labels": 4})]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_reference(case, tmp_path):
  check(case, tmp_path)


def test_heads_start_anew_where_the_file_has_none(tmp_path):
  reference(case("DistilBertForMaskedLM", "small", SMALL)).save_pretrained(tmp_path)
  with pytest.warns(UserWarning, match="classify/bias, classify/kernel, pooler/bias, pooler/kernel: initialised"):
    zoo.load(tmp_path, head="classify")


def test_sentences_are_not_told_apart(tmp_path):
  reference(case("DistilBertModel", "small", SMALL)).save_pretrained(tmp_path)
  model, params = zoo.load(tmp_path)
  with pytest.raises(ValueError, match="This model has no segment embeddings. Leave out segments."):
    model.apply({"params": params}, jnp.ones((1, 3), int), segments=jnp.ones((1, 3), int))


def test_an_untied_head_is_refused_by_name(tmp_path):
  there = reference(case("DistilBertForMaskedLM", "small", {**SMALL, "tie_word_embeddings": False}))
  there.save_pretrained(tmp_path)
  with pytest.raises(UserError, match="tie_word_embeddings is False, which the zoo does not have"):
    zoo.load(tmp_path)
