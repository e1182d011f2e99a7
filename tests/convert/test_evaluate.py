"""Metrics of `zoo.evaluate_model` against torch transformers on the same folder and file."""

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

import zoo
from tests.evaluate import hub


def torch_model(cls, folder):
  import transformers

  return getattr(transformers, cls).from_pretrained(folder).eval()


def torch_logits(model, tokenizer, *texts, **inputs):
  """Of each row alone, so that padding plays no part: the attribute "logits", [rows, ...]."""
  import torch

  rows = [
    {name: torch.tensor(x.astype(np.int64)) for name, x in tokenizer([text], *pair).items()}
    for text, *pair in zip(*texts, strict=True)
  ]
  with torch.no_grad():
    outs = [
      model(row["tokens"], attention_mask=row["valid"], token_type_ids=row.get("segments"), **inputs) for row in rows
    ]
  return np.concatenate([out.logits.numpy() for out in outs])


LABELS = ["negative", "Not Sure", "positive"]


@pytest.mark.parametrize("form", ["names", "numbers", "pairs"])
def test_classification_is_that_of_the_reference(form, tmp_path):
  folder = hub.bert_folder(tmp_path / "m", "classify", num_classes=3, id2label=LABELS)
  rng = hub.generator()
  rows = 41
  label = rng.integers(0, 3, rows)
  columns = {"premise": [hub.sentence(rng) for _ in range(rows)]}
  if form == "pairs":
    columns["hypothesis"] = [hub.sentence(rng, 5) for _ in range(rows)]
  columns["label"] = [LABELS[i].upper().replace(" ", "_") for i in label] if form == "names" else label.tolist()
  source = hub.table(tmp_path / "rows.jsonl", columns)
  said = None if form == "pairs" else "text=premise"
  metrics = zoo.evaluate_model(folder, task="classification", data=source, columns=said, batch_size=8)

  texts = [columns[name] for name in ("premise", "hypothesis") if name in columns]
  logits = torch_logits(torch_model("BertForSequenceClassification", folder), zoo.load_tokenizer(folder), *texts)
  predicted = logits.argmax(-1)
  assert metrics["accuracy"] == np.mean(predicted == label)
  assert metrics["f1_macro"] == pytest.approx(sklearn.metrics.f1_score(label, predicted, average="macro"))
  assert metrics["matthews"] == pytest.approx(sklearn.metrics.matthews_corrcoef(label, predicted))
  assert metrics["balanced_accuracy"] == pytest.approx(sklearn.metrics.balanced_accuracy_score(label, predicted))
  assert metrics["loss"] == pytest.approx(sklearn.metrics.log_loss(label, _softmax(logits)), rel=1e-5)
  assert "f1" not in metrics and metrics["majority/accuracy"] == np.bincount(label).max() / rows


def _softmax(logits):
  exponents = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
  return exponents / exponents.sum(-1, keepdims=True)


def torch_nats(model, rows):
  """The summed loss in nats of rows of tokens, and the number of predicted tokens."""
  import torch

  total, count = 0.0, 0
  for row in rows:
    tokens = torch.tensor([row])
    with torch.no_grad():
      logits = model(tokens[:, :-1]).logits.double()
    total += float(torch.nn.functional.cross_entropy(logits[0], tokens[0, 1:], reduction="sum"))
    count += len(row) - 1
  return total, count


def test_perplexity_of_a_stream_is_that_of_the_reference(tmp_path):
  folder = hub.bytes_folder(tmp_path / "m", "gpt")
  hub.tokenizer_config(folder, eos_token="<|endoftext|>", bos_token="<|endoftext|>")
  rng = hub.generator()
  source = hub.table(tmp_path / "rows.jsonl", {"text": [hub.sentence(rng) for _ in range(11)]})
  metrics = zoo.evaluate_model(folder, task="perplexity", data=source, batch_size=4)

  tokenizer, end = zoo.load_tokenizer(folder), 256
  stream = [end]
  for row in hub.rows_of(source):
    stream += [*tokenizer.encode(row["text"]), end]
  length = hub.SIZES["max_length"]
  chunks = [stream[start : start + length + 1] for start in range(0, len(stream) - 1, length)]
  nats, tokens = torch_nats(torch_model("GPT2LMHeadModel", folder), chunks)
  assert metrics["tokens"] == tokens == len(stream) - 1
  assert metrics["perplexity"] == pytest.approx(np.exp(nats / tokens), rel=1e-4)
  assert metrics["loss"] == pytest.approx(nats / tokens, rel=1e-5)


