import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.convert.parity import Case, applied, check, one_deep, reference, to_torch
from zoo.errors import UserError

PAD = 1
SMALL = dict(
  vocab_size=37, max_position_embeddings=19, hidden_size=12, num_hidden_layers=3, num_attention_heads=3,
  intermediate_size=30,
)  # fmt: skip
ODD = dict(
  vocab_size=41, max_position_embeddings=13, hidden_size=20, num_hidden_layers=2, num_attention_heads=5,
  intermediate_size=17, hidden_act="relu", layer_norm_eps=0.02, type_vocab_size=3, pad_token_id=4,
)  # fmt: skip
HEADS = {
  "RobertaModel": {"hidden": "last_hidden_state", "pooled": "pooler_output"},
  "RobertaForMaskedLM": {"mlm": "logits"},
  "RobertaForSequenceClassification": {"logits": "logits"},
  "RobertaForTokenClassification": {"logits": "logits"},
  "RobertaForQuestionAnswering": {"start": "start_logits", "end": "end_logits"},
  "RobertaForMultipleChoice": {"logits": "logits"},
}


def case(cls, name, config, config_cls="RobertaConfig"):
  shape = (2, 3, 7) if cls.endswith("MultipleChoice") else (2, 7)

  def inputs(rng):
    """Padding at the end, and a mask that hides further tokens in between."""
    tokens = rng.integers(5, config["vocab_size"], shape).astype(np.int32)
    tokens[1, ..., 5:] = tokens[0, ..., 2] = config.get("pad_token_id", PAD)
    valid = (tokens != config.get("pad_token_id", PAD)) & (rng.random(shape) < 0.8)
    valid[..., 0] = True
    return tokens, rng.integers(0, config.get("type_vocab_size", 2), shape), valid

  def ours(rng):
    tokens, segments, valid = inputs(rng)
    return (tokens,), {"segments": segments, "valid": jnp.asarray(valid)}

  def theirs(rng):
    tokens, segments, valid = map(to_torch, inputs(rng))
    return {"input_ids": tokens, "token_type_ids": segments, "attention_mask": valid}

  outputs = {
    name: (lambda out, name=name: out[name], lambda out, key=key: getattr(out, key))
    for name, key in HEADS[cls.replace("XLM", "").replace("Camembert", "Roberta")].items()
  }
  return Case(f"{cls}-{name}", cls, config_cls, config, ours, theirs, outputs)


CASES = [case(cls, "small", config) for cls, config in one_deep(HEADS, SMALL)]
CASES += [case("RobertaForMaskedLM", "odd", ODD)]
CASES += [case("RobertaForSequenceClassification", "odd", {**ODD, "num_labels": 4})]
CASES += [case("RobertaForTokenClassification", "odd", {**ODD, "num_labels": 1, "hidden_act": "silu"})]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_reference(case, tmp_path):
  check(case, tmp_path)


@pytest.mark.parametrize("name", ["XLMRoberta", "Camembert"])
def test_reads_the_same_model_under_other_names(name, tmp_path):
  there = reference(case(f"{name}ForMaskedLM", "small", SMALL, f"{name}Config"))
  there.save_pretrained(tmp_path)
  model, params = zoo.load(tmp_path)
  assert model.spec["family"] == "roberta"
  tokens = np.random.default_rng(0).integers(3, 37, (2, 5))
  ours, theirs = applied(model, params, tokens)["mlm"], there(input_ids=to_torch(tokens)).logits
  np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-4, atol=1e-4)


def test_a_file_without_a_pooler_is_read_as_it_is(tmp_path):
  reference(case("RobertaForMaskedLM", "small", SMALL)).save_pretrained(tmp_path)
  model, params = zoo.load(tmp_path, head="none")
  assert set(applied(model, params, np.full((1, 5), 7))) == {"hidden"}
  with pytest.warns(UserWarning, match="choose/bias, choose/kernel, pooler/bias, pooler/kernel: initialised at random"):
    zoo.load(tmp_path, head="multiple_choice")
  with pytest.warns(UserWarning, match="classify/bias, classify/kernel, summary/bias, summary/kernel: initialised"):
    zoo.load(tmp_path, head="classify")


@pytest.mark.parametrize("option", [{"is_decoder": True}, {"tie_word_embeddings": False}], ids=str)
def test_what_is_not_there_is_refused_by_name(option, tmp_path):
  reference(case("RobertaForMaskedLM", "small", {**SMALL, **option})).save_pretrained(tmp_path)
  with pytest.raises(UserError, match=f"{next(iter(option))} is {next(iter(option.values()))}, which the zoo does not"):
    zoo.load(tmp_path)
