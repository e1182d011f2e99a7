import jax.numpy as jnp
import numpy as np
import pytest

from tests.convert.parity import Case, check, one_deep, to_torch, tokens

SMALL = dict(
  vocab_size=37, max_position_embeddings=19, hidden_size=12, num_hidden_layers=3, num_attention_heads=3,
  intermediate_size=30,
)  # fmt: skip
ODD = dict(
  vocab_size=41, max_position_embeddings=11, hidden_size=20, num_hidden_layers=2, num_attention_heads=5,
  intermediate_size=17, hidden_act="gelu_new", layer_norm_eps=0.02, type_vocab_size=3,
  pad_token_id=2,
)  # fmt: skip
OURS = {name: lambda out, name=name: out[name] for name in ("hidden", "pooled", "mlm", "nsp", "logits", "start", "end")}
HEADS = {
  "BertModel": {"hidden": "last_hidden_state", "pooled": "pooler_output"},
  "BertForPreTraining": {"mlm": "prediction_logits", "nsp": "seq_relationship_logits"},
  "BertForMaskedLM": {"mlm": "logits"},
  "BertForNextSentencePrediction": {"nsp": "logits"},
  "BertForSequenceClassification": {"logits": "logits"},
  "BertForTokenClassification": {"logits": "logits"},
  "BertForQuestionAnswering": {"start": "start_logits", "end": "end_logits"},
  "BertForMultipleChoice": {"logits": "logits"},
}


def case(cls, name, config):
  choices = cls == "BertForMultipleChoice"
  shape = (2, 3, 7) if choices else (2, 7)
  ids = tokens(config["vocab_size"], *shape)

  def inputs(rng):
    segments = rng.integers(0, config.get("type_vocab_size", 2), shape)
    valid = rng.random(shape) < 0.7
    valid[..., 0] = True
    return np.where(rng.random(shape) < 0.2, config.get("pad_token_id", 0), ids(rng)), segments, valid

  def ours(rng):
    found, segments, valid = inputs(rng)
    return (found,), {"segments": segments, "valid": jnp.asarray(valid)}

  def theirs(rng):
    found, segments, valid = map(to_torch, inputs(rng))
    return {"input_ids": found, "token_type_ids": segments, "attention_mask": valid}

  outputs = {name: (OURS[name], lambda out, key=key: getattr(out, key)) for name, key in HEADS[cls].items()}
  return Case(f"{cls}-{name}", cls, "BertConfig", config, ours, theirs, outputs)


CASES = [case(cls, "small", config) for cls, config in one_deep(HEADS, SMALL)]
CASES += [case("BertForPreTraining", "odd", ODD), case("BertForTokenClassification", "odd", {**ODD, "num_labels": 4})]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_reference(case, tmp_path):
  check(case, tmp_path)
