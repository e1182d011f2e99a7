"""Metrics of `zoo.evaluate_model` for token labels, answers and choices, against torch transformers and seqeval."""

import numpy as np
import pytest

import zoo
from tests.convert.test_evaluate import torch_model
from tests.evaluate import hub
from zoo.evaluate.answer_scores import score_answer

TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


def as_torch(batch):
  import torch

  names = {"tokens": "input_ids", "valid": "attention_mask", "segments": "token_type_ids"}
  return {names[name]: torch.tensor(np.asarray(x).astype(np.int64)) for name, x in batch.items() if name in names}


@pytest.mark.parametrize("form", ["numbers", "names"])
def test_entities_are_those_of_the_reference(form, tmp_path):
  import tokenizers

  seqeval = pytest.importorskip("seqeval.metrics", reason="seqeval is not installed")  # Unmaintained since 2020.
  folder = hub.bert_folder(tmp_path / "m", "classify_tokens", num_classes=5, id2label=TAGS)
  rng = hub.generator()
  words = [
    [str(word) for word in rng.choice(["Paris", "quickly", "goodly", "Rome", "is", "."], n)]
    for n in rng.integers(1, 19, 23)
  ]
  tags = [rng.integers(0, 5, len(row)).tolist() for row in words]
  said = tags if form == "numbers" else [[TAGS[tag] for tag in row] for row in tags]
  source = hub.table(tmp_path / "rows.jsonl", {"tokens": words, "ner_tags": said})
  metrics = zoo.evaluate_model(folder, task="token_classification", data=source, batch_size=8)

  import torch

  there = torch_model("BertForTokenClassification", folder)
  backend = tokenizers.BertWordPieceTokenizer(str(folder / "vocab.txt"))
  backend.enable_truncation(hub.SIZES["max_length"])
  true, predicted, cut = [], [], 0
  for row, marked in zip(words, tags, strict=True):
    encoded = backend.encode(row, is_pretokenized=True)
    with torch.no_grad():
      best = there(input_ids=torch.tensor([encoded.ids])).logits[0].argmax(-1).tolist()
    firsts = [i for i, word in enumerate(encoded.word_ids) if word is not None and word != encoded.word_ids[i - 1]]
    true.append([TAGS[marked[encoded.word_ids[i]]] for i in firsts])
    predicted.append([TAGS[best[i]] for i in firsts])
    cut += len(row) - len(firsts)
  assert cut > 0 and metrics["words_cut"] == cut
  assert metrics["words"] == sum(map(len, true))
  assert metrics["accuracy"] == pytest.approx(seqeval.accuracy_score(true, predicted), abs=1e-12)
  for name in ("f1", "precision", "recall"):
    score = getattr(seqeval, f"{name}_score")
    assert metrics[name] == pytest.approx(score(true, predicted), abs=1e-12)
  report = seqeval.classification_report(true, predicted, output_dict=True)
  for kind in ("LOC", "PER"):
    assert metrics[f"f1_{kind}"] == pytest.approx(report[kind]["f1-score"], abs=1e-12)


