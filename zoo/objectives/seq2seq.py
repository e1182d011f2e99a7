"""Sequence-to-sequence loss of an encoder-decoder (https://arxiv.org/abs/1706.03762, section 5.4)."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from zoo.errors import UserError, family_of
from zoo.objectives.objective import (
  NOTHING,
  Context,
  Objective,
  apply_with_carry,
  check_batch,
  init_and_carry,
  optional_entries,
  ratio,
  row_weight,
)
from zoo.objectives.tokens import check_chunk, in_chunks, likelihood


def seq2seq(
  model: Any, label_smoothing: float = 0.0, chunk: int | None = None, by_row: NamedSharding | None = None
) -> Objective:
  """Target-token cross entropy: the mean of -log p(target[t] | target[..t], source).

  The mean is over all real target tokens of the batch, so longer rows weigh more. With smoothing e the loss is
  `(1 - e) * -log p(target) + e * mean over the vocabulary of -log p`: the target's share is 1 - e + e / vocab_size.

  Args:
    model: (tokens, decoder_tokens, valid=, segment_ids=, decoder_segment_ids=, train=) -> {"logits" [batch, target
      length, vocab_size]}, and `start_token`, after which the decoder gets the target shifted right.
    label_smoothing: share of each target that is spread evenly over the vocabulary.
    chunk: number of target tokens, over all devices, whose logits are in memory at a time; None: all.
    by_row: sharding of rows, for chunks; None: XLA decides.

  Batch: tokens int32 [batch, length], target_tokens int32 [batch, target length]; optionally valid [batch, length] and
  target_valid [batch, target length], True = a real token, and weight [batch]; if several pairs share a row, as in
  `zoo.data.packed`, segment_ids and target_segment_ids, int32 in the shapes of the tokens. Metrics: loss
  (nats per token), nll (the same without smoothing), perplexity = exp(nll), accuracy (of the next token, given the
  target before it), tokens.

  Raises:
    UserError: label_smoothing is out of range, or the model is no encoder-decoder that predicts tokens.

  >>> import zoo
  >>> model = zoo.build("transformer", vocab_size=7, max_length=8, dim=8, depth=1, num_heads=2)
  >>> objective = seq2seq(model, label_smoothing=0.1)
  >>> batch = {"tokens": jnp.array([[4, 5, 6, 2]]), "target_tokens": jnp.array([[6, 5, 2]])}
  >>> params = objective.init(jax.random.key(0), batch)
  >>> loss, metrics = objective.loss(params, batch)
  >>> bool(loss != metrics["nll"]), int(metrics["tokens"])
  (True, 3)
  """
  if not 0 <= label_smoothing < 1:
    raise UserError(f"seq2seq.label_smoothing is {label_smoothing}. It must be 0 or more and below 1.")
  if not hasattr(model, "start_token"):
    raise UserError(f"seq2seq needs a model with an encoder and a decoder; {family_of(model)} is not one. Try t5.")
  if not 0 <= model.start_token < (count := getattr(model, "vocab_size", 2**31)):
    raise UserError(f"model.start_token is {model.start_token}, and the model's tokens are 0 to {count - 1}. Set it.")

  check_chunk(model, "seq2seq", chunk)
  trunk, output_name = (model, "logits") if chunk is None else (model.trunk(), "hidden")

  def arguments(batch: dict) -> tuple[list, dict]:
    check_batch(batch, "seq2seq", "tokens", "target_tokens")
    return [batch["tokens"], batch["target_tokens"]], {}

  def forward(params: Any, batch: dict, rng: jax.Array | None = None, context: Context = NOTHING) -> dict:
    target = batch["target_tokens"]
    start = jnp.full_like(target[:, :1], model.start_token)
    inputs = jnp.concatenate([start, target[:, :-1]], axis=1)
    options: dict = optional_entries(batch, "valid", "segment_ids")
    if "target_segment_ids" in batch:
      segments = options["decoder_segment_ids"] = batch["target_segment_ids"]
      begins = segments[:, 1:] != segments[:, :-1]
      inputs = inputs.at[:, 1:].set(jnp.where(begins, model.start_token, inputs[:, 1:]))
    # Padding comes after the target, so the causal mask hides it from all real tokens.
    states, carried, _ = apply_with_carry(context, trunk, params, batch["tokens"], inputs, rng=rng, **options)
    if not isinstance(states, Mapping) or output_name not in states or states[output_name].ndim != 3:
      raise UserError("seq2seq needs a model that predicts the next token. Build it with head='lm'.")
    counts = row_weight(batch, len(target))[:, None] * batch.get("target_valid", jnp.ones(target.shape, bool))
    if chunk is None:
      sums = smoothed(states["logits"], target, counts)
    else:
      sums = in_chunks(smoothed, model, params, states["hidden"], target, counts, chunk, by_row)
    return sums | {"count": counts.sum(-1)} | carried

  def smoothed(logits: jax.Array, target: jax.Array, counts: jax.Array) -> dict:
    logits = logits.astype(jnp.float32)
    sums = likelihood(logits, target, counts)
    if not label_smoothing:
      return {**sums, "loss": sums["nll"]}
    uniform = ((jax.nn.logsumexp(logits, axis=-1) - logits.mean(-1)) * counts).sum(-1)
    return {**sums, "loss": (1 - label_smoothing) * sums["nll"] + label_smoothing * uniform}

  def reduce(outputs: dict) -> tuple[jax.Array, dict]:
    loss, nll, accuracy = (ratio(outputs[name], outputs["count"]) for name in ("loss", "nll", "correct"))
    tokens = outputs["count"].sum()
    return loss, {"loss": loss, "nll": nll, "perplexity": jnp.exp(nll), "accuracy": accuracy, "tokens": tokens}

  init, carry = init_and_carry(model, arguments)
  return Objective(init, forward, reduce, carry=carry)
