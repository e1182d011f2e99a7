import json

import numpy as np
import pytest
import torch

import zoo
from tests.convert import seq2seq
from tests.convert.parity import check, one_deep, reference
from tests.convert.seq2seq import BARE, ENCODED, ENCODER, LM, SPAN
from zoo.errors import UserError

SMALL = dict(vocab_size=37, d_model=12, d_kv=5, d_ff=30, num_layers=2, num_heads=3, decoder_start_token_id=0)
ODD = dict(
  vocab_size=41, d_model=20, d_kv=3, d_ff=17, num_layers=3, num_decoder_layers=2, num_heads=7, layer_norm_epsilon=0.02,
  feed_forward_proj="gated-gelu", relative_attention_num_buckets=9, relative_attention_max_distance=7,
  decoder_start_token_id=2, eos_token_id=3,
)  # fmt: skip
HEADS = {
  "ForConditionalGeneration": LM | ENCODED,
  "Model": BARE,
  "EncoderModel": ENCODER,
  "ForSequenceClassification": LM | ENCODED,
  "ForTokenClassification": LM,
  "ForQuestionAnswering": SPAN | ENCODED,
}


def calm(model):
  """Queries as small as they start: logits are not scaled."""
  for name, parameter in model.named_parameters():
    parameter.mul_(model.config.d_kv**-0.5 if name.endswith(".q.weight") else 1)


def untie(model):
  calm(model)
  model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight) / 3)


def case(cls, name, config, kind="T5", prepare=calm):
  encoder = cls in ("EncoderModel", "ForTokenClassification")
  return seq2seq.case(
    kind + cls, f"{kind}Config", name, config, HEADS[cls], encoder=encoder, eos=config.get("eos_token_id", 1),
    decoder_tokens=cls in ("ForConditionalGeneration", "Model"), last_is_normed=True, prepare=prepare,
  )  # fmt: skip


CASES = [case(cls, "small", config) for cls, config in one_deep(HEADS, SMALL)]
CASES += [case("ForConditionalGeneration", "odd", ODD)]
# Other outputs, activations and names: of layers that the cases above compare, so one of each will do.
ONE = dict(num_layers=1, num_decoder_layers=1)
CASES += [
  case("ForConditionalGeneration", "untied", {**ODD, **ONE, "tie_word_embeddings": False}, prepare=untie),
  case("ForConditionalGeneration", "untied but scaled", {**SMALL, **ONE, "feed_forward_proj": "gelu"}, prepare=untie),
  case("ForConditionalGeneration", "untied", {**SMALL, **ONE, "feed_forward_proj": "gated-silu"}, "MT5", prepare=untie),
  case("ForConditionalGeneration", "tied", {**SMALL, **ONE, "dense_act_fn": "quick_gelu"}, "MT5"),
  case("ForSequenceClassification", "odd", {**ODD, **ONE, "num_labels": 4}),
  case("ForTokenClassification", "odd", {**ODD, **ONE, "num_labels": 5}, "MT5"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_reference(case, tmp_path):
  check(case, tmp_path)


def test_other_heads_are_read_from_the_same_files(tmp_path):
  reference(case("ForConditionalGeneration", "untied", ODD, prepare=untie)).save_pretrained(tmp_path)
  model, params = zoo.load(tmp_path, head="encoder")
  assert set(params) == {"embed", "encoder"} and model.spec["head"] == "encoder"
  assert set(zoo.load(tmp_path, head="none")[1]) == {"embed", "encoder", "decoder"}


def test_a_switch_that_is_null_is_off(tmp_path):
  reference(case("ForConditionalGeneration", "", SMALL)).save_pretrained(tmp_path)
  config = json.loads((tmp_path / "config.json").read_text())
  assert zoo.load(tmp_path)[0].spec["scaled"]
  (tmp_path / "config.json").write_text(json.dumps({**config, "scale_decoder_outputs": None}))
  assert not zoo.load(tmp_path)[0].spec["scaled"]


def test_an_encoder_may_say_that_it_has_no_decoder_layers(tmp_path):
  reference(case("EncoderModel", "", {**SMALL, "num_decoder_layers": 0})).save_pretrained(tmp_path)
  assert set(zoo.load(tmp_path)[1]) == {"embed", "encoder"}


def test_a_decoder_without_layers_is_its_norm_and_generates_as_the_reference_does(tmp_path):
  torch_model = reference(case("ForConditionalGeneration", "", {**SMALL, "num_decoder_layers": 0}))
  torch_model.save_pretrained(tmp_path)
  model, params = zoo.load(tmp_path)
  assert set(params["decoder"]) == {"norm"}
  ids = np.array([[3, 4, 5, 1], [7, 6, 3, 1]])
  inputs = dict(input_ids=torch.tensor(ids), attention_mask=torch.ones(ids.shape))
  want = torch_model.generate(**inputs, max_new_tokens=3)
  np.testing.assert_array_equal(zoo.generate(model, params, ids, max_new_tokens=3), want.numpy())
  zoo.save_hf(tmp_path / "written", model, params)
  assert json.loads((tmp_path / "written" / "config.json").read_text())["num_decoder_layers"] == 0
  assert zoo.load(tmp_path / "written")[0].spec == model.spec


@pytest.mark.parametrize(
  "option, message",
  [
    ({"feed_forward_proj": "gated-tanh"}, "feed_forward_proj is 'gated-tanh', which the zoo does not have"),
    ({"dense_act_fn": "tanh"}, "dense_act_fn is 'tanh', which the zoo does not have"),
    ({"is_decoder": True}, "is_decoder is True"),
  ],
)
def test_what_is_not_implemented_is_refused_by_name(option, message, tmp_path):
  reference(case("Model", "", {**SMALL, **option})).save_pretrained(tmp_path)
  with pytest.raises(UserError, match=message):
    zoo.load(tmp_path)
