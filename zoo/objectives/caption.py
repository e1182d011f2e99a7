"""Captioning loss: the words of a caption, one after the other, given the image."""

from typing import Any

import jax

from zoo.objectives.objective import NOTHING, Batch, Context, Objective, check_batch
from zoo.objectives.seq2seq import seq2seq
from zoo.preprocessing import as_float


def caption(model: Any, *, label_smoothing: float = 0.0) -> Objective:
  """Caption-token cross entropy: the mean of -log p(tokens[t] | tokens[..t], image).

  It is `seq2seq` with an image for its source. The caption's first token, which begins it, is not predicted; the
  model's `start_token` takes its place.

  Args:
    model: (image, decoder_tokens, train=) -> {"logits" [batch, length, vocab_size]}, and `start_token`.
    label_smoothing: as of `seq2seq`.

  Batch: image uint8 or float [batch, height, width, channels], tokens int32 [batch, length] of its caption with begin
  and end; optionally valid [batch, length], True = a real token, and weight [batch]. Metrics: as of `seq2seq`.

  >>> import jax.numpy as jnp
  >>> import zoo
  >>> encoder = {"family": "vit", "image_size": 4, "patch_size": 2, "dim": 8, "depth": 1, "num_heads": 2}
  >>> decoder = {"family": "gpt", "vocab_size": 7, "max_length": 8, "dim": 8, "depth": 1, "num_heads": 2}
  >>> objective = caption(zoo.build("vision_encoder_decoder", encoder=encoder, decoder=decoder))
  >>> batch = {"image": jnp.zeros((2, 4, 4, 3)), "tokens": jnp.array([[1, 5, 6, 2], [1, 4, 2, 2]])}
  >>> params = objective.init(jax.random.key(0), batch)
  >>> loss, metrics = objective.loss(params, batch)
  >>> loss.shape, int(metrics["tokens"])
  ((), 6)
  """
  write = seq2seq(model, label_smoothing)

  def pairs(batch: Batch) -> dict:
    check_batch(batch, "caption", "image", "tokens")
    targets = {f"target_{name}": batch[name][:, 1:] for name in ("tokens", "valid") if name in batch}
    rest = {"weight": batch["weight"]} if "weight" in batch else {}
    return {"tokens": as_float(batch["image"], model), **targets, **rest}

  def init(rng: jax.Array, batch: Batch) -> Any:
    return write.init(rng, pairs(batch))

  def forward(params: Any, batch: Batch, rng: jax.Array | None = None, context: Context = NOTHING) -> dict:
    return write.forward(params, pairs(batch), rng, context)

  return Objective(init, forward, write.reduce, carry=lambda rng, batch: write.carry(rng, pairs(batch)))
