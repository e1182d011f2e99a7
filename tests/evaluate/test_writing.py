"""Generation tasks without a reference: columns, checks, sums."""

import pytest

import zoo
from tests.data.toys import write_jsonl
from tests.evaluate import hub
from tests.filled import numbers
from zoo.config import registry
from zoo.errors import UserError
from zoo.evaluate.perplexity import perplexity
from zoo.evaluate.tasks import Subject, find_task
from zoo.evaluate.text_scores import TextScores, scores

PAIRS = [
  ("a cat on a mat", "a cat on the mat"),
  ("two dogs", "some dogs"),
  ("", "no"),
  ("blue tits sing", "blue tits sing"),
]


def test_scores_of_parts_are_those_of_the_whole():
  pytest.importorskip("sacrebleu")
  texts, references = zip(*PAIRS)
  parts = TextScores()
  for start in range(0, 4, 3):
    parts.add(texts[start : start + 3], references[start : start + 3])
  assert parts.metrics() == pytest.approx(scores(texts, references), abs=1e-9)
  import sacrebleu

  assert parts.metrics()["bleu"] == pytest.approx(sacrebleu.corpus_bleu(texts, [references]).score, abs=1e-9)
  assert parts.metrics()["chrf"] == pytest.approx(sacrebleu.corpus_chrf(texts, [references]).score, abs=1e-9)


@pytest.fixture(scope="module")
def writer():
  """A decoder over bytes and its parameters."""
  import jax

  model = zoo.build("gpt", vocab_size=260, **hub.SIZES)
  shapes = jax.eval_shape(lambda rng: model.init(rng, *model.example()), jax.random.key(0))["params"]
  return model, numbers(shapes)


@pytest.fixture
def options(tmp_path):
  write_jsonl(tmp_path / "rows.jsonl", [{"prompt": "We the", "n": 3}, {"prompt": "I", "n": 1}])
  return {"task": "generation", "data": f"jsonl:{tmp_path / 'rows.jsonl'}", "tokenizer": "bytes", "max_new_tokens": 5}


def test_texts_are_judged_by_a_function_of_ones_own(writer, options, tmp_path):
  (tmp_path / "mine.py").write_text(
    "def long(text, record):\n  return record['n']\n\ndef bad(text, record):\n  return text[99]\n"
  )
  metrics = zoo.evaluate_model(writer, **options, check=f"{tmp_path}/mine.py:long", folder=tmp_path / "out")
  assert metrics == {"check": 2.0, "tokens": metrics["tokens"]} and metrics["tokens"] <= 5
  written = (tmp_path / "out" / "generation.txt").read_text()
  assert "source     We the\nmodel      " in written and "reference" not in written
  with pytest.raises(UserError, match="mine.py has no function 'lnog'. Did you mean 'long'"):
    zoo.evaluate_model(writer, **options, check=f"{tmp_path}/mine.py:lnog")
  with pytest.raises(UserError, match="mine.py:bad fails on .*IndexError"):
    zoo.evaluate_model(writer, **options, check=f"{tmp_path}/mine.py:bad")
  with pytest.raises(UserError, match="check is 'mine'. It must be FILE.py:FUNCTION"):
    zoo.evaluate_model(writer, **options, check="mine")


def test_a_column_may_be_an_entry_of_a_field(writer, tmp_path):
  pytest.importorskip("sacrebleu")
  write_jsonl(tmp_path / "rows.jsonl", [{"translation": {"en": "We the", "de": "Wir das"}}])
  options = {"task": "translation", "data": f"jsonl:{tmp_path}", "tokenizer": "bytes", "max_new_tokens": 2}
  with pytest.raises(UserError, match="which field of .* is the source .*It has: translation, translation.en, transl"):
    zoo.evaluate_model(writer, **options)
  columns = "source=translation.en,target=translation.de"
  assert zoo.evaluate_model(writer, **options, columns=columns)["copy/chrf"] < 50
  with pytest.raises(UserError, match=r"measures is \['bleu', 'wer'\]. It must be some of: bleu, chrf, rouge"):
    zoo.evaluate_model(writer, **options, columns=columns, measures=["bleu", "wer"])


def test_a_model_that_the_zoo_trained_reads_texts_as_it_was_trained(writer, tmp_path):
  """After the end-of-text token; for perplexity as one stream."""
  write_jsonl(tmp_path / "rows.jsonl", [{"text": "We the people of the"}, {"text": "United"}])
  model, params = writer
  zoo.save(tmp_path / "run", model.clone(preprocessing_json='{"tokenizer": "bytes"}'), params)
  source = f"jsonl:{tmp_path / 'rows.jsonl'}"
  metrics = zoo.evaluate_model(tmp_path / "run", task="perplexity", data=source)
  stream = perplexity(model, data={"name": "language", "source": source, "tokenizer": "bytes", "max_length": 25})
  assert metrics["loss"] == pytest.approx(stream(params)["loss"], rel=1e-6)
  section = find_task("generation").section(Subject(*zoo.load(tmp_path / "run"), tmp_path / "run"), {"source": "text"})
  records = registry.build("data", {**section, "source": source})
  for index in range(2):
    assert records[index]["tokens"][:3].tolist() == [records.eos, *records.texts(index)[0].encode()[:2]]
