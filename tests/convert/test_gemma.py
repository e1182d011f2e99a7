import json

import numpy as np
import pytest

import zoo
from tests.convert import decoders
from tests.convert.decoders import logits
from tests.convert.parity import check, one_deep
from tests.filled import filled
from zoo.errors import UserError

ENDINGS = ("ForCausalLM", "ForTokenClassification", "Model")
SMALL = dict(
  vocab_size=37, max_position_embeddings=19, hidden_size=12, num_hidden_layers=3, num_attention_heads=3,
  num_key_value_heads=1, head_dim=4, intermediate_size=30, pad_token_id=2,
)  # fmt: skip
WINDOWS = {**SMALL, "query_pre_attn_scalar": 7, "sliding_window": 4}
ODD = dict(
  vocab_size=41, max_position_embeddings=11, hidden_size=20, num_hidden_layers=2, num_attention_heads=10,
  num_key_value_heads=5, head_dim=6, intermediate_size=17, rms_norm_eps=0.03, pad_token_id=None, attention_bias=True,
  tie_word_embeddings=False,
)  # fmt: skip
LATER = {**ODD, "hidden_activation": "silu", "query_pre_attn_scalar": 11, "sliding_window": 3}
LINEAR = {"rope_type": "linear", "factor": 3.0}


def case(name, cls, config, length=7):
  family = "Gemma3Text" if cls.startswith("Gemma3") else "Gemma2" if cls.startswith("Gemma2") else "Gemma"
  return decoders.case(name, cls, f"{family}Config", config, length)


CASES = [
  *(case("small", f"Gemma{ending}", config) for ending, config in one_deep(ENDINGS, SMALL)),
  case("odd", "GemmaForSequenceClassification", {**ODD, "num_labels": 4, "pad_token_id": 0, "hidden_act": "relu"}),
  case("first", "GemmaForCausalLM", {**ODD, "hidden_act": "gelu", "rope_theta": 73.0, "rope_scaling": LINEAR}),
  case("small", "Gemma2ForCausalLM", {**WINDOWS, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}),
  case("small", "Gemma2ForTokenClassification", {**WINDOWS, "num_labels": 4}),
  case("odd", "Gemma2ForCausalLM", {**LATER, "attn_logit_softcapping": None, "final_logit_softcapping": None}),
  case("kinds", "Gemma2Model", {**LATER, "layer_types": ["full_attention", "sliding_attention"]}),
  case("small", "Gemma3ForCausalLM", {**WINDOWS, "final_logit_softcapping": 3.0}),
  case("small", "Gemma3TextForSequenceClassification", {**WINDOWS, "num_labels": 4}),
  case("odd", "Gemma3ForCausalLM", {**LATER, "rope_theta": 73.0, "rope_local_base_freq": 5.0, "rope_scaling": LINEAR}),
  case("pattern", "Gemma3ForCausalLM", {**WINDOWS, "num_hidden_layers": 5, "sliding_window_pattern": 2}),
  case(
    "ropes", "Gemma3TextModel",
    {**LATER, "layer_types": ["sliding_attention", "full_attention"], "rope_parameters": {
      "full_attention": {"rope_type": "dynamic", "rope_theta": 31.0, "factor": 2.0},
      "sliding_attention": {**LINEAR, "rope_theta": 5.0},
    }},
    length=17,
  ),
  case(
    "both ways", "Gemma3TextModel",
    {**WINDOWS, "use_bidirectional_attention": True, "sliding_window": 7, "sliding_window_pattern": 2},
  ),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_reference(case, tmp_path):
  check(case, tmp_path)


def test_scanned_layers_that_take_turns_are_read(tmp_path):
  config = {**WINDOWS, "num_hidden_layers": 5, "sliding_window_pattern": 2}
  decoders.save(tmp_path, "Gemma3ForCausalLM", "Gemma3TextConfig", config)
  np.testing.assert_allclose(logits(tmp_path, scan=True), logits(tmp_path), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  "family, entries, message",
  [
    ("Gemma2", {"use_bidirectional_attention": True}, "use_bidirectional_attention is True"),
    ("Gemma", {"sliding_window": 3}, "sliding_window=3"),
    ("Gemma", {"hidden_activation": "relu"}, "hidden_activation is 'relu'"),
    ("Gemma3Text", {"rope_scaling": {"rope_type": "longrope"}}, "rope_type is 'longrope'"),
    ("Gemma3Text", {"use_bidirectional_attention": True}, "bidirectional is True and head is 'lm'"),
  ],
)
def test_options_that_the_zoo_does_not_have_are_refused_by_name(family, entries, message, tmp_path):
  cls = f"{family.removesuffix('Text')}ForCausalLM"
  config = decoders.save(tmp_path, cls, f"{family}Config", SMALL)
  (tmp_path / "config.json").write_text(json.dumps({**config, "rope_parameters": None, **entries}))
  with pytest.raises(UserError, match=message):
    zoo.load(tmp_path)


@pytest.mark.parametrize(
  "sizes, message",
  [
    (dict(qk_norm=True, sandwich=True, head="classify_tokens", num_classes=3, local_theta=9.0), "gemma3_text .* head"),
    (dict(qk_norm=True, sandwich=True, local_theta=9.0, attention_cap=2.0), "gemma3_text .* attention_cap"),
    (dict(window=3, cap=3.0), "gemma cannot have this pattern, cap"),
    (dict(qk_norm=True), "gemma3_text cannot have this sandwich, local_theta"),
  ],
)
def test_what_the_hub_has_no_name_for_is_not_written(sizes, message, tmp_path):
  model = zoo.build("gemma", vocab_size=7, max_length=5, dim=6, depth=1, num_heads=3, mlp_dim=5, **sizes)
  with pytest.raises(UserError, match=message):
    zoo.save_hf(tmp_path, model, filled(model, *model.example()))
