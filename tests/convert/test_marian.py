import json

import pytest
import torch

import zoo
from tests.convert import seq2seq
from tests.convert.parity import check, reference
from tests.convert.seq2seq import BARE, ENCODED, LM
from zoo.errors import UserError

SMALL = dict(
  vocab_size=37, max_position_embeddings=23, d_model=12, encoder_layers=2, decoder_layers=2, encoder_attention_heads=3,
  decoder_attention_heads=3, encoder_ffn_dim=30, decoder_ffn_dim=30, activation_function="relu", scale_embedding=True,
  pad_token_id=0, decoder_start_token_id=0,
)  # fmt: skip
ODD = dict(
  vocab_size=41, max_position_embeddings=19, d_model=30, encoder_layers=3, decoder_layers=1, encoder_attention_heads=3,
  decoder_attention_heads=5, encoder_ffn_dim=17, decoder_ffn_dim=23, activation_function="swish", pad_token_id=40,
  decoder_start_token_id=7,
)  # fmt: skip
OWN = {**ODD, "decoder_vocab_size": 29, "share_encoder_decoder_embeddings": False, "pad_token_id": 5}


def compute(model):
  """Sinusoids are no parameters, though they look like it; the bias of the output is one, though it does not."""
  for tower in (model.get_encoder(), model.get_decoder()):
    tower.embed_positions.weight.copy_(tower.embed_positions.create_weight())
  if hasattr(model, "final_logits_bias"):
    model.final_logits_bias.copy_(torch.randn_like(model.final_logits_bias))


def case(cls, name, config, **more):
  outputs = BARE if cls == "MarianModel" else LM | ENCODED
  lacking = frozenset(f"{tower}.embed_positions.weight" for tower in ("encoder", "decoder"))
  return seq2seq.case(cls, "MarianConfig", name, config, outputs, prepare=compute, lacking=lacking, **more)


CASES = [
  case("MarianMTModel", "small", SMALL),
  case("MarianModel", "small", SMALL),
  case("MarianMTModel", "odd", ODD),
  case("MarianMTModel", "own embeddings", OWN),
  case("MarianModel", "own embeddings", OWN),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_reference(case, tmp_path):
  check(case, tmp_path)


@pytest.mark.parametrize(
  "option, message",
  [
    ({"decoder_vocab_size": 29}, "decoder_vocab_size is 29, which the zoo does not have. It has: 37"),
    ({"activation_function": "tanh"}, "activation_function is 'tanh', which the zoo does not have"),
  ],
)
def test_what_is_not_implemented_is_refused_by_name(option, message, tmp_path):
  reference(case("MarianModel", "", SMALL)).save_pretrained(tmp_path)
  config = tmp_path / "config.json"
  config.write_text(json.dumps(json.loads(config.read_text()) | option))
  with pytest.raises(UserError, match=message):
    zoo.load(tmp_path)
