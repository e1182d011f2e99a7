import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import zoo
from tests.filled import filled
from zoo.models.clip_vision import ImageTower
from zoo.models.dual_encoder import DualEncoder

CLIP = zoo.build(
  "clip",
  **dict(image_size=6, patch_size=3, image_dim=6, image_depth=1, image_heads=3),
  **dict(text_dim=10, text_depth=1, text_heads=5, embed_dim=7, vocab_size=23, max_length=11),
)


class Means(ImageTower):
  """Channels' means, as a tower that has no projection."""

  width: int

  @nn.compact
  def __call__(self, image, *, train=False):
    return {"pooled": nn.Dense(self.width)(image.mean(axis=(1, 2)))}


class Words(nn.Module):
  """A bag of words."""

  width: int
  max_length: int = 5

  @nn.compact
  def __call__(self, tokens, *, valid=None, train=False):
    weight = jnp.ones(tokens.shape) if valid is None else valid
    return {
      "pooled": jnp.zeros((len(tokens), 1)),
      "embedded": (nn.Embed(23, self.width)(tokens) * weight[..., None]).sum(1),
    }


def test_any_two_towers_make_a_dual_encoder():
  model = DualEncoder(image=Means(image_size=4, channels=2, width=3), text=Words(3), logit_bias=-1.0)
  params = filled(model, *model.example(2))
  assert set(params) == {"image", "text", "logit_scale", "logit_bias"} and model.image_shape == (4, 4, 2)
  out = jax.jit(model.apply)({"params": params}, *model.example(2))
  assert out["image"].shape == out["text"].shape == (2, 3)
  np.testing.assert_allclose(jnp.linalg.norm(out["text"], axis=1), 1, rtol=1e-6)
  assert out["bias"] == params["logit_bias"] and out["scale"] == jnp.exp(params["logit_scale"])


def test_a_tower_alone_computes_what_it_computes_in_the_pair():
  image, tokens = CLIP.example(2)
  image = jax.random.normal(jax.random.key(0), image.shape)
  tokens = jax.random.randint(jax.random.key(1), tokens.shape, 0, 23)
  params = filled(CLIP, image, tokens)
  shared = dict(depth=1, embed_dim=7)
  alone = {
    "image": (zoo.build("clip_vision", image_size=6, patch_size=3, dim=6, num_heads=3, **shared), image),
    "text": (zoo.build("clip_text", vocab_size=23, max_length=11, dim=10, num_heads=5, **shared), tokens),
  }
  pair = jax.jit(CLIP.apply)({"params": params}, image, tokens)
  for name, (tower, x) in alone.items():
    embedded = jax.jit(tower.apply)({"params": {name: params[name]}}, x)["embedded"]
    unit = embedded / jnp.linalg.norm(embedded, axis=1, keepdims=True)
    np.testing.assert_allclose(unit, pair[name], rtol=1e-5, atol=1e-6)
