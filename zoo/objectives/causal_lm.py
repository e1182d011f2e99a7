"""Next-token prediction: the loss of a decoder-only language model."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from zoo.errors import UserError
from zoo.objectives.objective import Objective, apply, check_batch, ratio, row_weight
from zoo.objectives.routing import imbalance, routes


def causal_lm(model: Any, balance: float = 0.0) -> Objective:
  """Every token is predicted from those before it: mean of -log p(tokens[t + 1] | tokens[..t]).

  Args:
    model: (tokens int [batch, length], valid=, segment_ids=, train=) -> logits [batch, length, vocab_size].
    balance: of a mixture of experts: how much of `zoo.objectives.routing.imbalance` is added to the loss.

  Batch: tokens int32 [batch, length]; optionally valid bool [batch, length] (only real tokens are predicted), weight
  [batch], and segment_ids int32 [batch, length] where several texts share a row (`zoo.data.packed`). The model sees
  `length - 1` tokens. Metrics: loss (nats per token), perplexity, accuracy, tokens (predicted); with `balance`,
  imbalance.
  """

  def init(rng: jax.Array, batch: dict) -> Any:
    check_batch(batch, "causal_lm", "tokens")
    return model.init(rng, batch["tokens"][:1, :-1])["params"]

  def forward(params: Any, batch: dict, rng: jax.Array | None = None) -> dict:
    tokens, valid = batch["tokens"], batch.get("valid")
    targets = tokens[:, 1:]
    seen = None if valid is None else valid[:, :-1]
    options: dict = {"mutable": ["router"]} if balance else {}
    if "segment_ids" in batch:
      options["segment_ids"] = batch["segment_ids"][:, :-1]
    logits = apply(model, params, tokens[:, :-1], valid=seen, rng=rng, **options)
    logits, state = logits if balance else (logits, {})
    if isinstance(logits, Mapping):
      raise UserError(f"causal_lm needs a model that predicts the next token, this one gives {', '.join(logits)}.")
    if balance and not state:
      raise UserError("balance evens the use of experts, and this model has none. Leave balance out.")
    logits = logits.astype(jnp.float32)
    weight = row_weight(batch, len(tokens))[:, None]
    counts = weight * (jnp.ones(targets.shape) if valid is None else valid[:, 1:])
    if "segment_ids" in batch:  # The last token of a text says nothing about the text behind it.
      counts *= batch["segment_ids"][:, 1:] == batch["segment_ids"][:, :-1]
    nll = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    correct = logits.argmax(-1) == targets
    routed = {name: rows * weight.reshape(-1, *[1] * (rows.ndim - 1)) for name, rows in routes(state, seen).items()}
    return {"nll": (nll * counts).sum(-1), "correct": (correct * counts).sum(-1), "count": counts.sum(-1), **routed}

  def reduce(outputs: dict) -> tuple[jax.Array, dict]:
    loss = ratio(outputs["nll"], outputs["count"])
    accuracy = ratio(outputs["correct"], outputs["count"])
    tokens = outputs["count"].sum()
    metrics = {"loss": loss, "perplexity": jnp.exp(loss), "accuracy": accuracy, "tokens": tokens}
    if not balance:
      return loss, metrics
    uneven = imbalance(outputs)
    return loss + balance * uneven, {**metrics, "imbalance": uneven}

  return Objective(init, forward, reduce)
