import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.convert.parity import Case, applied, check, one_deep, reference, to_torch
from tests.hub_folder import random_params
from zoo.errors import UserError

PAD, LENGTH = 1, 23  # Far enough apart for buckets that hold several distances.
SMALL = dict(
  vocab_size=37, max_position_embeddings=29, hidden_size=12, num_hidden_layers=2, num_attention_heads=3,
  intermediate_size=30,
)  # fmt: skip
ODD = dict(
  vocab_size=41, max_position_embeddings=31, hidden_size=20, num_hidden_layers=3, num_attention_heads=5,
  intermediate_size=17, hidden_act="relu", layer_norm_eps=0.02, pad_token_id=4,
)  # fmt: skip
HEADS = {
  "MPNetModel": {"hidden": "last_hidden_state", "pooled": "pooler_output"},
  "MPNetForMaskedLM": {"mlm": "logits"},
  "MPNetForSequenceClassification": {"logits": "logits"},
  "MPNetForTokenClassification": {"logits": "logits"},
  "MPNetForQuestionAnswering": {"start": "start_logits", "end": "end_logits"},
  "MPNetForMultipleChoice": {"logits": "logits"},
}


def case(cls, name, config):
  shape = (2, 3, LENGTH) if cls.endswith("MultipleChoice") else (2, LENGTH)

  def inputs(rng):
    """Padding at the end, and a mask that hides further tokens in between."""
    tokens = rng.integers(5, config["vocab_size"], shape).astype(np.int32)
    tokens[1, ..., 19:] = tokens[0, ..., 2] = PAD
    valid = (tokens != PAD) & (rng.random(shape) < 0.8)
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
  return Case(f"{cls}-{name}", cls, "MPNetConfig", config, ours, theirs, outputs)


CASES = [case(cls, "small", config) for cls, config in one_deep(HEADS, SMALL)]
CASES += [case("MPNetForMaskedLM", "odd", ODD), case("MPNetForSequenceClassification", "odd", {**ODD, "num_labels": 4})]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_reference(case, tmp_path):
  check(case, tmp_path)


def test_a_file_without_a_pooler_is_read_as_it_is(tmp_path):
  reference(case("MPNetForMaskedLM", "small", SMALL)).save_pretrained(tmp_path)
  model, params = zoo.load(tmp_path, head="none")
  assert set(applied(model, params, np.full((1, 5), 7))) == {"hidden"}


@pytest.mark.parametrize("option", [{"relative_attention_num_buckets": 40}, {"tie_word_embeddings": False}], ids=str)
def test_what_is_not_there_is_refused_by_name(option, tmp_path):
  reference(case("MPNetForMaskedLM", "small", {**SMALL, **option})).save_pretrained(tmp_path)
  with pytest.raises(UserError, match=f"{next(iter(option))} is {next(iter(option.values()))}, which the zoo does not"):
    zoo.load(tmp_path)


def test_a_model_that_the_hub_does_not_have_is_not_written(tmp_path):
  model = zoo.build("mpnet", vocab_size=11, max_length=5, dim=6, depth=1, num_heads=2, pad=3)
  with pytest.raises(UserError, match="pad 3 is not one of the hub's, where it is 1. Use zoo.save"):
    zoo.save_hf(tmp_path, model, random_params(model))
