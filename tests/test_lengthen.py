"""A Longformer made of a BERT or RoBERTa reads short texts as they did, and long ones too."""

import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.convert.parity import applied
from tests.filled import filled
from zoo.errors import UserError
from zoo.lengthen import lengthened, main

SIZES = dict(vocab_size=23, max_length=11, dim=6, depth=2, num_heads=3, mlp_dim=10)
MODELS = {
  "bert, pretraining": ("bert", {"head": "pretraining"}),
  "bert, its pad elsewhere": ("bert", {"head": "classify", "num_classes": 5, "pad": 3}),
  "bert, no head": ("bert", {"head": None}),
  "roberta, masked tokens": ("roberta", {"head": "mlm", "pad": 2}),
  "roberta, answers": ("roberta", {"head": "question_answering", "num_segments": 2}),
  "roberta, choices": ("roberta", {"head": "multiple_choice"}),
}


def inputs(model, pad):
  shape = (2, 2, 9) if model.choose is not None else (2, 9)
  tokens = np.random.default_rng(0).integers(5, 23, shape).astype(np.int32)
  tokens[..., [3, 4]] = 2 if pad != 2 else 5
  valid = np.broadcast_to(np.arange(9) < 7, shape)
  return np.where(valid, tokens, pad).astype(np.int32), jnp.asarray(valid)


@pytest.mark.parametrize("name", MODELS)
def test_short_texts_give_the_same_outputs(name):
  family, sizes = MODELS[name]
  model = zoo.build(family, **SIZES, **sizes)
  params = filled(model, *model.example())
  longer, longer_params = lengthened(model, params, max_length=29, window=18, separator=2)
  pad = longer.pad
  tokens, valid = inputs(model, pad)
  before, after = (applied(m, p, tokens, valid=valid) for m, p in ((model, params), (longer, longer_params)))
  dropped = {"pretraining": {"pooled", "nsp"}, "classify": {"pooled"}}.get(sizes["head"], set())
  assert set(after) >= set(before) - dropped
  for output in set(before) & set(after):
    real = valid if np.shape(before[output])[:2] == valid.shape else ...
    np.testing.assert_allclose(after[output][real], before[output][real], atol=2e-6)
  far = np.resize(tokens, (*tokens.shape[:-1], 29))
  assert np.isfinite(applied(longer, longer_params, far)["hidden"]).all()


def test_the_command_writes_a_folder_that_loads(tmp_path, capsys):
  model = zoo.build("roberta", **SIZES, head="mlm")
  params = filled(model, *model.example())
  zoo.save_hf(tmp_path / "short", model, params)
  flags = [f"--model={tmp_path / 'short'}", f"--out={tmp_path / 'long'}", "--max_length=19", "--window=18"]
  assert main(flags) == 0 and "has a Longformer" in capsys.readouterr().out
  longer, longer_params = zoo.load(tmp_path / "long")
  assert longer.spec["family"] == "longformer" and longer.max_length == 19
  tokens, valid = inputs(model, 1)
  ours, theirs = (applied(m, p, tokens, valid=valid)["mlm"] for m, p in ((longer, longer_params), (model, params)))
  np.testing.assert_allclose(np.asarray(ours)[valid], np.asarray(theirs)[valid], atol=2e-6)
  with pytest.raises(SystemExit):
    main(flags)
  assert "has a model already. Choose another folder." in capsys.readouterr().err


def test_what_becomes_no_longformer_is_refused():
  bert = zoo.build("bert", **SIZES, head="next_sentence")
  with pytest.raises(UserError, match="The model's head is next_sentence, which a Longformer does not have"):
    lengthened(bert, {}, max_length=29, window=8)
  with pytest.raises(UserError, match="max_length is 7, the model reads 11 tokens already"):
    lengthened(zoo.build("bert", **SIZES, head="mlm"), {}, max_length=7, window=8)
  with pytest.raises(UserError, match="The activation of the head is relu, a Longformer's is gelu"):
    lengthened(zoo.build("bert", **SIZES, head="mlm", activation="relu"), {}, max_length=19, window=8)
  gpt = zoo.build("gpt", vocab_size=23, max_length=11, dim=6, depth=1, num_heads=3)
  with pytest.raises(UserError, match="The model is a gpt. Only BERT and RoBERTa become a Longformer."):
    lengthened(gpt, {}, max_length=29, window=8)
