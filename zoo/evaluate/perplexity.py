"""Perplexity of a causal language model on held-out text: nats per token, perplexity, bits per byte."""

import functools
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from zoo.errors import UserError
from zoo.evaluate import ngram
from zoo.evaluate.forward import outputs, records_of
from zoo.objectives.objective import ROWS, by_kind, optional_entries
from zoo.tree import variables


def perplexity(
  model: Any,
  *,
  data: Mapping | Any,
  batch_size: int = 16,
  train_data: Mapping | Any | None = None,
  order: int = 5,
) -> Callable:
  """Evaluator: (params, folder=None, step=None) -> {"loss", "perplexity", "bits_per_byte", "tokens", ...}.

  The loss is in nats per token. Every token after the first of the text is predicted once, including the end of each
  document. Bits per byte are the sum of all nats divided by log(2) and by the UTF-8 bytes of the text: they compare
  models with different tokenizers.

  Args:
    model: (tokens [batch, length], valid=) -> logits [batch, length, vocab_size].
    data: section of the pipeline `language`, of `contiguous`, with which a model's memory is carried from batch to
      batch, or of `packed` documents; or the records of one: `tokens`, `valid`, `segment_ids` for packed sequences, and
      `info` with `bytes`.
    batch_size: chunks per batch.
    train_data: the training text. With it the rows `tokens_5gram` and `bytes_5gram` have the perplexity of
      interpolated n-grams, fitted to it, on the same documents (`zoo.evaluate.ngram`); the latter only if the
      tokenizer is lossless. Their loss is the nats of the full text divided by the model's number of
      tokens.
    order: of the n-grams.

  Raises:
    UserError: the tokenizer of the data has another vocabulary than the model.
  """
  records = records_of(data, model, "perplexity", "tokens")
  train_records = None if train_data is None else records_of(train_data, model, "perplexity", "tokens")

  @jax.jit
  def forward(params: Any, batch: dict, memory: dict) -> tuple[dict, dict]:
    tokens, valid = batch["tokens"], batch.get("valid", jnp.ones_like(batch["tokens"], bool))
    counts = valid[:, 1:]
    segments = {name: x[:, :-1] for name, x in optional_entries(batch, "segment_ids").items()}
    if segments:  # In packed sequences no document predicts the first token of the next.
      counts &= batch["segment_ids"][:, 1:] == segments["segment_ids"]
    inputs = {**variables(params), **memory}, tokens[:, :-1]
    options = {"valid": valid[:, :-1], **segments}
    logits = model.apply(*inputs, **options, mutable=list(memory)) if memory else model.apply(*inputs, **options)
    logits, memory = logits if memory else (logits, memory)
    logits = logits.astype(jnp.float32)
    if records.info.get("vocab_size", 0) > logits.shape[-1]:
      raise UserError(
        f"perplexity: tokenizer {records.info['tokenizer'].name} has {records.info['vocab_size']} tokens, the model "
        f"predicts {logits.shape[-1]}. Give the model at least that vocab_size, or the data the model's tokenizer."
      )
    nats = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
    return {"nats": jnp.sum(nats * counts, 1), "tokens": counts.sum(1)}, memory

  @functools.cache
  def baselines() -> dict[str, float]:
    return {} if train_records is None else ngrams(records, train_records, order)

  def evaluate(params: Any, folder: str | os.PathLike | None = None, step: int | None = None) -> dict[str, float]:
    nats = tokens = 0.0
    memory = empty_memory(model, batch_size, records.info["max_length"] - 1) if records.continuing else {}
    for sums, _ in outputs(forward, params, records, batch_size, model, memory=memory):
      nats += float(sums["nats"].sum(dtype=np.float64))
      tokens += int(sums["tokens"].sum())
    return figures(nats, tokens, records.info) | {"tokens": float(tokens)} | baselines()

  return evaluate


def empty_memory(model: Any, rows: int, length: int) -> dict[str, Any]:
  """An empty memory for each row, as the model carries it: {collection: zeros}; {} if it carries none."""
  carries = getattr(model, "carries", {})
  if not carries:
    return {}
  shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((rows, length), jnp.int32))
  memory = by_kind(carries, shapes).get(ROWS, {})
  return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), memory)


def figures(nats: float, tokens: float, info: Mapping[str, Any], row: str = "") -> dict[str, float]:
  """Loss, perplexity and bits per byte from total `nats`, `tokens` and `info["bytes"]`."""
  metrics = {f"{row}loss": nats / tokens, f"{row}perplexity": math.exp(min(nats / tokens, 700.0))}
  return metrics | ({f"{row}bits_per_byte": nats / math.log(2) / info["bytes"]} if "bytes" in info else {})


def ngrams(records: Any, train_records: Any, order: int) -> dict[str, float]:
  """Metrics on the text of `records` of token and byte n-gram models fitted to `train_records`."""
  encoder, train_encoder = (kind.info["tokenizer"] for kind in (records, train_records))
  if encoder.name != train_encoder.name:
    raise UserError(
      f"perplexity: data use the tokenizer {encoder.name}, train_data {train_encoder.name}. Use the same for both."
    )
  test, train = stream(records), stream(train_records)
  tokens = len(test) - 1  # the first symbol is given, not predicted

  def score(kind: str, train: np.ndarray, test: np.ndarray, vocab_size: int) -> dict[str, float]:
    nats = -ngram.log_probabilities(ngram.fit(train, vocab_size, order), test)[1:].sum()
    return figures(float(nats), tokens, records.info, row=f"{kind}_{order}gram/")

  metrics = score("tokens", train, test, encoder.vocab_size)
  test, train = as_bytes(test, encoder), as_bytes(train, encoder)
  if np.sum(test < END) == records.info["bytes"]:
    metrics |= score("bytes", train, test, END + 1)
  return metrics


def stream(records: Any) -> np.ndarray:
  """The chunks of `records` concatenated: `eos document eos document ... eos`, int [tokens + 1]."""
  chunks = [records[index] for index in range(len(records))]
  if "segment_ids" in chunks[0]:
    raise UserError("perplexity counts n-grams of running text: with train_data, use the pipeline language for both.")
  return np.concatenate([chunks[0]["tokens"][:1], *(chunk["tokens"][1:][chunk["valid"][1:]] for chunk in chunks)])


END = 256  # Document boundary; bytes are 0 to 255.


def as_bytes(tokens: np.ndarray, encoder: Any) -> np.ndarray:
  """The stream, int [tokens], as UTF-8 bytes, int [bytes], with END at the start and at the end of every document."""
  eos = encoder.eos if encoder.eos is not None else encoder.sep
  boundaries = np.flatnonzero(tokens == eos)
  parts = [np.array([END])]
  for start, end in zip(boundaries, boundaries[1:], strict=False):
    text = encoder.decode(tokens[start + 1 : end].tolist())
    parts += [np.frombuffer(text.encode("utf-8", "surrogateescape"), np.uint8), np.array([END])]
  return np.concatenate(parts).astype(np.int64)
