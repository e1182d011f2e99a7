"""Sentence encoders that are written for sentence-transformers, and carried by runs."""

import json
import pathlib

import jax
import numpy as np
import pytest

import zoo
from tests.evaluate import hub
from tests.filled import numbers
from zoo.errors import UserError
from zoo.hub.sentence_carried import carried_encoder, sentence_entries

TEXTS = ["good film", "the river is very quick .", "a bad , bad film"]
SENTENCE = {
  "pooling": ["cls", "mean"],
  "unit": True,
  "include_prompt": True,
  "prompts": {"query": "who is "},
  "prompt": "query",
  "max_length": 6,
  "lower": False,
  "truncate_dim": 7,
}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
  """-> a model that carries SENTENCE, its parameters, and the folder that was written of them."""
  folder = hub.bert_folder(tmp_path_factory.mktemp("plain") / "m", None)
  model, params = zoo.load(folder)
  entries = json.dumps({**model.preprocessing, "sentence": SENTENCE})
  model = model.clone(preprocessing_json=entries)
  out = tmp_path_factory.mktemp("out") / "m"
  zoo.save_hf(out, model, params)
  return model, params, out


def test_what_was_written_is_read_back(encoder):
  model, params, out = encoder
  assert sentence_entries(out) == {"sentence": SENTENCE}
  loaded, _ = zoo.load(out)
  assert loaded.preprocessing["sentence"] == SENTENCE
  vectors = zoo.embed(out, TEXTS)
  hidden = []
  for text in TEXTS:
    batch = zoo.load_tokenizer(out)([f"who is {text}"], length=6)
    states = model.apply({"params": params}, batch["tokens"], valid=batch["valid"])["hidden"]
    hidden.append(np.concatenate([states[0, 0], np.asarray(states[0])[batch["valid"][0]].mean(0)]))
  want = np.stack(hidden)
  want = (want / np.linalg.norm(want, axis=-1, keepdims=True))[:, :7]
  np.testing.assert_allclose(vectors, want, atol=1e-5)


def test_a_run_embeds_as_what_was_written_of_it(encoder, tmp_path):
  model, params, out = encoder
  zoo.save(tmp_path / "run", model, params)
  np.testing.assert_allclose(zoo.embed(tmp_path / "run", TEXTS), zoo.embed(out, TEXTS), atol=1e-6)


def test_sentence_transformers_makes_the_same_vectors(encoder):
  library = pytest.importorskip("sentence_transformers", reason="pip install 'flax-zoo[parity]'")
  theirs = library.SentenceTransformer(str(encoder[2]), device="cpu")
  np.testing.assert_allclose(theirs.encode(TEXTS), zoo.embed(encoder[2], TEXTS), atol=1e-5)
  assert theirs.max_seq_length == 6 and theirs.prompts["query"] == "who is "


def test_a_sentence_bert_is_written_as_the_bert_that_it_is(tmp_path):
  library = pytest.importorskip("sentence_transformers", reason="pip install 'flax-zoo[parity]'")
  hub.bert_folder(tmp_path / "m", None)
  sizes = dict(vocab_size=len(hub.SPECIAL) + len(hub.WORDS), max_length=24, dim=12, depth=2, num_heads=3)
  model = zoo.build("sentence_bert", **sizes, preprocessing={"tokenizer": str(tmp_path / "m")})
  params = numbers(jax.eval_shape(lambda rng: model.init(rng, *model.example()), jax.random.key(0))["params"])
  zoo.save_hf(tmp_path / "out", model, params)
  zoo.save(tmp_path / "run", model, params)
  want = zoo.embed(tmp_path / "run", TEXTS)
  np.testing.assert_allclose(
    library.SentenceTransformer(str(tmp_path / "out"), device="cpu").encode(TEXTS), want, atol=1e-5
  )
  classes = zoo.build("sentence_bert", **sizes, num_classes=3)
  params = numbers(jax.eval_shape(lambda rng: classes.init(rng, *classes.example()), jax.random.key(0))["params"])
  with pytest.raises(UserError, match="no layout for classes of a mean over tokens"):
    zoo.save_hf(tmp_path / "classes", classes, params)


def test_a_model_with_a_head_is_no_sentence_encoder(encoder, tmp_path):
  with pytest.warns(UserWarning, match="initialised at random"):
    model, params = zoo.load(encoder[2], head="classify")
  zoo.save_hf(tmp_path / "m", model, params)
  assert not (tmp_path / "m" / "modules.json").exists()


@pytest.mark.parametrize(
  "sentence, message",
  [
    ({"poolin": ["mean"]}, "preprocessing.sentence has no 'poolin'"),
    ({"pooling": ["meen"]}, "pooling is .'meen'.. It may have: cls"),
  ],
)
def test_other_entries_are_refused(sentence, message):
  model = zoo.build(
    "bert", vocab_size=7, max_length=8, dim=6, depth=1, num_heads=3, preprocessing={"sentence": sentence}
  )
  with pytest.raises(UserError, match=message):
    carried_encoder(model, pathlib.Path())


def test_poolings_in_an_order_that_files_cannot_say_are_refused(encoder, tmp_path):
  model, params, _ = encoder
  swapped = {"sentence": {**SENTENCE, "pooling": ["mean", "cls"]}}
  with pytest.raises(UserError, match="joins poolings in the order"):
    zoo.save_hf(tmp_path / "m", model.clone(preprocessing_json=json.dumps(swapped)), params)
