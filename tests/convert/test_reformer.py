import json

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import zoo
from tests.convert.parity import Case, applied, check, distance, reference, to_torch
from zoo.convert import reformer as table
from zoo.convert.rules.options import Options
from zoo.convert.rules.reference import of
from zoo.errors import UserError

NO_DROPOUT = dict(
  hidden_dropout_prob=0.0, local_attention_probs_dropout_prob=0.0, lsh_attention_probs_dropout_prob=0.0,
  classifier_dropout=0.0,
)  # fmt: skip
SMALL = dict(
  vocab_size=37, hidden_size=12, num_attention_heads=3, attention_head_size=5, feed_forward_size=17,
  attn_layers=["local", "lsh", "lsh"], local_attn_chunk_length=4, lsh_attn_chunk_length=6, axial_pos_shape=[3, 8],
  axial_pos_embds_dim=[5, 7], max_position_embeddings=24, num_buckets=4, num_hashes=3, hash_seed=7, **NO_DROPOUT,
)  # fmt: skip
LM = {**SMALL, "is_decoder": True}
WIDE = dict(
  attn_layers=["lsh", "local"], num_buckets=[2, 4], num_hashes=2, local_num_chunks_before=0, local_num_chunks_after=1,
  lsh_num_chunks_before=2, lsh_num_chunks_after=1, hidden_act="gelu", layer_norm_eps=0.02, chunk_size_feed_forward=12,
)  # fmt: skip
LEARNED = dict(axial_pos_embds=False, num_buckets=None, num_hashes=1)
OUTPUTS = {
  "ReformerModelWithLMHead": {"": "logits"},
  "ReformerForMaskedLM": {"mlm": "logits"},
  "ReformerForSequenceClassification": {"logits": "logits"},
  "ReformerForQuestionAnswering": {"start": "start_logits", "end": "end_logits"},
  "ReformerModel": {"hidden": "last_hidden_state"},
}
BUCKETS = {"4": (4,), "[2, 4]": (2, 4), "None": (8,)}  # None: of 4 chunks.


def rotations(config):
  """Those that the reference draws at each call."""
  torch.manual_seed(config["hash_seed"])
  buckets = BUCKETS[str(config["num_buckets"])]
  shape = config["num_attention_heads"], config["attention_head_size"], config["num_hashes"], sum(buckets) // 2
  return torch.randn(shape).numpy()


def case(name, cls, config, length=24, **options):
  def draw(rng):
    valid = rng.random((2, length)) < 0.8
    valid[:, 0], valid[1, -3:] = True, False
    return rng.integers(1, 37, (2, length)).astype(np.int32), valid

  def ours(rng):
    tokens, valid = draw(rng)
    given = {"rotations": jnp.asarray(rotations(config))} if length > 6 else {}
    return (tokens,), {"valid": jnp.asarray(valid), **given}

  def theirs(rng):
    tokens, valid = draw(rng)
    return {"input_ids": to_torch(tokens), "attention_mask": to_torch(valid.astype(int))}

  pick = lambda name: (lambda out: out[name]) if name else (lambda out: out)
  outputs = {name: (pick(name), lambda out, key=key: getattr(out, key)) for name, key in OUTPUTS[cls].items()}
  # The reference has gradients in training only, and then needs rows that fill its grid of positions.
  options = {"hidden": (), "prepare": lambda model: model.train(), **options}
  return Case(f"{cls}-{name}", cls, "ReformerConfig", config, ours, theirs, outputs, **options)


