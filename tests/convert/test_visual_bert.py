"""VisualBERT against torch transformers: every head, padding among words and regions, regions that words name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.convert.parity import Case, check, distance, reference, to_torch
from zoo.errors import UserError

SMALL = dict(
  vocab_size=37, max_position_embeddings=13, hidden_size=12, num_hidden_layers=2, num_attention_heads=3,
  intermediate_size=30, visual_embedding_dim=7,
)  # fmt: skip
ODD = dict(
  vocab_size=41, max_position_embeddings=11, hidden_size=20, num_hidden_layers=1, num_attention_heads=5,
  intermediate_size=17, hidden_act="relu", layer_norm_eps=0.02, type_vocab_size=3, pad_token_id=4,
  visual_embedding_dim=19,
)  # fmt: skip
LENGTH, REGIONS, PHRASES = 9, 5, 4
UNREAD = {
  "VisualBertForQuestionAnswering": ("visual_bert.pooler.dense",),
  "VisualBertForRegionToPhraseAlignment": (
    *("visual_bert.pooler.dense", "attention.value", "cls.seq_relationship"),
    *(f"cls.predictions.transform.{name}" for name in ("dense", "LayerNorm")),
  ),
}
HIDDEN = {
  "hidden": (lambda out: out["hidden"], lambda out: out.last_hidden_state[:, :LENGTH]),
  "regions": (lambda out: out["hidden_regions"], lambda out: out.last_hidden_state[:, LENGTH:]),
}
LOGITS = {"logits": (lambda out: out["logits"], lambda out: out.logits)}
OUTPUTS = {
  "VisualBertModel": {**HIDDEN, "pooled": (lambda out: out["pooled"], lambda out: out.pooler_output)},
  "VisualBertForPreTraining": {
    "mlm": (lambda out: out["mlm"], lambda out: out.prediction_logits[:, :LENGTH]),
    "nsp": (lambda out: out["nsp"], lambda out: out.seq_relationship_logits),
  },
  "VisualBertForVisualReasoning": LOGITS,
  "VisualBertForQuestionAnswering": LOGITS,
  "VisualBertForMultipleChoice": LOGITS,
  # Of masked regions: the least float32, which a gradient must not be asked of.
  "VisualBertForRegionToPhraseAlignment": {
    "alignment": (lambda out: out["alignment"][..., :-1], lambda out: out.logits[..., :-1])
  },
}


def drawn(rng, cls, config, named):
  """Words with padding at the end, regions of which the last one of the second image is padding."""
  rows = (2, 3) if cls.endswith("MultipleChoice") else (2,)
  tokens = rng.integers(5, config["vocab_size"], (*rows, LENGTH)).astype(np.int32)
  valid = np.broadcast_to(
    np.arange(LENGTH) < np.array([LENGTH, LENGTH - 2]).reshape(2, *(1,) * len(rows)), tokens.shape
  )
  valid = np.ascontiguousarray(valid)
  tokens[0, ..., 2] = config.get("pad_token_id", 1)
  regions = rng.normal(size=(*rows, REGIONS, config["visual_embedding_dim"])).astype(np.float32)
  regions_valid = np.ones((*rows, REGIONS), bool)
  regions_valid[1, ..., -1] = False
  drawn = dict(tokens=tokens, valid=valid, regions=regions, regions_valid=regions_valid)
  drawn["segments"] = rng.integers(0, config.get("type_vocab_size", 2), tokens.shape).astype(np.int32)
  if named:
    drawn["region_segments"] = rng.integers(0, config.get("type_vocab_size", 2), regions.shape[:-1]).astype(np.int32)
    drawn["alignment"] = rng.integers(-1, LENGTH, (*rows, REGIONS, 3)).astype(np.int32)
    drawn["alignment"][0, ..., 0, :] = -1
  if cls.endswith("Alignment"):
    drawn["phrases"] = rng.integers(-1, LENGTH, (*rows, PHRASES)).astype(np.int32)
  return drawn


THEIRS = dict(
  tokens="input_ids", valid="attention_mask", segments="token_type_ids", regions="visual_embeds",
  regions_valid="visual_attention_mask", region_segments="visual_token_type_ids", alignment="image_text_alignment",
  phrases="region_to_phrase_position",
)  # fmt: skip


def case(cls, name, config, named=False):
  def ours(rng):
    inputs = {name: jnp.asarray(array) for name, array in drawn(rng, cls, config, named).items()}
    return (inputs.pop("tokens"), inputs.pop("regions")), inputs

  def theirs(rng):
    return {THEIRS[name]: to_torch(array) for name, array in drawn(rng, cls, config, named).items()}

  lacking = frozenset(f"{name}.{kind}" for name in UNREAD.get(cls, ()) for kind in ("weight", "bias"))
  if cls.endswith("Alignment"):
    lacking |= {"cls.predictions.bias", "cls.predictions.decoder.bias"}
  return Case(f"{cls}-{name}", cls, "VisualBertConfig", config, ours, theirs, OUTPUTS[cls], lacking=lacking)


CASES = [case(cls, "small", {**SMALL, "num_hidden_layers": 1}) for cls in OUTPUTS]
CASES += [case("VisualBertForPreTraining", "named", SMALL, named=True), case("VisualBertModel", "odd", ODD, named=True)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_reference(case, tmp_path):
  check(case, tmp_path)


def test_late_fusion_is_the_last_layer_alone(tmp_path):
  """Of theirs the parts are called one by one: their forward pass takes a mask of too few dimensions and stops."""
  import torch

  one = case("VisualBertModel", "late", {**SMALL, "bypass_transformer": True})
  there = reference(one)
  there.save_pretrained(tmp_path)
  model, params = zoo.load(tmp_path)
  args, options = one.ours(np.random.default_rng(1))
  out = jax.jit(lambda params: model.apply({"params": params}, *args, **options))(params)
  inputs = one.theirs(np.random.default_rng(1))
  both = torch.cat([inputs.pop("attention_mask"), inputs.pop("visual_attention_mask")], dim=1)
  hidden = (1.0 - both.float())[:, None, None] * torch.finfo(torch.float32).min
  with torch.no_grad():
    embedded = there.embeddings(**inputs)
    words = there.encoder(embedded[:, :LENGTH], hidden[..., :LENGTH])[0]
    theirs = there.additional_layer(torch.cat([words, embedded[:, LENGTH:]], dim=1), hidden)[0]
  assert distance(jnp.concatenate([out["hidden"], out["hidden_regions"]], axis=1), theirs) < 1e-5


def test_untied_logits_are_refused_by_name(tmp_path):
  reference(case("VisualBertForPreTraining", "untied", {**SMALL, "tie_word_embeddings": False})).save_pretrained(
    tmp_path
  )
  with pytest.raises(UserError, match="tie_word_embeddings is False, which the zoo does not"):
    zoo.load(tmp_path)
