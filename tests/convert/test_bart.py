import pytest
import torch

import zoo
from tests.convert import seq2seq
from tests.convert.parity import check, one_deep, reference
from tests.convert.seq2seq import BARE, ENCODED, LM, SPAN
from zoo.errors import UserError

SMALL = dict(
  vocab_size=37, max_position_embeddings=23, d_model=12, encoder_layers=2, decoder_layers=2, encoder_attention_heads=3,
  decoder_attention_heads=3, encoder_ffn_dim=30, decoder_ffn_dim=30,
)  # fmt: skip
ODD = dict(
  vocab_size=41, max_position_embeddings=19, d_model=30, encoder_layers=3, decoder_layers=1, encoder_attention_heads=3,
  decoder_attention_heads=5, encoder_ffn_dim=17, decoder_ffn_dim=23, activation_function="gelu_new",
  scale_embedding=True, pad_token_id=5, eos_token_id=3, decoder_start_token_id=7,
)  # fmt: skip
HEADS = {
  "BartForConditionalGeneration": LM | ENCODED,
  "BartModel": BARE,
  "BartForSequenceClassification": LM | ENCODED,
  "BartForQuestionAnswering": SPAN | ENCODED,
}


def add_bias(model):
  model.final_logits_bias.copy_(torch.randn_like(model.final_logits_bias))


def case(cls, name, config, **more):
  has_tied_head = cls in ("BartForConditionalGeneration", "BartModel")
  eos = config.get("eos_token_id", 2)
  return seq2seq.case(cls, "BartConfig", name, config, HEADS[cls], decoder_tokens=has_tied_head, eos=eos, **more)


CASES = [case(cls, "small", config) for cls, config in one_deep(HEADS, SMALL)]
CASES += [
  case("BartForConditionalGeneration", "odd", ODD, prepare=add_bias),
  case("BartForConditionalGeneration", "no pad", {**ODD, "pad_token_id": None}),
  case("BartForSequenceClassification", "odd", {**ODD, "num_labels": 4}),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_reference(case, tmp_path):
  check(case, tmp_path)


def test_other_heads_are_read_from_the_same_files(tmp_path):
  reference(case("BartForConditionalGeneration", "", ODD, prepare=add_bias)).save_pretrained(tmp_path)
  _, params = zoo.load(tmp_path, head="none")
  assert set(params) == {"embed", "encoder", "decoder"}
  with pytest.warns(UserWarning, match="has no classify/dense/bias, .*: initialised at random"):
    model, _ = zoo.load(tmp_path, head="classify")
  assert model.spec["num_classes"] == 3  # The reference's default for this one.


@pytest.mark.parametrize(
  "option, message",
  [
    ({"activation_function": "tanh"}, "activation_function is 'tanh', which the zoo does not have"),
    ({"tie_word_embeddings": False}, "tie_word_embeddings is False, which the zoo does not have"),
    ({"normalize_before": True}, "normalize_before is True, which the zoo does not have"),
  ],
)
def test_what_is_not_implemented_is_refused_by_name(option, message, tmp_path):
  reference(case("BartModel", "", {**SMALL, **option})).save_pretrained(tmp_path)
  with pytest.raises(UserError, match=message):
    zoo.load(tmp_path)
