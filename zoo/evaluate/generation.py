"""Scores generated texts against references, with model-free baselines, or by a user's function."""

import functools
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from zoo.data.pipeline import eval_batches
from zoo.errors import UserError, family_of
from zoo.evaluate.artifacts import write_text
from zoo.evaluate.checking import check_function
from zoo.evaluate.forward import fetch, records_of
from zoo.evaluate.text_scores import MEASURES, TextScores
from zoo.generate import checks
from zoo.generate import generate as zoo_generate
from zoo.generate.steps import encodes

CHUNK = 256  # Records that a baseline reads at a time.


def generation(
  model: Any,
  *,
  data: Mapping | Any,
  train_data: Mapping | Any | None = None,
  batch_size: int = 16,
  max_new_tokens: int | None = None,
  num_beams: int | None = None,
  length_penalty: float | None = None,
  measures: Sequence[str] = MEASURES,
  check: str | None = None,
  examples: int = 20,
  file: str = "generation",
  generate: Callable = zoo_generate,
  stated: Mapping[str, Any] | None = None,
) -> Callable:
  """Evaluator: (params, folder=None, step=None) -> {"bleu", "chrf", "rouge1", "rouge2", "rougeL", "tokens", ...}.

  See `zoo.evaluate.text_scores`; `tokens` is the mean length of generated texts. The rows `copy` and, with
  `train_data`, `most_frequent` are baselines on the same references: the source text itself, and the
  most frequent target text in training, the first of them if there are several. Without references there are
  no scores. Writes `file`.txt: sources, references and generated texts.

  Args:
    model: an encoder-decoder or a decoder.
    data: section of the pipeline `text_pairs` or `prompts`, or its records: `tokens`, `valid`, and `texts(index)`.
    train_data: likewise, the model's training data.
    batch_size: texts per batch.
    max_new_tokens: maximum length of answers; by default as in `stated`, or the target_length of the data.
    num_beams, length_penalty: of beam search; 1 beam is greedy. By default as in `stated`, or 1.
    measures: scores to compute, of bleu, chrf and rouge.
    check: FILE.py:FUNCTION, called with (text, record) for each generated text: its mean is "check".
    examples: number of examples in the file.
    file: its name, without extension.
    generate: (model, params, tokens, valid=, max_new_tokens=, eos=, num_beams=, length_penalty=) -> int32 [batch,
      any + max_new_tokens], with the generated tokens last.
    stated: generation settings of the model's folder, keywords of `generate`; set by `zoo.evaluate_model`.

  Raises:
    UserError: the model does not generate, or the data are not pairs of texts.
  """
  records = records_of(data, model, "generation")
  if not hasattr(records, "texts"):
    raise UserError("generation needs pairs of texts. Use the data pipeline text_pairs.")
  if not getattr(model, "decodes", False):
    raise UserError(f"generation needs a model that writes; {family_of(model)} does not. Try t5.")
  if not encodes(model) and not hasattr(records, "has_references"):
    raise UserError(f"generation needs a model with an encoder and a decoder; {family_of(model)} is not one. Try t5.")
  has_references = getattr(records, "has_references", True)
  if has_references:
    TextScores(measures)  # Raises before training, not after it.
  judge = None if check is None else check_function(check)
  train_records = None if train_data is None else records_of(train_data, model, "generation")
  encoder, stated = records.info["tokenizer"], dict(stated or {})
  options = {"max_new_tokens": records.info["target_length"], "eos": records.eos, "num_beams": 1, "length_penalty": 1.0}
  options |= stated
  overrides = {"max_new_tokens": max_new_tokens, "num_beams": num_beams, "length_penalty": length_penalty}
  options |= {name: value for name, value in overrides.items() if value is not None}
  for name, least in (("max_new_tokens", 1), ("num_beams", 1), ("length_penalty", None)):
    checks.number(name, options[name], integer=least is not None, minimum=least)
  eos: Any = options["eos"]
  ends, most = list(eos) if isinstance(eos, list | tuple) else [eos], int(options["max_new_tokens"])

  @functools.cache
  def baselines() -> dict[str, float]:
    rows = {"copy": lambda source: source}
    if train_records is not None:
      targets = Counter(train_records.texts(index)[1] for index in range(len(train_records)))
      frequent = targets.most_common(1)[0][0]
      rows["most_frequent"] = lambda source: frequent
    counted = {row: TextScores(measures) for row in rows}
    for start in range(0, len(records), CHUNK):
      sources, references = zip(*(records.texts(index) for index in range(start, min(start + CHUNK, len(records)))))
      for row, write in rows.items():
        counted[row].add([write(source) for source in sources], references)
    return {f"{row}/{name}": x for row, scores in counted.items() for name, x in scores.metrics().items()}

  def evaluate(params: Any, folder: str | os.PathLike | None = None, step: int | None = None) -> dict[str, float]:
    counted = TextScores(measures) if has_references else None
    listed: list[str] = []
    tokens = checked = done = 0
    for batch in eval_batches(records, batch_size):
      answers = fetch(generate(model, params, batch["tokens"], valid=batch["valid"], **options))
      rows = [before(row[-most:], ends) for row in answers.tolist()]
      rows = [row for row, weight in zip(rows, batch["weight"]) if weight]
      texts = [written(row, encoder, getattr(records, "framed", False)) for row in rows]
      sources, references = zip(*(records.texts(done + number) for number in range(len(rows))))
      if counted is not None:
        counted.add(texts, references)
      if judge is not None:
        checked += sum(judge(text, records.source[done + number]) for number, text in enumerate(texts))
      for source, reference, text in zip(sources, references, texts) if len(listed) < examples else ():
        lines = [f"source     {source}", *([f"reference  {reference}"] if has_references else []), f"model      {text}"]
        listed.append("\n".join(lines))
      tokens += sum(map(len, rows))
      done += len(rows)
    head = f"{options['num_beams']} beam(s), length penalty {options['length_penalty']}"
    head = head if step is None else f"Step {step}, {head}"
    write_text(folder, f"{file}.txt", "\n\n".join([head, *listed[:examples]]))
    metrics = {} if counted is None else counted.metrics()
    metrics |= {} if judge is None else {"check": float(checked / done)}
    return metrics | {"tokens": float(tokens / done)} | (baselines() if has_references else {})

  return evaluate


def before(tokens: Sequence[int], ends: Sequence[int | None]) -> list[int]:
  """The tokens before the first of `ends`."""
  return list(tokens[: next((place for place, token in enumerate(tokens) if token in ends), len(tokens))])


def written(tokens: Sequence[int], encoder: Any, framed: bool) -> str:
  """Decodes tokens to text.

  Sentinels may be outside the tokenizer's vocabulary; they are no text.

  Args:
    tokens: of an answer.
    encoder: the tokenizer.
    framed: whether the model's texts are framed by special tokens, which are not text either.
  """
  return encoder.text_of(tokens, special=not framed).strip()
