import json

import jax
import numpy as np
import pytest

import zoo
from tests.convert import decoders
from tests.convert.decoders import logits
from tests.convert.parity import check, distance, one_deep, reference
from tests.filled import filled
from zoo.errors import UserError
from zoo.hub.writing import hub_tensors
from zoo.objectives.routing import imbalance, routes

SMALL = dict(
  vocab_size=37, max_position_embeddings=19, hidden_size=12, num_hidden_layers=2, num_attention_heads=3,
  num_key_value_heads=1, intermediate_size=10, num_local_experts=5, num_experts_per_tok=2, pad_token_id=2,
)  # fmt: skip
ODD = dict(
  vocab_size=41, max_position_embeddings=11, hidden_size=20, num_hidden_layers=3, num_attention_heads=10,
  num_key_value_heads=5, head_dim=6, intermediate_size=17, num_experts_per_tok=3, hidden_act="gelu", rms_norm_eps=0.03,
  pad_token_id=None,
)  # fmt: skip
QWEN = {**ODD, "moe_intermediate_size": 7, "num_experts": 4}
ENDINGS = ("ForCausalLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "Model")


def louder(model):
  """Kernels of experts lie in arrays of three dimensions, which the harness takes for those of wider layers."""
  for parameter in model.parameters():
    if parameter.ndim == 3:
      parameter.mul_(8)


def case(name, cls, config):
  config_cls = "MixtralConfig" if cls.startswith("Mixtral") else "Qwen3MoeConfig"
  plain = ("attn_implementation", "experts_implementation")
  return decoders.case(name, cls, config_cls, config, prepare=louder, plain=plain)


CASES = [
  *(case("small", f"Mixtral{end}", config) for end, config in one_deep(ENDINGS, {**SMALL, "num_labels": 4})),
  case("odd", "MixtralForCausalLM", {
    **ODD, "num_local_experts": 4, "num_experts_per_tok": 1, "sliding_window": 3, "router_jitter_noise": 0.1,
    "tie_word_embeddings": True,
  }),
  case("small", "Qwen3MoeForQuestionAnswering", {**QWEN, "norm_topk_prob": True}),
  case("small", "Qwen3MoeForTokenClassification", {**QWEN, "pad_token_id": 1, "num_labels": 4}),
  case("some are dense", "Qwen3MoeForCausalLM", {**QWEN, "mlp_only_layers": [1], "attention_bias": True}),
  case("every second", "Qwen3MoeModel", {
    **QWEN, "decoder_sparse_step": 2, "use_sliding_window": True, "sliding_window": 3, "rope_theta": 31.0,
  }),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_reference(case, tmp_path):
  check(case, tmp_path)


def test_the_loss_that_evens_experts_is_that_of_the_reference(tmp_path):
  one = case("", "MixtralForCausalLM", SMALL)
  there = reference(one)
  there.save_pretrained(tmp_path)
  model, params = zoo.load(tmp_path)
  (tokens,), options = one.ours(np.random.default_rng(1))
  want = there(**one.theirs(np.random.default_rng(1)), output_router_logits=True).aux_loss
  want.backward()

  @jax.jit
  @jax.value_and_grad
  def loss(params):
    _, state = model.apply({"params": params}, tokens, **options, mutable=["router"])
    return imbalance(routes(state["router"], options["valid"]))

  got, gradient = loss(params)
  assert distance(got, want.detach().numpy()) < 1e-5
  ours = hub_tensors(model, gradient)
  for i, layer in enumerate(there.model.layers):
    theirs = layer.mlp.gate.weight.grad.numpy()
    assert distance(ours[f"model.layers.{i}.block_sparse_moe.gate.weight"], theirs) < 1e-4


def test_scanned_layers_of_two_kinds_are_read(tmp_path):
  config = {**QWEN, "num_hidden_layers": 5, "decoder_sparse_step": 2}
  decoders.save(tmp_path, "Qwen3MoeForCausalLM", "Qwen3MoeConfig", config)
  np.testing.assert_allclose(logits(tmp_path, scan=True), logits(tmp_path), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  "family, entries, message",
  [
    ("Qwen3Moe", {"decoder_sparse_step": 0}, "decoder_sparse_step is 0"),
    ("Mixtral", {"num_experts_per_tok": 9}, "top_k 9 exceeds num_experts 5"),
  ],
)
def test_options_that_the_zoo_does_not_have_are_refused_by_name(family, entries, message, tmp_path):
  config = decoders.save(tmp_path, f"{family}ForCausalLM", f"{family}Config", SMALL if family == "Mixtral" else QWEN)
  (tmp_path / "config.json").write_text(json.dumps({**config, **entries}))
  with pytest.raises(UserError, match=message):
    zoo.load(tmp_path)


def test_what_the_hub_has_no_name_for_is_not_written(tmp_path):
  sizes = dict(vocab_size=7, max_length=5, dim=6, depth=1, num_heads=3, mlp_dim=5, num_experts=2, top_k=1)
  for message, more in {
    "mixtral cannot have this normalize, attention_bias": dict(normalize=False, attention_bias=True),
    "qwen3_moe cannot have this jitter": dict(qk_norm=True, jitter=0.1),
  }.items():
    model = zoo.build("mixtral", **sizes, **more)
    with pytest.raises(UserError, match=message):
      zoo.save_hf(tmp_path, model, filled(model, *model.example()))
