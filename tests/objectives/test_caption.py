"""The captioning loss by hand, and that it leads to captions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import zoo
from tests.filled import filled
from zoo.errors import UserError
from zoo.objectives.caption import caption

ENCODER = dict(family="vit", image_size=4, patch_size=2, dim=6, depth=1, num_heads=2)
DECODER = dict(family="gpt", vocab_size=11, max_length=7, dim=9, depth=1, num_heads=3)
MODEL = zoo.build("vision_encoder_decoder", encoder=ENCODER, decoder=DECODER, start_token=1)


def test_the_loss_is_that_of_every_real_token_after_the_first():
  params = filled(MODEL, *MODEL.example())
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (2, 4, 4, 3)).astype(np.uint8)
  tokens = np.array([[8, 5, 6, 2, 0], [8, 4, 2, 0, 0]])  # They begin with another token than the model.
  valid = np.array([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]], bool)
  loss, metrics = caption(MODEL).loss(params, {"image": image, "tokens": tokens, "valid": valid})
  logits = MODEL.apply({"params": params}, image / 127.5 - 1, np.array([[1, 5, 6, 2], [1, 4, 2, 0]]))["logits"]
  nll = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]) * valid[:, 1:]
  np.testing.assert_allclose(loss, nll.sum() / 5, rtol=1e-5)
  assert int(metrics["tokens"]) == 5


def test_captions_are_learned_and_generated():
  rng = np.random.default_rng(0)
  batch = {"image": rng.normal(size=(3, 4, 4, 3)).astype(np.float32)}
  batch["tokens"] = np.array([[1, 5, 6, 2], [1, 7, 5, 2], [1, 9, 2, 2]])
  objective, optimizer = caption(MODEL), optax.adam(3e-2)
  params = objective.init(jax.random.key(0), batch)

  @jax.jit
  def step(carry, _):
    params, state = carry
    loss, grads = jax.value_and_grad(lambda params: objective.loss(params, batch)[0])(params)
    updates, state = optimizer.update(grads, state)
    return (optax.apply_updates(params, updates), state), loss

  (params, _), losses = jax.lax.scan(step, (params, optimizer.init(params)), length=60)
  assert losses[-1] < 0.1 * losses[0]
  written = zoo.generate(MODEL, params, batch["image"], max_new_tokens=3, eos=2)
  np.testing.assert_array_equal(written, batch["tokens"])


def test_a_batch_without_images_is_refused():
  with pytest.raises(UserError, match="caption needs image in a batch, the data have tokens"):
    caption(MODEL).loss({}, {"tokens": jnp.zeros((1, 3), int)})
