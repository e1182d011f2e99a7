import sys

import jax
import numpy as np
import pytest

import zoo
from tests.data.toys import write_jsonl
from zoo.data.language import language
from zoo.data.text_pairs import text_pairs
from zoo.data.tokenizers import tokenizer
from zoo.errors import UserError
from zoo.evaluate import text_scores
from zoo.evaluate.generation import generation
from zoo.evaluate.tables import table

BYTES = tokenizer("bytes")
SIZES = {"vocab_size": 260, "dim": 8, "depth": 1, "num_heads": 2}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
  monkeypatch.setenv("ZOO_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def pairs(tmp_path):
  rows = [{"source": f"the old text number {n}", "target": f"a new text with number {n}"} for n in range(5)]
  write_jsonl(tmp_path / "a.jsonl", [*rows, {"source": "once again this one", "target": "a new text with number 3"}])
  return text_pairs(f"jsonl:{tmp_path}", tokenizer="bytes", max_length=32)


def scored():
  pytest.importorskip("sacrebleu")
  pytest.importorskip("rouge_score")


class Writer:
  """A `generate` that records its arguments and returns the texts of `answers`, one after the other."""

  def __init__(self, answers):
    self.answers, self.asked = iter(answers), []

  def __call__(self, model, params, tokens, **options):
    self.asked.append({"tokens": tokens, **options})
    rows = np.full((len(tokens), 1 + options["max_new_tokens"]), BYTES.eos, np.int32)
    rows[:, 0] = model.start_token
    for row, text in zip(rows, self.answers):
      row[1 : 1 + len(text)] = np.frombuffer(text.encode(), np.uint8)[: len(row) - 1]
    return rows


def test_what_equals_its_reference_scores_100_and_baselines_stand_beside_it(pairs, tmp_path):
  scored()
  references = [pairs.texts(index)[1] for index in range(len(pairs))]
  writer = Writer(references)
  model = zoo.build("t5", **SIZES)
  evaluate = generation(model, data=pairs, train_data=pairs, batch_size=4, num_beams=3, generate=writer)
  metrics = evaluate({}, tmp_path / "out", 7)
  names = ["bleu", "chrf", "rouge1", "rouge2", "rougeL"]
  np.testing.assert_allclose([metrics[name] for name in names], 100, rtol=1e-6)
  assert metrics["tokens"] == np.mean([len(text) for text in references])
  copied = text_scores.scores([pairs.texts(index)[0] for index in range(len(pairs))], references)
  assert {name: metrics[f"copy/{name}"] for name in names} == copied and 0 < copied["rouge1"] < 60
  frequent = text_scores.scores(["a new text with number 3"] * 6, references)
  assert {name: metrics[f"most_frequent/{name}"] for name in names} == frequent
  assert len(table(metrics, "generation").splitlines()) == 4
  assert {(asked["num_beams"], asked["eos"], asked["max_new_tokens"]) for asked in writer.asked} == {(3, BYTES.eos, 32)}
  assert [asked["tokens"].shape[0] for asked in writer.asked] == [4, 4]
  text = (tmp_path / "out" / "generation.txt").read_text()
  assert text.startswith("Step 7, 3 beam(s)") and text.count("\nreference  ") == text.count("\nmodel      ") == 6
  assert f"source     {pairs.texts(0)[0]}\nreference  {references[0]}\nmodel      {references[0]}" in text


def test_an_answer_ends_at_its_end_and_a_worse_one_scores_less(pairs):
  scored()
  references = [pairs.texts(index)[1] for index in range(len(pairs))]
  model = zoo.build("t5", **SIZES)
  metrics = generation(model, data=pairs, generate=Writer([text[:12] for text in references]))({})
  assert metrics["tokens"] == 12 and 0 < metrics["chrf"] < 90 and "most_frequent/bleu" not in metrics


def test_tokens_that_the_tokenizer_does_not_have_are_no_text(pairs):
  scored()
  references = [pairs.texts(index)[1] for index in range(len(pairs))]

  def write(model, params, tokens, **options):
    rows = Writer(references[:4])(model, params, tokens, **options)
    return np.concatenate([rows[:, :1], np.full((len(rows), 1), BYTES.vocab_size + 2), rows[:, 1:]], axis=1)

  metrics = generation(zoo.build("t5", **SIZES), data=pairs, batch_size=len(pairs), generate=write)({})
  known = text_scores.scores([*references[:4], "", ""], references)
  assert {name: metrics[name] for name in known} == known and known["bleu"] > 30


def test_a_model_writes_through_zoo_generate(pairs):
  scored()
  model = zoo.build("t5", **SIZES)
  params = jax.jit(lambda key: model.init(key, *model.example()))(jax.random.key(0))["params"]
  metrics = generation(model, data=pairs, max_new_tokens=3)(params)
  assert 0 <= metrics["tokens"] <= 3 and 0 <= metrics["chrf"] <= 100


def test_rouge_is_that_of_the_paper():
  """Lin (2004), section 3: of `police kill the gunman` and `police killed the gunman` three words of four agree."""
  scored()
  metrics = text_scores.scores(["police ended the gunman"], ["police killed the gunman"])
  assert metrics["rouge1"] == metrics["rougeL"] == 75
  np.testing.assert_allclose(metrics["rouge2"], 100 / 3)


def test_mistakes_end_in_one_line(pairs, tmp_path, monkeypatch):
  write_jsonl(tmp_path / "b.jsonl", [{"text": "some text, enough of it"}])
  text = language(f"jsonl:{tmp_path}/b.jsonl", tokenizer="bytes", max_length=4)
  with pytest.raises(UserError, match="generation needs pairs of texts. Use the data pipeline text_pairs"):
    generation(zoo.build("t5", **SIZES), data=text)
  with pytest.raises(UserError, match="generation needs a model with an encoder and a decoder; gpt is not one"):
    generation(zoo.build("gpt", **SIZES, max_length=9), data=pairs)
  for options in ({"num_beams": 0}, {"max_new_tokens": -2}, {"length_penalty": float("nan")}):
    with pytest.raises(UserError, match=f"{next(iter(options))} is .*It must be a"):
      generation(zoo.build("t5", **SIZES), data=pairs, **options)
  monkeypatch.setitem(sys.modules, "sacrebleu", None)  # as if it were not installed
  with pytest.raises(UserError, match="which is not installed. Install it with: pip install sacrebleu rouge-score"):
    generation(zoo.build("t5", **SIZES), data=pairs)
