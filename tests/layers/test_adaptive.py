import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.filled import filled
from zoo.layers.adaptive import AdaptiveEmbed, AdaptiveLogits

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("narrowing", [1, 2])
def test_adaptive_logits_are_chances_of_clusters_times_chances_within(narrowing):
  embed = AdaptiveEmbed(11, 6, (3, 7), embed_dim=6, narrowing=narrowing)
  head = AdaptiveLogits()
  x = RNG.standard_normal((2, 5, 6)).astype(np.float32)
  tables = filled(embed, np.zeros((1, 2), int))
  bound = embed.bind({"params": tables})
  params = filled_head(head, x, bound)
  logits = np.asarray(head.apply({"params": params}, x, bound))
  np.testing.assert_allclose(np.exp(logits).sum(-1), 1, rtol=1e-5)
  bounds = [0, 3, 7, 11]
  for token in range(11):
    cluster = int(np.searchsorted(bounds, token, side="right")) - 1
    frequent = np.concatenate([products(tables, x, 0, narrowing), x_projected(tables, x, 0, narrowing) @ np.asarray(
      params["clusters"]).T], axis=-1)  # fmt: skip
    frequent = frequent + np.concatenate([params["bias_0"], params["cluster_bias"]])
    chance = softmax(frequent)
    if cluster == 0:
      expected = chance[..., token]
    else:
      within = softmax(products(tables, x, cluster, narrowing) + np.asarray(params[f"bias_{cluster}"]))
      expected = chance[..., 3 + cluster - 1] * within[..., token - bounds[cluster]]
    np.testing.assert_allclose(np.exp(logits[..., token]), expected, rtol=1e-4)


def filled_head(head, x, embed):
  shapes = jax.eval_shape(lambda: head.init(jax.random.key(0), x, embed))["params"]
  return {name: jnp.asarray(RNG.standard_normal(leaf.shape), jnp.float32) for name, leaf in shapes.items()}


def x_projected(tables, x, cluster, narrowing):
  projection = tables.get(f"projection_{cluster if narrowing > 1 else 0}")
  return x if projection is None else x @ np.asarray(projection).T


def products(tables, x, cluster, narrowing):
  bounds = [0, 3, 7, 11]
  if narrowing > 1:
    table = np.asarray(tables[f"embedding_{cluster}"])
  else:
    table = np.asarray(tables["embedding_0"])[bounds[cluster] : bounds[cluster + 1]]
  return x_projected(tables, x, cluster, narrowing) @ table.T


def softmax(x):
  return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def test_an_adaptive_embedding_looks_each_token_up_in_its_cluster():
  embed = AdaptiveEmbed(11, 6, (3, 7), embed_dim=4, narrowing=2)
  params = filled(embed, np.zeros((1, 2), int))
  vectors = np.asarray(embed.apply({"params": params}, np.arange(11)[None]))[0]
  for token, (cluster, first) in enumerate([(0, 0)] * 3 + [(1, 3)] * 4 + [(2, 7)] * 4):
    row = np.asarray(params[f"embedding_{cluster}"])[token - first]
    np.testing.assert_allclose(vectors[token], row @ params[f"projection_{cluster}"] * 6**0.5, rtol=1e-5)
  assert np.isnan(embed.apply({"params": params}, np.array([[11]]))).all()
