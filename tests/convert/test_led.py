import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.convert.parity import Case, check, reference, to_torch
from tests.convert.seq2seq import BARE, ENCODED, LM, SPAN
from zoo.errors import UserError

SMALL = dict(
  vocab_size=37, max_encoder_position_embeddings=29, max_decoder_position_embeddings=23, d_model=12, encoder_layers=2,
  decoder_layers=2, encoder_attention_heads=3, decoder_attention_heads=3, encoder_ffn_dim=30, decoder_ffn_dim=30,
  attention_window=[4, 8],
)  # fmt: skip
ODD = dict(
  vocab_size=41, max_encoder_position_embeddings=31, max_decoder_position_embeddings=19, d_model=30, encoder_layers=3,
  decoder_layers=1, encoder_attention_heads=3, decoder_attention_heads=5, encoder_ffn_dim=17, decoder_ffn_dim=23,
  activation_function="gelu_new", pad_token_id=5, eos_token_id=3, decoder_start_token_id=7, attention_window=6,
)  # fmt: skip
LENGTH, DECODER_LENGTH, REAL = 23, 11, np.array([[23], [17]])
GLOBAL = (0, 9, 14)


def real(encoded):
  """The states of real tokens; those of padding are undefined."""
  parts = [encoded[row, : int(length)] for row, length in enumerate(REAL[:, 0])]
  if hasattr(encoded, "detach"):
    import torch

    return torch.cat(parts)
  return jnp.concatenate(parts)


def case(cls, name, config, outputs, marked=GLOBAL):
  """marked: the global tokens."""
  own = cls != "LEDForQuestionAnswering"

  def inputs(rng):
    tokens = rng.integers(6, config["vocab_size"], (2, LENGTH)).astype(np.int32)
    decoder_tokens = rng.integers(6, config["vocab_size"], (2, DECODER_LENGTH)).astype(np.int32)
    valid = np.arange(LENGTH)[None] < REAL
    is_global = np.isin(np.arange(LENGTH), marked)[None].repeat(2, 0)
    return tokens, decoder_tokens, valid, is_global

  def ours(rng):
    tokens, decoder_tokens, valid, is_global = inputs(rng)
    args = (tokens, decoder_tokens) if own else (tokens,)
    return args, {"valid": jnp.asarray(valid), "is_global": is_global}

  def theirs(rng):
    tokens, decoder_tokens, valid, is_global = map(to_torch, inputs(rng))
    arguments = {"input_ids": tokens, "attention_mask": valid, "global_attention_mask": is_global}
    return arguments | ({"decoder_input_ids": decoder_tokens} if own else {})

  picks = dict(outputs)
  mine, their = picks["encoded"]
  picks["encoded"] = (lambda out: real(mine(out)), lambda out: real(their(out)))
  hidden = ((r"decoder/stack/layer_(\d+)", "decoder_hidden_states"),)
  weights = ((r"decoder/stack/layer_(\d+)/cross_attention", "cross_attentions"),)
  return Case(f"{cls}-{name}", cls, "LEDConfig", config, ours, theirs, picks, hidden=hidden, weights=weights, plain=())


CASES = [
  case("LEDForConditionalGeneration", "odd", ODD, LM | ENCODED),
  case("LEDModel", "small", SMALL, BARE),
  case("LEDForQuestionAnswering", "small", {**SMALL, "encoder_layers": 1, "attention_window": 4}, SPAN | ENCODED),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_reference(case, tmp_path):
  check(case, tmp_path)


def test_it_writes_what_the_reference_writes(tmp_path):
  there = reference(case("LEDForConditionalGeneration", "", {**ODD, "eos_token_id": 40}, LM | ENCODED))
  there.save_pretrained(tmp_path)
  model, params = zoo.load(tmp_path)
  tokens = np.random.default_rng(0).integers(6, 41, (2, 13)).astype(np.int32)
  merged = np.ones((2, 13), np.int32)
  merged[:, 0], merged[1, 9:] = 2, 0
  ours = zoo.generate(model, params, tokens, valid=jnp.asarray(merged), max_new_tokens=7, eos=40)
  theirs = there.generate(
    to_torch(tokens),
    attention_mask=to_torch(merged > 0),
    global_attention_mask=to_torch(merged == 2),
    max_new_tokens=7,
    do_sample=False,
    num_beams=1,
  )
  np.testing.assert_array_equal(ours, theirs.numpy())


@pytest.mark.parametrize("option", [{"autoregressive": True}, {"attention_dilation": [1, 2]}], ids=str)
def test_what_is_not_there_is_refused_by_name(option, tmp_path):
  reference(case("LEDModel", "", {**SMALL, **option}, BARE)).save_pretrained(tmp_path)
  with pytest.raises(UserError, match=f"{next(iter(option))} is "):
    zoo.load(tmp_path)
