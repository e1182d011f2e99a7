"""Texts that `zoo.evaluate_model` generates, and their scores, against torch transformers and the libraries."""

import json

import numpy as np
import pytest

import zoo
from tests.convert.test_evaluate import torch_model
from tests.evaluate import hub
from tests.hub_folder import edit_config

sacrebleu = pytest.importorskip("sacrebleu")
rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")
SPECIAL = ("<pad>", "</s>", "<s>", "<mask>", "<unk>")  # A BART has them all.
PAD, EOS, BOS = 256, 257, 258


def folder_of(tmp_path, family):
  sizes = {"mlp_dim": 20}
  if family == "t5":
    folder = hub.bytes_folder(
      tmp_path / "m", "t5", special=SPECIAL, template="$A </s>", max_length=None, start_token=PAD, eos=EOS, **sizes
    )
  elif family == "bart":
    folder = hub.bytes_folder(
      tmp_path / "m",
      "bart",
      special=SPECIAL,
      template="<s> $A </s>",
      start_token=EOS,
      eos=EOS,
      pad=PAD,
      max_length=60,
      **sizes,
    )
  else:
    folder = hub.bytes_folder(tmp_path / "m", "llama", special=SPECIAL, template="<s> $A", max_length=60, **sizes)
  hub.tokenizer_config(folder, eos_token="</s>", bos_token="<s>", pad_token="<pad>")
  ids = {"eos_token_id": EOS, "pad_token_id": PAD, "bos_token_id": BOS}
  edit_config(folder, **ids)
  stated = {**ids, "num_beams": 2, "no_repeat_ngram_size": 3, "max_new_tokens": 9}
  if family != "llama":
    stated["decoder_start_token_id"] = PAD if family == "t5" else EOS
  if family == "bart":
    stated["forced_bos_token_id"] = BOS
  (folder / "generation_config.json").write_text(json.dumps(stated))
  return folder


CLASSES = {"t5": "T5ForConditionalGeneration", "bart": "BartForConditionalGeneration", "llama": "LlamaForCausalLM"}


def torch_texts(folder, family, texts, **options):
  """Each text alone, so that padding plays no part."""
  import torch

  there, tokenizer = torch_model(CLASSES[family], folder), zoo.load_tokenizer(folder)
  found = []
  for text in texts:
    tokens = torch.tensor(tokenizer([text])["tokens"].astype(np.int64))
    with torch.no_grad():
      out = there.generate(tokens, attention_mask=torch.ones_like(tokens), **options)[0].numpy()
    out = out[tokens.shape[1] :] if family == "llama" else out
    found.append(tokenizer.decode(out, special=False).strip())
  return found


@pytest.mark.parametrize("family", ["t5", "bart", "llama"])
def test_texts_and_their_scores_are_those_of_the_reference(family, tmp_path):
  folder = folder_of(tmp_path, family)
  rng = hub.generator()
  sources, targets = ([hub.sentence(rng, 6) for _ in range(7)] for _ in range(2))
  source = hub.table(tmp_path / "rows.jsonl", {"document": sources, "summary": targets})
  options = {"task": "generation", "data": source, "columns": "source=document,target=summary", "batch_size": 3}
  notes = []
  metrics = zoo.evaluate_model(folder, **options, folder=tmp_path / "out", note=notes.append)

  rows = hub.rows_of(source)
  wrote = torch_texts(folder, family, [row["document"] for row in rows])
  written = (tmp_path / "out" / "generation.txt").read_text()
  assert all(f"model      {text}" in written for text in wrote) and len(set(wrote)) > 2
  references = [row["summary"] for row in rows]
  assert metrics["bleu"] == pytest.approx(sacrebleu.corpus_bleu(wrote, [references]).score, abs=1e-9)
  assert metrics["chrf"] == pytest.approx(sacrebleu.corpus_chrf(wrote, [references]).score, abs=1e-9)
  scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
  rouge = [scorer.score(one, other)["rougeL"].fmeasure for one, other in zip(references, wrote)]
  assert metrics["rougeL"] == pytest.approx(100 * np.mean(rouge), abs=1e-9)
  assert "num_beams = 2" in notes[0] and "no_repeat_ngram = 3" in notes[0]


def test_a_summary_begins_as_the_folder_says(tmp_path):
  folder = folder_of(tmp_path, "t5")
  edit_config(folder, task_specific_params={"summarization": {"prefix": "short: "}})
  rng = hub.generator()
  columns = {"article": [hub.sentence(rng, 6) for _ in range(3)], "highlights": ["good"] * 3}
  source = hub.table(tmp_path / "rows.jsonl", columns)
  notes = []
  zoo.evaluate_model(folder, task="summarisation", data=source, folder=tmp_path / "out", note=notes.append)
  wrote = torch_texts(folder, "t5", [f"short: {row['article']}" for row in hub.rows_of(source)])
  written = (tmp_path / "out" / "summarisation.txt").read_text()
  assert all(f"model      {text}" in written for text in map(str.strip, wrote))
  assert "prefix = short: " in notes[0]
