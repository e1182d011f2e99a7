import pytest

from tests.convert import seq2seq
from tests.convert.parity import check, one_deep
from tests.convert.seq2seq import BARE, ENCODED, ENCODER, LM, SPAN
from tests.convert.test_t5 import calm, untie

SMALL = dict(vocab_size=37, d_model=12, d_kv=5, d_ff=30, num_layers=2, num_heads=3, decoder_start_token_id=0)
ODD = dict(
  vocab_size=41, d_model=20, d_kv=3, d_ff=17, num_layers=3, num_decoder_layers=2, num_heads=7, layer_norm_epsilon=0.02,
  feed_forward_proj="relu", relative_attention_num_buckets=9, relative_attention_max_distance=7,
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


def case(cls, name, config, prepare=calm):
  encoder = cls in ("EncoderModel", "ForTokenClassification")
  return seq2seq.case(
    "UMT5" + cls, "UMT5Config", name, config, HEADS[cls], encoder=encoder, eos=config.get("eos_token_id", 1),
    decoder_tokens=cls in ("ForConditionalGeneration", "Model"), last_is_normed=True, prepare=prepare,
  )  # fmt: skip


CASES = [case(cls, "small", config) for cls, config in one_deep(HEADS, SMALL)]
CASES += [case("ForConditionalGeneration", "odd and untied", ODD, untie)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_reference(case, tmp_path):
  check(case, tmp_path)
