"""BigBird against torch transformers: by blocks and in full, in evaluation and in training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.convert.parity import Case, check, compare_gradients, distance, reference, to_torch
from zoo.errors import UserError
from zoo.hub.tables import of_family
from zoo.hub.writing import hub_tensors

SMALL = dict(
  vocab_size=37, max_position_embeddings=20, hidden_size=12, num_hidden_layers=2, num_attention_heads=3,
  intermediate_size=30, block_size=2, num_random_blocks=1,
)  # fmt: skip
ODD = dict(
  vocab_size=41, max_position_embeddings=31, hidden_size=20, num_hidden_layers=2, num_attention_heads=5,
  intermediate_size=17, hidden_act="relu", layer_norm_eps=0.02, type_vocab_size=3, pad_token_id=4, block_size=3,
  num_random_blocks=2,
)  # fmt: skip
HEADS = {
  "BigBirdForPreTraining": {"mlm": "prediction_logits", "nsp": "seq_relationship_logits"},
  "BigBirdModel": {"hidden": "last_hidden_state", "pooled": "pooler_output"},
  "BigBirdForMaskedLM": {"mlm": "logits"},
  "BigBirdForSequenceClassification": {"logits": "logits"},
  "BigBirdForTokenClassification": {"logits": "logits"},
  "BigBirdForQuestionAnswering": {"start": "start_logits", "end": "end_logits"},
  "BigBirdForMultipleChoice": {"logits": "logits"},
}
SEP = 3


def inputs_of(cls, config, length):
  shape = (2, 3, length) if cls.endswith("MultipleChoice") else (2, length)

  def inputs(rng):
    """Padding at the end, and a mask that hides further tokens in between."""
    tokens = rng.integers(5, config["vocab_size"], shape).astype(np.int32)
    tokens[1, ..., length - 2 :] = tokens[0, ..., 2] = config.get("pad_token_id", 0)
    valid = (tokens != config.get("pad_token_id", 0)) & (rng.random(shape) < 0.8)
    valid[..., 0] = True
    segments = rng.integers(0, config.get("type_vocab_size", 2), shape)
    if cls.endswith("QuestionAnswering"):  # Segments are those that a separator tells.
      tokens[0, [4, 9]], segments = SEP, None
    return tokens, segments, valid

  return inputs


def case(cls, name, config, length, **options):
  config = {**config, **({"sep_token_id": SEP} if cls.endswith("QuestionAnswering") else {})}
  inputs = inputs_of(cls, config, length)

  def ours(rng):
    tokens, segments, valid = inputs(rng)
    return (tokens,), {"segments": segments, "valid": jnp.asarray(valid)}

  def theirs(rng):
    tokens, segments, valid = inputs(rng)
    given = {"input_ids": tokens, "token_type_ids": segments, "attention_mask": valid}
    return {name: to_torch(array) for name, array in given.items() if array is not None}

  outputs = {
    name: (lambda out, name=name: out[name], lambda out, key=key: getattr(out, key)) for name, key in HEADS[cls].items()
  }
  if cls.endswith("QuestionAnswering"):  # Beside the scores of a question's tokens, -1e6, no difference would show.
    outputs |= {
      f"{name} behind": (lambda out, pick=pick: pick[0](out)[:, 5:], lambda out, pick=pick: pick[1](out)[:, 5:])
      for name, pick in outputs.items()
    }
  # Theirs has a pooler with these heads, which nothing reads.
  unread = cls.endswith(("MaskedLM", "SequenceClassification", "TokenClassification"))
  lacking = frozenset({"bert.pooler.weight", "bert.pooler.bias"} if unread else ())
  return Case(f"{cls}-{name}", cls, "BigBirdConfig", config, ours, theirs, outputs, lacking=lacking, **options)


BLOCKS = dict(weights=())
ONE_LAYER = {**SMALL, "num_hidden_layers": 1}
CASES = [case("BigBirdForPreTraining", "blocks", SMALL, 18, **BLOCKS)]
# Not of whole blocks: theirs lists hidden states with their padding.
CASES += [case(cls, "padded", ONE_LAYER, 17, hidden=(), **BLOCKS) for cls in [*HEADS][1:]]
CASES += [case("BigBirdForMaskedLM", "odd", ODD, 30, **BLOCKS)]
CASES += [case("BigBirdForPreTraining", "short", ONE_LAYER, 7, **BLOCKS)]
CASES += [case("BigBirdModel", "full", {**ODD, "attention_type": "original_full"}, 30)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_reference(case, tmp_path):
  check(case, tmp_path)


# A length of the paper, and another one; layers draw one after the other, heads within a layer too.
@pytest.mark.parametrize("length, sizes", [(29, {}), (1024, {"block_size": 64, "max_position_embeddings": 1024})])
def test_equals_the_reference_in_training(length, sizes, tmp_path):
  config = {**SMALL, "max_position_embeddings": 30, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
  one = case("BigBirdModel", "training", {**config, **sizes}, length, **BLOCKS)
  there = reference(one)
  there.save_pretrained(tmp_path / "theirs")
  model, params = zoo.load(tmp_path / "theirs")
  args, options = one.ours(np.random.default_rng(1))
  theirs = there.train()(**one.theirs(np.random.default_rng(1))).last_hidden_state
  mix = np.random.default_rng(2).normal(size=theirs.shape).astype(np.float32)

  def loss(params):
    hidden = model.apply({"params": params}, *args, **options, train=True)["hidden"]
    return (hidden * mix).sum(), hidden

  gradient, hidden = jax.jit(jax.grad(loss, has_aux=True))(params)
  assert distance(hidden, theirs.detach().numpy()) < 1e-5
  (theirs * to_torch(mix)).sum().backward()
  gradients = compare_gradients(hub_tensors(model, gradient), there, tmp_path / "gradients", of_family("bigbird"))
  assert max(gradients.values()) < 1e-4
  still = jax.jit(lambda params: model.apply({"params": params}, *args, **options)["hidden"])(params)
  assert distance(still, hidden) > 1e-3  # In evaluation other blocks are seen.


@pytest.mark.parametrize(
  "option",
  [{"is_decoder": True}, {"use_bias": False}, {"rescale_embeddings": True}, {"tie_word_embeddings": False}],
  ids=str,
)
def test_what_is_not_there_is_refused_by_name(option, tmp_path):
  reference(case("BigBirdForMaskedLM", "small", {**SMALL, **option}, 7)).save_pretrained(tmp_path)
  with pytest.raises(UserError, match=f"{next(iter(option))} is {next(iter(option.values()))}, which the zoo does not"):
    zoo.load(tmp_path)