CASES = [
  case("local", "ReformerModelWithLMHead", {**LM, "attn_layers": ["local"], "axial_pos_shape": [2, 4]}, 8),
  case("small", "ReformerModelWithLMHead", LM),
  case("wide", "ReformerForMaskedLM", {**SMALL, **WIDE}),
  case("learned", "ReformerForSequenceClassification", {**SMALL, **LEARNED, "attn_layers": ["lsh"], "num_labels": 5}),
  case("one_chunk", "ReformerForQuestionAnswering", {**SMALL, "axial_pos_shape": [2, 2]}, 4, weights=()),
  case("no_head", "ReformerModel", {**SMALL, "attn_layers": ["local"], "axial_pos_shape": [2, 4]}, 8),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_reference(case, tmp_path):
  check(case, tmp_path)


COMMON = dict(
  model_type="reformer", is_decoder=True, axial_pos_embds=True, axial_norm_std=1.0, chunk_size_lm_head=0,
  hash_seed=None, local_num_chunks_before=1, lsh_num_chunks_before=1, local_num_chunks_after=0, lsh_num_chunks_after=0,
)  # fmt: skip
PUBLISHED = {
  "crime-and-punishment": {
    **dict(vocab_size=320, hidden_size=256, num_attention_heads=2, attention_head_size=64, feed_forward_size=512),
    **dict(attn_layers=["local", "lsh"] * 3, num_buckets=[64, 128], axial_pos_shape=[512, 1024]),
    **dict(axial_pos_embds_dim=[64, 192], max_position_embeddings=524288, hidden_dropout_prob=0.0),
    **dict(local_attention_probs_dropout_prob=0.0, intermediate_size=3072, sinusoidal_pos_embds=False),
  },
  "enwik8": {
    **dict(vocab_size=258, hidden_size=1024, num_attention_heads=8, attention_head_size=128, feed_forward_size=4096),
    **dict(attn_layers=["local", "local", "lsh", "local"] * 3, num_buckets=512, num_hashes=4),
    **dict(local_attn_chunk_length=128, lsh_attn_chunk_length=256, axial_pos_shape=[128, 512]),
    **dict(axial_pos_embds_dim=[256, 768], max_position_embeddings=65536, hidden_dropout_prob=0.0),
    **dict(local_attention_probs_dropout_prob=0.0),
  },
}


@pytest.mark.filterwarnings("ignore:config.json has")  # Entries of before version 3.
@pytest.mark.parametrize("variant", PUBLISHED)
def test_a_published_config_is_the_variant_of_that_name(variant):
  options = Options({**COMMON, **PUBLISHED[variant]}, "config.json", 200, reference=of("reformer"))
  sizes = table.sizes(options, "lm", {})
  options.done()
  assert zoo.build("reformer", **sizes) == zoo.build("reformer", variant)


def test_rows_that_do_not_divide_into_chunks_are_padded_as_there(tmp_path):
  short = case(
    "short", "ReformerModelWithLMHead", {**LM, "attn_layers": ["lsh", "local"]}, 19, prepare=lambda model: None
  )
  there = reference(short)
  there.save_pretrained(tmp_path)
  model, params = zoo.load(tmp_path)
  (tokens,), keywords = short.ours(np.random.default_rng(1))
  with torch.no_grad():
    wanted = there(**short.theirs(np.random.default_rng(1))).logits
  assert distance(applied(model, params, tokens, **keywords), wanted) < 1e-5


def test_the_bias_of_logits_is_added_as_by_the_version_that_wrote_it(tmp_path):
  there = reference(case("small", "ReformerModelWithLMHead", {**LM, "attn_layers": ["local"]}))
  there.save_pretrained(tmp_path)
  tokens, logits = np.arange(8)[None], {}
  for version in ("5.23.0", "4.57.1"):
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "transformers_version": version}))
    model, params = zoo.load(tmp_path)
    logits[version] = model.apply({"params": params}, tokens)
    zoo.save_hf(tmp_path / version, model, params)
    assert zoo.load(tmp_path / version)[0] == model
  bias = there.lm_head.bias.detach().numpy()
  np.testing.assert_allclose(logits["4.57.1"] - logits["5.23.0"], np.broadcast_to(bias, (1, 8, 37)), atol=1e-5)


@pytest.mark.parametrize(
  "option, message",
  [
    ({"tie_word_embeddings": True}, "tie_word_embeddings is True, which the zoo does not have"),
    ({"hidden_act": "mish"}, "hidden_act is 'mish', which the zoo does not have"),
    ({"axial_pos_shape": [2, 3, 4], "axial_pos_embds_dim": [4, 4, 4]}, "Give two positive sizes for each, or neither"),
  ],
  ids=str,
)
def test_what_is_not_there_is_refused_by_name(option, message, tmp_path):
  there = reference(case("small", "ReformerModelWithLMHead", {**LM, "attn_layers": ["local"]}))
  there.save_pretrained(tmp_path)
  config = json.loads((tmp_path / "config.json").read_text())
  (tmp_path / "config.json").write_text(json.dumps({**config, **option}))
  with pytest.raises(UserError, match=message):
    zoo.load(tmp_path)
