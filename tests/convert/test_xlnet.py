import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import zoo
from tests.convert.parity import Case, check, one_deep, reference, to_torch
from zoo.errors import UserError

LENGTH = 13
SMALL = dict(vocab_size=37, d_model=12, n_layer=2, n_head=3, d_inner=30, mem_len=5)
ODD = dict(vocab_size=41, d_model=20, n_layer=3, n_head=5, d_inner=17, ff_activation="relu", layer_norm_eps=0.02)
ODD |= dict(clamp_len=4, mem_len=None)
HEADS = {
  "XLNetModel": {"hidden": "last_hidden_state"},
  "XLNetLMHeadModel": {"mlm": "logits"},
  "XLNetForSequenceClassification": {"logits": "logits"},
  "XLNetForTokenClassification": {"logits": "logits"},
  "XLNetForQuestionAnsweringSimple": {"start": "start_logits", "end": "end_logits"},
  "XLNetForMultipleChoice": {"logits": "logits"},
}


def case(cls, name, config, predicts=False):
  shape = (2, 3, LENGTH) if cls.endswith("MultipleChoice") else (2, LENGTH)

  def inputs(rng):
    """Padding in front, and where nobody would expect it; two segments."""
    tokens = rng.integers(5, config["vocab_size"], shape).astype(np.int32)
    valid = rng.random(shape) < 0.8
    valid[1, ..., :3], valid[..., -1] = False, True
    segments = (np.arange(LENGTH) > rng.integers(4, 9, (*shape[:-1], 1))).astype(np.int32)
    sees, predict = rng.random((2, LENGTH, LENGTH)) < 0.6, rng.integers(0, LENGTH, (2, 4))
    return tokens, valid, segments, sees, predict

  def ours(rng):
    tokens, valid, segments, sees, predict = inputs(rng)
    more = {"sees": jnp.asarray(sees), "predict": jnp.asarray(predict)} if predicts else {}
    return (tokens,), {"valid": jnp.asarray(valid), "segments": segments, **more}

  def theirs(rng):
    tokens, valid, segments, sees, predict = inputs(rng)
    arguments = {"input_ids": tokens, "token_type_ids": segments}
    more = {"attention_mask": valid.astype(np.float32)}
    if predicts:
      more |= {"perm_mask": 1 - sees.astype(np.float32), "target_mapping": np.eye(LENGTH, dtype=np.float32)[predict]}
    return {name: to_torch(x) for name, x in arguments.items()} | {name: torch.tensor(x) for name, x in more.items()}

  outputs = {
    name: (lambda out, name=name: out[name], lambda out, key=key: getattr(out, key)) for name, key in HEADS[cls].items()
  }
  seen = {"weights": ()} if predicts else {}
  return Case(f"{cls}-{name}", cls, "XLNetConfig", config, ours, theirs, outputs, hidden=(), **seen)


CASES = [case(cls, "small", config) for cls, config in one_deep(HEADS, SMALL)]
CASES += [case("XLNetLMHeadModel", "two_streams", SMALL, True), case("XLNetLMHeadModel", "odd", ODD, True)]
CASES += [case("XLNetForSequenceClassification", "odd", {**ODD, "num_labels": 4})]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_reference(case, tmp_path):
  check(case, tmp_path)


@pytest.mark.parametrize("predicts", [False, True])
def test_a_memory_is_read_as_the_reference_reads_it(predicts, tmp_path):
  theirs = reference(case("XLNetLMHeadModel", "small", SMALL))
  theirs.save_pretrained(tmp_path)
  model, params = zoo.load(tmp_path)
  rng = np.random.default_rng(0)
  tokens, segments = rng.integers(5, 37, (2, 11)), rng.integers(0, 2, (2, 11))
  first, second = (slice(0, 7), slice(7, 11))
  memory = jax.eval_shape(model.init, jax.random.key(0), tokens[:, first])["memory"]
  memory = {"memory": jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), memory)}
  variables = {"params": params}
  one, memory = model.apply({**variables, **memory}, tokens[:, first], segments=segments[:, first], mutable=["memory"])
  with torch.no_grad():
    before = theirs(input_ids=torch.tensor(tokens[:, first]), token_type_ids=torch.tensor(segments[:, first]))
    sees, predict = rng.random((2, 4, 4)) < 0.5, np.array([[1, 3], [0, 2]])
    more = {"perm_mask": torch.tensor(1 - sees.astype(np.float32)), "target_mapping": torch.eye(4)[predict]}
    after = theirs(
      input_ids=torch.tensor(tokens[:, second]), token_type_ids=torch.tensor(segments[:, second]), mems=before.mems,
      **(more if predicts else {}),
    )  # fmt: skip
  options = {"sees": jnp.asarray(sees), "predict": jnp.asarray(predict)} if predicts else {}
  two = model.apply({**variables, **memory}, tokens[:, second], segments=segments[:, second], **options)
  np.testing.assert_allclose(one["mlm"], before.logits, rtol=0, atol=1e-5 * abs(before.logits.numpy()).max())
  np.testing.assert_allclose(two["mlm"], after.logits, rtol=0, atol=1e-5 * abs(after.logits.numpy()).max())


@pytest.mark.parametrize(
  "option",
  [{"attn_type": "uni"}, {"bi_data": True}, {"tie_word_embeddings": False}, {"reuse_len": 3}],
  ids=str,
)
def test_what_is_not_there_is_refused_by_name(option, tmp_path):
  reference(case("XLNetLMHeadModel", "small", {**SMALL, **option})).save_pretrained(tmp_path)
  with pytest.raises(UserError, match=f"{next(iter(option))} is .*, which the zoo does not have"):
    zoo.load(tmp_path)