def test_answers_are_those_of_the_reference(tmp_path):
  import tokenizers
  import torch

  folder = hub.bert_folder(tmp_path / "m", "question_answering")
  rng = hub.generator()
  contexts = [hub.sentence(rng, 40) for _ in range(19)]
  questions = [hub.sentence(rng, 5) for _ in range(19)]
  words = [context.split() for context in contexts]
  answers = [
    {"text": [" ".join(row[i : i + 3])], "answer_start": [len(" ".join(row[:i])) + (i > 0)]}
    if (i := k % 4) < 3
    else {"text": [], "answer_start": []}
    for k, row in enumerate(words)
  ]
  source = hub.table(tmp_path / "rows.jsonl", {"question": questions, "context": contexts, "answers": answers})

  there = torch_model("BertForQuestionAnswering", folder)
  backend = tokenizers.BertWordPieceTokenizer(str(folder / "vocab.txt"))
  backend.enable_truncation(hub.SIZES["max_length"], stride=hub.SIZES["max_length"] // 3, strategy="only_second")
  answered, windows = [], 0
  for question, context, wanted in zip(questions, contexts, answers, strict=True):
    encoded = backend.encode(question, context)
    best, text, null = -np.inf, "", np.inf
    for part in (encoded, *encoded.overflowing):
      windows += 1
      with torch.no_grad():
        out = there(input_ids=torch.tensor([part.ids]), token_type_ids=torch.tensor([part.type_ids]))
      start, end = out.start_logits[0].numpy(), out.end_logits[0].numpy()
      null = min(null, start[0] + end[0])
      of_context = [i for i, sequence in enumerate(part.sequence_ids) if sequence == 1]
      for i in of_context:
        for j in of_context:
          if i <= j < i + 4 and start[i] + end[j] > best:
            best, text = start[i] + end[j], context[part.offsets[i][0] : part.offsets[j][1]]
    answered.append((null - best, text, wanted["text"]))
  threshold = float(np.mean(sorted(margin for margin, *_ in answered)[9:11]))  # The model says none of about half.
  sums = np.zeros((2, 3))
  for margin, text, wanted in answered:
    sums[int(not wanted)] += [*score_answer("" if margin > threshold else text, wanted), 1]
  assert windows > 25 and 0 < sums[1, 0] < sums[1, 2]
  options = {"task": "question_answering", "data": source, "batch_size": 3, "longest_answer": 4, "threshold": threshold}
  metrics = zoo.evaluate_model(folder, **options, folder=tmp_path / "out")
  assert metrics["exact_match"] == pytest.approx(sums[:, 0].sum() / 19)
  assert metrics["f1"] == pytest.approx(sums[:, 1].sum() / 19)
  assert metrics["f1_answered"] == pytest.approx(sums[0, 1] / sums[0, 2])
  assert metrics["exact_match_unanswered"] == pytest.approx(sums[1, 0] / sums[1, 2])
  written = (tmp_path / "out" / "question_answering.txt").read_text()
  assert written.count("question  ") == 19 and "(none)" in written


@pytest.mark.parametrize("form", ["list", "fields"])
def test_choices_are_those_of_the_reference(form, tmp_path):
  import torch

  folder = hub.bert_folder(tmp_path / "m", "multiple_choice")
  rng = hub.generator()
  rows = 17
  first, start = ([hub.sentence(rng, 6) for _ in range(rows)] for _ in range(2))
  endings = [[hub.sentence(rng, 7) for _ in range(4)] for _ in range(rows)]
  label = rng.integers(0, 4, rows).tolist()
  columns = {"sent1": first, "sent2": start, "label": label}
  if form == "list":
    columns |= {"endings": endings, "label": ["ABCD"[number] for number in label]}
  else:
    columns |= {f"ending{k}": [row[k] for row in endings] for k in range(4)}
  source = hub.table(tmp_path / "rows.jsonl", columns)
  metrics = zoo.evaluate_model(folder, task="multiple_choice", data=source, batch_size=4)

  there, tokenizer = torch_model("BertForMultipleChoice", folder), zoo.load_tokenizer(folder)
  logits = []
  for one, two, row in zip(first, start, endings, strict=True):
    batch = as_torch(tokenizer([one] * 4, [f"{two} {text}" for text in row]))
    with torch.no_grad():
      logits.append(there(**{name: x[None] for name, x in batch.items()}).logits[0].numpy())
  assert metrics["accuracy"] == np.mean(np.argmax(logits, -1) == label)
  assert metrics["chance/accuracy"] == 0.25


def test_a_distilbert_takes_pairs_without_saying_which_text_is_which(tmp_path):
  folder = tmp_path / "m"
  hub.bert_folder(folder, None)
  model = zoo.build("distilbert", vocab_size=26, head="classify", num_classes=2, **hub.SIZES)
  for name in ("config.json", "model.safetensors"):
    (folder / name).unlink()
  hub.save(folder, model)
  columns = {"sentence1": ["good film"] * 3, "sentence2": ["bad", "very", "is"], "label": [0, 1, 1]}
  source = hub.table(tmp_path / "rows.jsonl", columns)
  metrics = zoo.evaluate_model(folder, task="classification", data=source)
  batch = as_torch(zoo.load_tokenizer(folder)(columns["sentence1"], columns["sentence2"]))
  del batch["token_type_ids"]
  import torch

  with torch.no_grad():
    logits = torch_model("DistilBertForSequenceClassification", folder)(**batch).logits
  assert metrics["accuracy"] == np.mean(logits.argmax(-1).numpy() == columns["label"])
