"""Next-token prediction: the loss of a decoder-only language model."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from zoo.errors import UserError
from zoo.objectives.objective import Objective, apply, check_batch, ratio, row_weight


def causal_lm(model: Any) -> Objective:
  """Every token is predicted from those before it: mean of -log p(tokens[t + 1] | tokens[..t]).

  Args:
    model: (tokens int [batch, length], valid=, train=) -> logits [batch, length, vocab_size].

  Batch: tokens int32 [batch, length]; optionally valid bool [batch, length] (only real tokens are predicted) and weight
  [batch]. The model sees `length - 1` tokens. Metrics: loss (nats per token), perplexity, accuracy, tokens (predicted).
  """

  def init(rng: jax.Array, batch: dict) -> Any:
    check_batch(batch, "causal_lm", "tokens")
    return model.init(rng, batch["tokens"][:1, :-1])["params"]

  def forward(params: Any, batch: dict, rng: jax.Array | None = None) -> dict:
    tokens, valid = batch["tokens"], batch.get("valid")
    targets = tokens[:, 1:]
    logits = apply(model, params, tokens[:, :-1], valid=None if valid is None else valid[:, :-1], rng=rng)
    if isinstance(logits, Mapping):
      raise UserError(f"causal_lm needs a model that predicts the next token, this one gives {', '.join(logits)}.")
    logits = logits.astype(jnp.float32)
    counts = row_weight(batch, len(tokens))[:, None] * (jnp.ones(targets.shape) if valid is None else valid[:, 1:])
    nll = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    correct = logits.argmax(-1) == targets
    return {"nll": (nll * counts).sum(-1), "correct": (correct * counts).sum(-1), "count": counts.sum(-1)}

  def reduce(outputs: dict) -> tuple[jax.Array, dict]:
    loss = ratio(outputs["nll"], outputs["count"])
    accuracy = ratio(outputs["correct"], outputs["count"])
    tokens = outputs["count"].sum()
    return loss, {"loss": loss, "perplexity": jnp.exp(loss), "accuracy": accuracy, "tokens": tokens}

  return Objective(init, forward, reduce)
