"""Generated outputs for source-target pairs, scored against the references, with model-free baselines."""

import functools
import os
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from zoo.data.pipeline import eval_batches
from zoo.errors import UserError, kind_of
from zoo.evaluate.artifacts import write_text
from zoo.evaluate.forward import fetch, records_of
from zoo.evaluate.samples import until
from zoo.evaluate.text_scores import package, scores
from zoo.generate import checks
from zoo.generate import generate as zoo_generate


def generation(
  model: Any,
  *,
  data: Mapping | Any,
  train_data: Mapping | Any | None = None,
  batch_size: int = 16,
  max_new_tokens: int | None = None,
  num_beams: int = 1,
  length_penalty: float = 1.0,
  examples: int = 20,
  file: str = "generation",
  generate: Callable = zoo_generate,
) -> Callable:
  """-> evaluate(params, folder=None, step=None) -> {"bleu", "chrf", "rouge1", "rouge2", "rougeL", "tokens", ...}.

  See `zoo.evaluate.text_scores`; `tokens` is the mean length of what was written. The rows `copy` and, with
  `train_data`, `most_frequent` are scored by the same code on the same references: the source text itself, and the
  target text that occurs most often in training, the first of them if there are several. Writes `file`.txt: sources,
  references and what the model wrote.

  Args:
    model: one that reads a text and writes another.
    data: section of the pipeline `text_pairs`, or its records: `tokens`, `valid`, and `texts(index)`.
    train_data: likewise, what the model was trained on.
    batch_size: texts at a time.
    max_new_tokens: the longest answer; by default the target_length of the data.
    num_beams, length_penalty: of beam search; 1 takes the likeliest token.
    examples: how many to write into the file.
    file: its name, without ending.
    generate: (model, params, tokens, valid=, max_new_tokens=, eos=, num_beams=, length_penalty=) -> int32 [batch, 1 +
      new tokens], the start token first.
  """
  records = records_of(data, model, "generation")
  if not hasattr(records, "texts"):
    raise UserError("generation needs data of pairs of texts. Use the pipeline text_pairs.")
  if not hasattr(model, "start_token"):
    raise UserError(f"generation needs a model with an encoder and a decoder; {kind_of(model)} is none. Try t5.")
  package("sacrebleu"), package("rouge_score.rouge_scorer")  # Fails before training, not after it.
  train_records = None if train_data is None else records_of(train_data, model, "generation")
  encoder, eos = records.info["tokenizer"], records.eos
  options = {"max_new_tokens": max_new_tokens or records.info["target_length"], "eos": eos}
  options |= {"num_beams": num_beams, "length_penalty": length_penalty}
  for name, least in (("max_new_tokens", 1), ("num_beams", 1), ("length_penalty", None)):
    checks.number(name, options[name], whole=least is not None, least=least)

  @functools.cache
  def pairs() -> tuple[list[str], list[str]]:
    sources, references = zip(*(records.texts(index) for index in range(len(records))))
    return list(sources), list(references)

  @functools.cache
  def baselines() -> dict[str, float]:
    sources, references = pairs()
    rows = {"copy": sources}
    if train_records is not None:
      targets = Counter(train_records.texts(index)[1] for index in range(len(train_records)))
      rows["most_frequent"] = [targets.most_common(1)[0][0]] * len(references)
    return {f"{row}/{name}": x for row, texts in rows.items() for name, x in scores(texts, references).items()}

  def evaluate(params: Any, folder: str | os.PathLike | None = None, step: int | None = None) -> dict[str, float]:
    written: list[list[int]] = []
    for batch in eval_batches(records, batch_size):
      answers = fetch(generate(model, params, batch["tokens"], valid=batch["valid"], **options))
      written += [until(row, eos) for row, weight in zip(answers[:, 1:].tolist(), batch["weight"]) if weight]
    # Sentinels may lie after the tokenizer's vocabulary, and an embedding may be padded; neither is text.
    texts = [encoder.decode([token for token in row if token < encoder.vocab_size]).strip() for row in written]
    sources, references = pairs()
    listed = [
      f"source     {source}\nreference  {reference}\nmodel      {text}"
      for source, reference, text in list(zip(sources, references, texts, strict=True))[:examples]
    ]
    head = f"{num_beams} beam(s), length penalty {length_penalty}"
    write_text(folder, f"{file}.txt", "\n\n".join([head if step is None else f"Step {step}, {head}", *listed]))
    tokens = float(np.mean([len(tokens) for tokens in written]))
    return scores(texts, references) | {"tokens": tokens} | baselines()

  return evaluate
