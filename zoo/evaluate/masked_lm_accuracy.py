"""Accuracy of masked-token prediction, and of next-sentence prediction."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import optax

from zoo.errors import UserError
from zoo.evaluate.forward import gather, needs_output, records_of
from zoo.objectives.masked_lm import masked_lm
from zoo.objectives.objective import REGIONS, apply, optional_entries, output


def masked_lm_accuracy(
  model: Any,
  *,
  data: Mapping | Any,
  batch_size: int = 32,
  rate: float = 0.15,
  mask_rate: float = 0.8,
  random_rate: float = 0.1,
  whole_word: bool = False,
  mask_token: int | None = None,
  seed: int = 0,
) -> Callable:
  """Evaluator: (params, folder=None, step=None) -> {"accuracy", "loss", "nsp_accuracy", "unigram/accuracy", ...}.

  Tokens are masked as in training (`zoo.objectives.masked_lm`), each row by its own content and `seed`: the same ones
  at every evaluation and batch size. The row `unigram` is the best that one fixed answer, and one fixed
  distribution, can reach at these positions: the share of their most frequent token, and their entropy. No model that
  ignores context is better. For next-sentence prediction, measured if the model has that head and the batch has
  `is_random`, it is the more frequent answer.

  Args:
    model: (tokens, segments=, valid=, predict=) -> {"mlm" [batch, chosen, vocab_size], "nsp" [batch, 2]}.
    data: section of a pipeline with `tokens`, e.g. `sentence_pairs`, or its records.
    batch_size: rows per batch.
    rate, mask_rate, random_rate, whole_word: as in the objective.
    mask_token: id of [MASK]; by default that of the data's tokenizer.
    seed: of the masking.
  """
  needs_output(model, "mlm", "masked_lm_accuracy")
  records = records_of(data, model, "masked_lm_accuracy", "tokens")
  never, vocab_size = special_tokens(records.info, mask_token)
  objective = masked_lm(
    model,
    mask_token=never[0],
    special_tokens=never[1:],
    vocab_size=vocab_size,
    rate=rate,
    mask_rate=mask_rate,
    random_rate=random_rate,
    whole_word=whole_word,
    eval_seed=seed,
  )

  @jax.jit
  def forward(params: Any, batch: dict) -> dict:
    hidden = objective.prepare(batch)
    entries = optional_entries(hidden, "segments", "valid", "segment_ids", "predict", *REGIONS)
    outputs = apply(model, params, hidden["inputs"], **entries)
    logits, target = output(outputs, "mlm", "masked_lm_accuracy", "Set model.head to 'mlm'."), hidden["target"]
    nats = optax.softmax_cross_entropy_with_integer_labels(logits, target)
    out = {"nats": nats, "right": logits.argmax(-1) == target, "chosen": hidden["chosen"] > 0, "target": target}
    if "nsp" in outputs and "is_random" in batch:
      out |= {"nsp_right": outputs["nsp"].argmax(-1) == batch["is_random"], "is_random": batch["is_random"]}
    return out

  def evaluate(params: Any, folder: str | os.PathLike | None = None, step: int | None = None) -> dict[str, float]:
    outputs = gather(forward, params, records, batch_size, model)
    chosen = outputs["chosen"]
    _, counts = np.unique(outputs["target"][chosen], return_counts=True)
    share = counts / counts.sum()
    metrics = {
      "accuracy": float(outputs["right"][chosen].mean()),
      "loss": float(outputs["nats"][chosen].mean(dtype=np.float64)),
      "predictions": float(counts.sum()),
      "unigram/accuracy": float(share.max()),
      "unigram/loss": float(-np.sum(share * np.log(share))),
    }
    if "nsp_right" in outputs:
      random = float(outputs["is_random"].mean())
      metrics |= {"nsp_accuracy": float(outputs["nsp_right"].mean()), "unigram/nsp_accuracy": max(random, 1 - random)}
    return metrics

  return evaluate


def special_tokens(info: Mapping[str, Any], mask_token: int | None) -> tuple[list[int], int | None]:
  """([mask token, tokens that are never masked], vocab_size) of the data's tokenizer."""
  if "tokenizer" not in info:
    if mask_token is None:
      raise UserError("masked_lm_accuracy: the data do not name their tokenizer. Set mask_token in the evaluator.")
    return [mask_token], info.get("vocab_size")
  encoder = info["tokenizer"]
  mask = encoder.mask if mask_token is None else mask_token
  if mask is None:
    raise UserError(f"masked_lm_accuracy: tokenizer {encoder.name} has no mask token. Set mask_token, or use bert.")
  special = [encoder.pad, encoder.bos, encoder.eos, encoder.cls, encoder.sep]
  return [mask, *dict.fromkeys(token for token in special if token is not None)], encoder.vocab_size
