"""BERT's pretraining loss: masked tokens plus next sentences (https://arxiv.org/abs/1810.04805, section 3.1)."""

from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import NamedSharding

from zoo.objectives.masked_lm import masked_lm, mlm_terms
from zoo.objectives.next_sentence import next_sentence, nsp_terms
from zoo.objectives.objective import (
  NOTHING,
  REGIONS,
  Context,
  Objective,
  apply_with_carry,
  check_batch,
  optional_entries,
)


def bert_pretraining(
  model: Any,
  *,
  mask_token: int,
  vocab_size: int | None = None,
  special_tokens: Sequence[int] = (),
  rate: float = 0.15,
  mask_rate: float = 0.8,
  random_rate: float = 0.1,
  whole_word: bool = False,
  max_predictions: int | None = None,
  eval_seed: int = 0,
  chunk: int | None = None,
  by_row: NamedSharding | None = None,
) -> Objective:
  """masked_lm + next_sentence, from one forward pass; options and batch as theirs.

  Metrics: loss (the sum), mlm_loss, mlm_accuracy, nsp_loss, nsp_accuracy.

  >>> import jax.numpy as jnp
  >>> import zoo
  >>> model = zoo.build("bert", vocab_size=7, max_length=8, dim=8, depth=1, num_heads=2)
  >>> objective = bert_pretraining(model, mask_token=3)
  >>> batch = {"tokens": jnp.array([[4, 5, 6, 4], [6, 5, 4, 6]]), "is_random": jnp.array([0, 1])}
  >>> params = objective.init(jax.random.key(0), batch)
  >>> loss, metrics = objective.loss(params, batch)
  >>> bool(jnp.allclose(loss, metrics["mlm_loss"] + metrics["nsp_loss"]))
  True
  """
  words = masked_lm(
    model,
    mask_token=mask_token,
    vocab_size=vocab_size,
    special_tokens=special_tokens,
    rate=rate,
    mask_rate=mask_rate,
    random_rate=random_rate,
    whole_word=whole_word,
    max_predictions=max_predictions,
    eval_seed=eval_seed,
  )
  trunk, mlm_terms_of = mlm_terms(model, "bert_pretraining", chunk, by_row)
  sentences = next_sentence(model)

  def forward(params: Any, batch: dict, rng: jax.Array | None = None, context: Context = NOTHING) -> dict:
    masked = batch if "predict" in batch else words.prepare(batch, rng)
    options: dict = optional_entries(masked, "segments", "valid", "predict", *REGIONS)
    outputs, carried, _ = apply_with_carry(context, trunk, params, masked["inputs"], rng=rng, **options)
    return {**mlm_terms_of(params, outputs, masked), **nsp_terms(outputs, masked), **carried}

  def reduce(outputs: dict) -> tuple[jax.Array, dict]:
    (mlm, mlm_metrics), (nsp, nsp_metrics) = words.reduce(outputs), sentences.reduce(outputs)
    accuracy = {"mlm_accuracy": mlm_metrics["accuracy"], "nsp_accuracy": nsp_metrics["accuracy"]}
    return mlm + nsp, {"loss": mlm + nsp, "mlm_loss": mlm, "nsp_loss": nsp, **accuracy}

  def init(rng: jax.Array, batch: dict) -> Any:
    check_batch(batch, "bert_pretraining", "tokens", "is_random")
    return words.init(rng, batch)

  return Objective(init, forward, reduce, words.prepare, carry=words.carry)
