import jax
import numpy as np
import optax

import zoo
from tests.filled import filled
from zoo.layers.embeddings import shift_right

MODEL = zoo.build("transformer", vocab_size=13, max_length=16, dim=16, depth=2, num_heads=2, mlp_dim=32)


def test_embeddings_are_scaled_and_the_output_is_the_embedding():
  params = jax.device_get(filled(MODEL, *MODEL.example()))
  assert set(params) == {"embed", "encoder", "decoder"}
  x = np.array([[3, 1, 4]])
  angle = np.arange(3)[:, None] / 10_000 ** (np.arange(8) / 8)
  positions = np.stack([np.sin(angle), np.cos(angle)], -1).reshape(1, 3, 16)  # Sine and cosine take turns.
  embedded = 4 * params["embed"]["embedding"][x] + positions

  @jax.jit  # What is not asked for is not compiled.
  def embed(params):
    _, state = MODEL.apply({"params": params}, x, x, capture_intermediates=True, mutable=["intermediates"])
    return state["intermediates"]["encoder"]["Dropout_0"]["__call__"][0]

  np.testing.assert_allclose(embed(params), embedded, rtol=1e-5, atol=1e-5)


def test_a_transformer_learns_to_turn_texts_around():
  optimizer = optax.adam(optax.warmup_cosine_decay_schedule(0, 1e-2, 20, 150))
  params = jax.jit(lambda rng: MODEL.init(rng, *MODEL.example()))(jax.random.key(0))["params"]

  def loss(params, tokens):
    wanted = tokens[:, ::-1]
    logits = MODEL.apply({"params": params}, tokens, shift_right(wanted, MODEL.start_token))["logits"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, wanted).mean()

  def step(carry, tokens):
    params, state = carry
    value, grads = jax.value_and_grad(loss)(params, tokens)
    updates, state = optimizer.update(grads, state)
    return (optax.apply_updates(params, updates), state), value

  texts = np.random.default_rng(1).integers(1, 13, (150, 32, 6), np.int32)
  _, losses = jax.jit(lambda params: jax.lax.scan(step, (params, optimizer.init(params)), texts))(params)
  assert losses[-10:].mean() < 0.8 * np.log(12)  # What whoever does not read the text can reach is the logarithm alone.
