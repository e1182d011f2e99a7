import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import zoo
from tests.convert import decoders
from tests.convert.decoders import logits
from tests.convert.parity import check, one_deep
from tests.filled import filled
from zoo.errors import UserError

SMALL = dict(
  vocab_size=37, max_position_embeddings=19, hidden_size=12, num_hidden_layers=3, num_attention_heads=3,
  num_key_value_heads=1, intermediate_size=30, pad_token_id=2,
)  # fmt: skip
ODD = dict(
  vocab_size=41, max_position_embeddings=11, hidden_size=20, num_hidden_layers=2, num_attention_heads=10,
  num_key_value_heads=5, head_dim=6, intermediate_size=17, hidden_act="gelu", rms_norm_eps=0.03, pad_token_id=None,
)  # fmt: skip
ENDINGS = ("ForCausalLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "Model")


def case(name, family, ending, config, length=7):
  return decoders.case(name, f"{family}{ending}", f"{family}Config", config, length)


def save(folder, family, ending, config):
  return decoders.save(folder, f"{family}{ending}", f"{family}Config", config)


def longer(name, length=7, family="Llama", theta=73.0, **rope):
  config = {**SMALL, "head_dim": 8, "num_hidden_layers": 2, "rope_theta": theta, "rope_scaling": rope}
  return case(name, family, "ForCausalLM", config, length)


WINDOWS = dict(use_sliding_window=True, sliding_window=4)
CASES = [
  *(case("small", family, "ForCausalLM", SMALL) for family in ("Mistral", "Qwen2", "Qwen3")),
  *(case("small", "Llama", ending, config) for ending, config in one_deep(ENDINGS, {**SMALL, "num_labels": 4})),
  case("odd", "Llama", "ForCausalLM", {**ODD, "attention_bias": True, "mlp_bias": True, "head_dim": 2}),
  case("odd", "Qwen3", "ForTokenClassification", {**ODD, "attention_bias": True, "tie_word_embeddings": True}),
  case("head_dim", "Qwen2", "ForCausalLM", {**ODD, "tie_word_embeddings": True}),
  case("window", "Mistral", "ForQuestionAnswering", {**ODD, "sliding_window": 3}),
  case("no window", "Mistral", "ForQuestionAnswering", {**SMALL, "sliding_window": None}),
  case("some windows", "Qwen2", "ForQuestionAnswering", {**SMALL, **WINDOWS, "max_window_layers": 1}),
  case(
    "turns", "Qwen3", "ForCausalLM",
    {**SMALL, **WINDOWS, "num_hidden_layers": 4, "layer_types": ["sliding_attention", "full_attention"] * 2},
  ),
  case("default", "Llama", "ForCausalLM", {**SMALL, "rope_parameters": {"rope_type": "default", "rope_theta": 73.0}}),
  longer("linear", 17, rope_type="linear", factor=3.0),
  longer("dynamic", 23, type="dynamic", factor=2.0),
  longer("llama3", 17, rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=2.0,
         original_max_position_embeddings=11),
  longer("yarn", 17, rope_type="yarn", factor=4.0, original_max_position_embeddings=13, beta_fast=3.0, beta_slow=0.2),
  longer("mscale", 7, "Qwen2", 90, type="yarn", factor=4.0, original_max_position_embeddings=5, mscale=0.7,
         mscale_all_dim=0.4, truncate=False),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_reference(case, tmp_path):
  check(case, tmp_path)


@pytest.mark.parametrize("depth", [4, 5])
def test_scanned_layers_that_take_turns_are_read(depth, tmp_path):
  kinds = (["sliding_attention", "full_attention"] * 3)[:depth]
  save(tmp_path, "Qwen3", "ForCausalLM", {**SMALL, **WINDOWS, "num_hidden_layers": depth, "layer_types": kinds})
  np.testing.assert_allclose(logits(tmp_path, scan=True), logits(tmp_path), rtol=1e-4, atol=1e-5)


def test_an_output_layer_that_repeats_the_embedding_is_no_mistake(tmp_path):
  save(tmp_path, "Llama", "ForCausalLM", {**SMALL, "tie_word_embeddings": True})
  tensors = load_file(tmp_path / "model.safetensors")
  want, table = logits(tmp_path), tensors["model.embed_tokens.weight"]
  inv_freq = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(2, np.float32)}
  save_file({**tensors, **inv_freq, "lm_head.weight": table}, tmp_path / "model.safetensors")
  np.testing.assert_array_equal(logits(tmp_path), want)
  save_file({**tensors, "lm_head.weight": table + 1}, tmp_path / "model.safetensors")
  with pytest.raises(UserError, match="'lm_head.weight' differs from 'model.embed_tokens.weight'"):
    zoo.load(tmp_path)


def test_an_output_layer_of_its_own_does_not_stand_in_for_the_embedding(tmp_path):
  save(tmp_path, "Llama", "ForCausalLM", SMALL)
  tensors = load_file(tmp_path / "model.safetensors")
  del tensors["model.embed_tokens.weight"]
  save_file(tensors, tmp_path / "model.safetensors")
  with pytest.raises(UserError, match="model.embed_tokens.weight"):
    zoo.load(tmp_path)


@pytest.mark.filterwarnings("ignore:.*initialised at random")
def test_another_head_takes_the_weights_of_a_language_model(tmp_path):
  save(tmp_path, "Llama", "ForCausalLM", SMALL)
  _, params = zoo.load(tmp_path)
  for head in ("question_answering", "classify", "none"):
    _, other = zoo.load(tmp_path, head=head)
    assert all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (params["stack"], other["stack"]))))


@pytest.mark.parametrize(
  "family, entries, message",
  [
    ("Llama", {"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, "rope_type is 'longrope'"),
    ("Llama", {"rope_scaling": {"rope_type": "llama3", "factor": 2.0}}, "rope_type 'llama3' needs low_freq_factor"),
    ("Llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
    ("Llama", {"sliding_window": 3}, "sliding_window=3"),
    ("Qwen3", {"layer_types": ["full_attention", "chunked_attention"] * 2}, "layer_types is 'chunked_attention'"),
    ("Qwen3", {"layer_types": ["full_attention"] * 2}, "layer_types names 2 layers, num_hidden_layers is 3"),
    ("Qwen3", {"layer_types": ["sliding_attention"] * 3}, "window is None. Set window"),
  ],
)
def test_options_that_the_zoo_does_not_have_are_refused_by_name(family, entries, message, tmp_path):
  config = save(tmp_path, family, "ForCausalLM", SMALL)
  (tmp_path / "config.json").write_text(json.dumps({**config, "rope_parameters": None, **entries}))
  with pytest.raises(UserError, match=message):
    zoo.load(tmp_path)


@pytest.mark.parametrize(
  "sizes, message",
  [
    (dict(qk_norm=True, mlp_bias=True), "qwen3 not with this mlp_bias"),
    (dict(model_type="mistral", attention_bias=True), "mistral not with this attention_bias"),
    (dict(model_type="llama", window=3), "llama not with this pattern"),
  ],
)
def test_what_the_hub_has_no_name_for_is_not_written(sizes, message, tmp_path):
  model = zoo.build("llama", vocab_size=7, max_length=5, dim=6, depth=1, num_heads=3, mlp_dim=5, **sizes)
  with pytest.raises(UserError, match=message):
    zoo.save_hf(tmp_path, model, filled(model, *model.example()))
