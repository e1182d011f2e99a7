"""Next-token prediction: the loss of a decoder-only language model."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from zoo.errors import UserError
from zoo.objectives.memory import continuing
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
from zoo.objectives.routing import imbalance, routes
from zoo.objectives.tokens import check_chunk, in_chunks, likelihood


def causal_lm(
  model: Any, balance: float = 0.0, chunk: int | None = None, by_row: NamedSharding | None = None
) -> Objective:
  """Next-token cross entropy: the mean of -log p(tokens[t + 1] | tokens[..t]).

  Args:
    model: (tokens int [batch, length], valid=, segment_ids=, train=) -> logits [batch, length, vocab_size].
    balance: for a mixture of experts: weight of the load balancing loss, `zoo.objectives.routing.imbalance`.
    chunk: number of tokens, over all devices, whose logits are in memory at a time; None: all.
    by_row: sharding of rows, for chunks; None: XLA decides.

  Batch: tokens int32 [batch, length]; optionally valid bool [batch, length] (only real tokens are predicted), weight
  [batch], and segment_ids int32 [batch, length] of packed sequences (`zoo.data.packed`). The model sees
  `length - 1` tokens: rows of 1,025 fill tiles completely. Metrics: loss (nats per token), perplexity, accuracy,
  tokens (predicted); with `balance`, imbalance.

  Raises:
    UserError: the model does not predict the next token; `balance` is set, and it has no mixture of experts.

  >>> import zoo
  >>> model = zoo.build("gpt", vocab_size=7, max_length=8, dim=8, depth=1, num_heads=2)
  >>> objective = causal_lm(model)
  >>> batch = {"tokens": jnp.arange(12).reshape(2, 6) % 7}
  >>> params = objective.init(jax.random.key(0), batch)
  >>> loss, metrics = objective.loss(params, batch)
  >>> loss.shape, sorted(metrics), int(metrics["tokens"])
  ((), ['accuracy', 'loss', 'perplexity', 'tokens'], 10)
  """

  check_chunk(model, "causal_lm", chunk)
  trunk = model if chunk is None else model.trunk()

  def arguments(batch: dict) -> tuple[list, dict]:
    check_batch(batch, "causal_lm", "tokens")
    return [batch["tokens"][:, :-1]], {}

  def forward(params: Any, batch: dict, rng: jax.Array | None = None, context: Context = NOTHING) -> dict:
    tokens, valid = batch["tokens"], batch.get("valid")
    context = continuing(context, batch)
    targets = tokens[:, 1:]
    options = {name: array[:, :-1] for name, array in optional_entries(batch, "valid", "segment_ids").items()}
    sown = ["router"] if balance else []
    logits, carried, state = apply_with_carry(context, trunk, params, tokens[:, :-1], **options, rng=rng, sown=sown)
    if isinstance(logits, Mapping):
      raise UserError(f"causal_lm needs a model that predicts the next token, this one returns {', '.join(logits)}.")
    if balance and not state:
      raise UserError("causal_lm.balance needs a mixture of experts, which this model is not. Leave balance out.")
    weight = row_weight(batch, len(tokens))[:, None]
    counts = weight * (jnp.ones(targets.shape) if valid is None else valid[:, 1:])
    if "segment_ids" in batch:  # The last token of a segment does not predict the next segment.
      counts *= batch["segment_ids"][:, 1:] == options["segment_ids"]
    if chunk is None:
      sums = likelihood(logits, targets, counts)
    else:
      sums = in_chunks(likelihood, model, params, logits, targets, counts, chunk, by_row)
    routed = {
      name: rows * weight.reshape(-1, *[1] * (rows.ndim - 1))
      for name, rows in routes(state, options.get("valid")).items()
    }
    return {**sums, "count": counts.sum(-1), **routed, **carried}

  def reduce(outputs: dict) -> tuple[jax.Array, dict]:
    loss = ratio(outputs["nll"], outputs["count"])
    accuracy = ratio(outputs["correct"], outputs["count"])
    tokens = outputs["count"].sum()
    metrics = {"loss": loss, "perplexity": jnp.exp(loss), "accuracy": accuracy, "tokens": tokens}
    if not balance:
      return loss, metrics
    uneven = imbalance(outputs)
    return loss + balance * uneven, {**metrics, "imbalance": uneven}

  init, carry = init_and_carry(model, arguments)
  return Objective(init, forward, reduce, carry=carry)