def test_perplexity_of_a_model_with_a_first_token_is_that_of_its_documents(tmp_path):
  folder = hub.bytes_folder(tmp_path / "m", "llama", special=("<s>", "</s>"), template="<s> $A", mlp_dim=20)
  hub.tokenizer_config(folder, bos_token="<s>", eos_token="</s>")
  rng = hub.generator()
  source = hub.table(tmp_path / "rows.jsonl", {"content": [hub.sentence(rng) for _ in range(9)]})
  metrics = zoo.evaluate_model(folder, task="perplexity", data=source, batch_size=4)

  tokenizer, length = zoo.load_tokenizer(folder), hub.SIZES["max_length"]
  documents = [[256, *tokenizer.encode(row["content"]), 257] for row in hub.rows_of(source)]
  pieces = [text[start : start + length + 1] for text in documents for start in range(0, len(text) - 1, length)]
  nats, tokens = torch_nats(torch_model("LlamaForCausalLM", folder), pieces)
  assert metrics["tokens"] == tokens
  assert metrics["perplexity"] == pytest.approx(np.exp(nats / tokens), rel=1e-4)


def test_regression_is_that_of_the_reference(tmp_path):
  folder = hub.bert_folder(tmp_path / "m", "classify", num_classes=1)
  rng = hub.generator()
  first, second = ([hub.sentence(rng) for _ in range(29)] for _ in range(2))
  scores = rng.uniform(0, 5, 29).round(2)
  columns = {"sentence1": first, "sentence2": second, "label": [str(score) for score in scores]}
  source = hub.table(tmp_path / "rows.jsonl", columns)
  metrics = zoo.evaluate_model(folder, task="regression", data=source, batch_size=8)

  said = torch_logits(torch_model("BertForSequenceClassification", folder), zoo.load_tokenizer(folder), first, second)[
    :, 0
  ]
  assert metrics["pearson"] == pytest.approx(scipy.stats.pearsonr(said, scores).statistic, abs=1e-5)
  assert metrics["spearman"] == pytest.approx(scipy.stats.spearmanr(said, scores).statistic, abs=1e-9)
  assert metrics["mse"] == pytest.approx(sklearn.metrics.mean_squared_error(scores, said), rel=1e-5)
  assert metrics["mean/mse"] == pytest.approx(np.var(scores), rel=1e-5)


def test_similarity_is_that_of_sentence_transformers(tmp_path):
  import sentence_transformers

  folder = hub.bert_folder(tmp_path / "m", None)
  encoder = sentence_transformers.SentenceTransformer(str(folder))  # Where the folder says nothing both take the mean.
  rng = hub.generator()
  first, second = ([hub.sentence(rng) for _ in range(23)] for _ in range(2))
  scores = rng.uniform(0, 5, 23)
  source = hub.table(tmp_path / "rows.jsonl", {"sentence1": first, "sentence2": second, "score": scores.tolist()})
  metrics = zoo.evaluate_model(folder, task="similarity", data=source, batch_size=4)

  one, other = (encoder.encode(texts, normalize_embeddings=True) for texts in (first, second))
  cosines = np.sum(one.astype(np.float64) * other, axis=1)
  assert metrics["spearman"] == pytest.approx(scipy.stats.spearmanr(cosines, scores).statistic, abs=1e-9)
  assert metrics["pearson"] == pytest.approx(scipy.stats.pearsonr(cosines, scores).statistic, abs=1e-5)
  handed = zoo.evaluate_model(zoo.load(folder), task="similarity", data=source)
  assert handed["spearman"] == pytest.approx(metrics["spearman"], abs=1e-9)
