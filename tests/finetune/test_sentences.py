"""Sentence encoders, from a folder that sentence-transformers wrote to one that it reads, by one command."""

import json

import numpy as np
import pytest

import train
import zoo
from tests.evaluate import hub
from tests.finetune.test_finetune import bert, flags
from zoo import sharding
from zoo.config.loading import load
from zoo.errors import UserError
from zoo.finetune.filling import with_task
from zoo.finetune.sentences import data_of, sentence_encoder
from zoo.train.experiment import experiment

torch = pytest.importorskip("torch")
library = pytest.importorskip("sentence_transformers", reason="pip install 'flax-zoo[parity]'")
from sentence_transformers.sentence_transformer import losses  # noqa: E402


def of_pairs(tmp_path, scores=None):
  rng, texts = hub.generator(), {}
  while len(texts) < 120:  # All different: equal ones are no candidates of ours, and are of theirs.
    texts[hub.sentence(rng, 9)] = None
  texts = list(texts)
  columns = {"anchor": texts[:40], "positive": texts[40:80], "negative": texts[80:]}
  if scores is not None:
    columns = {"sentence1": columns["anchor"], "sentence2": columns["positive"], "score": scores}
  return hub.table(tmp_path / "x.jsonl", columns)


@pytest.mark.parametrize("task", ["search", "similarity"])
def test_a_sentence_encoder_is_trained_from_a_folder_to_a_folder(task, tmp_path):
  theirs = library.SentenceTransformer(str(bert(tmp_path / "bert")), device="cpu")
  theirs.max_seq_length = 20
  theirs.save(str(tmp_path / "encoder"))
  source = of_pairs(tmp_path, None if task == "search" else [number / 40 for number in range(40)])
  arguments = flags(tmp_path / "encoder", task, source, tmp_path / "run", "--config.eval.every=3")
  said = []
  config = with_task(load(arguments)[0], said.append)
  batch = next(iter(experiment(config, sharding.make_mesh(config.mesh)).batches.iterate(0)))
  loss = {"search": losses.MultipleNegativesRankingLoss, "similarity": losses.CosineSimilarityLoss}[task](theirs)
  features = [
    {"input_ids": torch.tensor(tokens.astype(np.int64)), "attention_mask": torch.tensor(valid.astype(np.int64))}
    for tokens, valid in zip(*(np.moveaxis(batch[name], 1, 0) for name in ("tokens", "valid")))
  ]
  with torch.no_grad():
    want = loss(features, torch.tensor(batch["score"]) if task == "similarity" else None).item()
  assert train.main(arguments) == 0
  logged = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
  assert logged[0]["loss"] == pytest.approx(want, rel=2e-5)
  best = {"search": "eval/search/mrr10", "similarity": "eval/similarity/spearman"}[task]
  assert config.checkpoint.best == best and any(best in line for line in logged)
  model, params = zoo.load(tmp_path / "run")
  zoo.save_hf(tmp_path / "out", model, params)
  texts = ["a good film", "the river is very quick"]
  vectors = library.SentenceTransformer(str(tmp_path / "out"), device="cpu")
  assert vectors.max_seq_length == 20
  np.testing.assert_allclose(vectors.encode(texts), zoo.embed(tmp_path / "run", texts), atol=1e-5)
  assert np.abs(theirs.encode(texts) - vectors.encode(texts)).max() > 1e-4  # It has learnt something.


def encoder(**sentence):
  return zoo.build(
    "bert",
    vocab_size=7,
    max_length=8,
    dim=6,
    depth=1,
    num_heads=3,
    preprocessing={"sentence": sentence} if sentence else {},
  )


def test_prompts_and_lengths_are_the_folders_where_the_config_says_nothing():
  carried = {"pooling": ["cls"], "prompts": {"query": "q: ", "other": "o: "}, "prompt": "other", "max_length": 5}
  sentence = sentence_encoder("folder", encoder(**carried), {}, {"document_prompt": "d: "})
  assert sentence["pooling"] == ["cls"] and sentence["prompts"] == {"query": "q: ", "other": "o: ", "document": "d: "}
  options = {"query_prompt": "q: ", "max_length": 5}
  assert data_of(sentence, {"max_length": 8}, {"document_prompt": "d: "}) == options
  # A pair with a score has no sides: both have the default prompt.
  both = {"query_prompt": "o: ", "document_prompt": "o: ", "max_length": 5}
  assert data_of(sentence, {"max_length": 8, "score_field": "score"}, {}) == both
  assert sentence_encoder("folder", encoder(), {"pooling": ["max"]}, {})["pooling"] == ["max"]


@pytest.mark.parametrize(
  "sentence, message",
  [
    ({"include_prompt": False}, "leaves out the prompt .include_prompt., which the zoo does not train"),
    ({"lower": True}, "texts become lower case first .do_lower_case., which the zoo does not train"),
    ({"pooling": ["meen"]}, "It may have: cls"),
  ],
)
def test_encoders_that_cannot_be_trained_are_refused(sentence, message):
  with pytest.raises(UserError, match=message):
    sentence_encoder("folder", encoder(**sentence), {}, {})


@pytest.mark.parametrize("inner", ["", "0_Transformer"])
def test_folders_of_old_versions_are_trained_as_they_pool(inner, tmp_path):
  home = tmp_path / "home"
  bert(home / "0_Transformer")
  kinds = {"Transformer": "0_Transformer", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
  listed = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for kind, path in kinds.items()]
  (home / "modules.json").write_text(json.dumps(listed))
  (home / "1_Pooling").mkdir()
  (home / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": "cls"}))
  config = with_task(load(flags(home / inner, "search", of_pairs(tmp_path), tmp_path / "run"))[0], lambda line: None)
  assert config.init == str(home / "0_Transformer") and list(config.objective.pooling) == ["cls"]
  assert config.model.preprocessing.sentence.unit
  listed[2] = {"path": "2_Dense", "type": "sentence_transformers.models.Dense"}
  (home / "modules.json").write_text(json.dumps(listed))
  with pytest.raises(UserError, match="home/modules.json has other modules than a Pooling and a Normalize"):
    with_task(load(flags(home / inner, "search", of_pairs(tmp_path), tmp_path / "run"))[0], lambda line: None)


def test_modules_with_weights_of_their_own_are_refused(tmp_path):
  (tmp_path / "modules.json").write_text(json.dumps([]))
  with pytest.raises(UserError, match="has other modules than a Pooling and a Normalize"):
    sentence_encoder(tmp_path, encoder(), {}, {})
  with pytest.raises(UserError, match="a clip_text has its own pooling"):
    sizes = dict(vocab_size=7, max_length=8, dim=6, depth=1, num_heads=3)
    sentence_encoder(tmp_path, zoo.build("clip_text", **sizes), {}, {})
