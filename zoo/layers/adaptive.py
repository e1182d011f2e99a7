"""Adaptive input embeddings and softmax: clusters of rare tokens have narrower embeddings.

Tokens are sorted by frequency and split into clusters. https://arxiv.org/abs/1809.10853 for the embedding,
https://arxiv.org/abs/1609.04309 for the softmax.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import canonicalize_dtype

from zoo.layers import initial, mixed_precision
from zoo.layers.kernel_products import dot


class AdaptiveEmbed(nn.Module):
  """Adaptive token embeddings times sqrt(dim): narrower embeddings of rare clusters are projected to the full width.

  Args:
    num_embeddings: vocabulary size.
    features: output width.
    cutoffs: the first token of each cluster except the first, increasing.
    embed_dim: embedding width of the first cluster.
    narrowing: factor by which each cluster is narrower than the previous one; 1: one table for all tokens.
    dtype: output dtype; float32 if None.
    embedding_init, projection_init: initializers of tables and projections.

  >>> embed = AdaptiveEmbed(11, 6, cutoffs=(3, 7), embed_dim=4, narrowing=2)
  >>> params = embed.init(jax.random.key(0), jnp.array([[0, 3, 10]]))["params"]
  >>> [params[f"embedding_{i}"].shape for i in range(3)]
  [(3, 4), (4, 2), (4, 1)]
  >>> embed.apply({"params": params}, jnp.array([[0, 3, 10]])).shape
  (1, 3, 6)
  """

  num_embeddings: int
  features: int
  cutoffs: tuple[int, ...] = ()
  embed_dim: int | None = None
  narrowing: int = 1
  dtype: Any = None
  embedding_init: Callable = initial.normal(0.02)
  projection_init: Callable = initial.normal(0.01)

  def setup(self):
    tables, projections = [], []
    for i, (first, end) in enumerate(self.tables):
      width = (self.embed_dim or self.features) // self.narrowing**i
      tables.append(self.param(f"embedding_{i}", self.embedding_init, (end - first, width)))
      alike = self.narrowing == 1 and width == self.features
      shape = (width, self.features)
      projections.append(None if alike else self.param(f"projection_{i}", self.projection_init, shape))
    self.embeddings, self.projections = tables, projections

  @property
  def clusters(self):
    """(first token, token after the last) of each cluster."""
    return list(zip((0, *self.cutoffs), (*self.cutoffs, self.num_embeddings), strict=True))

  @property
  def tables(self):
    """(first token, token after the last) of each table: one per cluster, or one for all."""
    return self.clusters if self.narrowing > 1 else [(0, self.num_embeddings)]

  def __call__(self, tokens):
    """int32 [batch, length] -> [batch, length, features]"""
    if not jnp.issubdtype(tokens.dtype, jnp.integer):
      raise ValueError(f"Tokens are {tokens.dtype}. They must be ints.")
    vectors = 0
    dtype = canonicalize_dtype(self.embeddings[0], dtype=self.dtype)
    for i, (first, end) in enumerate(self.tables):
      # Tokens outside the vocabulary are looked up in the first and last table, which have no row for them: NaN.
      inside = (tokens >= first) | (i == 0)
      inside &= (tokens < end) | (end == self.num_embeddings)
      rows = mixed_precision.look_up(self.embeddings[i], jnp.where(inside, tokens - first, 0), dtype)
      projection = self.projections[i]
      rows = rows if projection is None else dot(rows, projection)
      vectors += jnp.where(inside[..., None], rows, 0)
    return vectors * self.features**0.5

  def table(self, index):
    """Embedding table of a cluster, [tokens, width]."""
    first, end = self.clusters[index]
    return self.embeddings[index] if self.narrowing > 1 else self.embeddings[0][first:end]

  def projection(self, index):
    """Projection of a cluster's embeddings, [width, features]; None if they have the full width."""
    return self.projections[index if self.narrowing > 1 else 0]


class AdaptiveLogits(nn.Module):
  """Adaptive softmax: log-probabilities over frequent tokens and clusters, then within clusters.

  Its tables are those of an `AdaptiveEmbed`.

  Args:
    own_projections: whether each cluster has its own projection instead of the embedding's.
    kernel_init: initializer of its own parameters.
  """

  own_projections: tuple[bool, ...] = ()
  kernel_init: Callable = initial.normal(0.02)
  projection_init: Callable = initial.normal(0.01)

  @nn.compact
  def __call__(self, x, embed):
    """[..., dim], `AdaptiveEmbed` -> float32 [..., vocab_size], whose exponentials sum to 1"""
    clusters = embed.clusters
    wide = embed.embed_dim or embed.features
    dtype = canonicalize_dtype(x, dtype=embed.dtype)
    biases = [self.param(f"bias_{i}", initial.zeros, (end - first,)) for i, (first, end) in enumerate(clusters)]
    logits = []
    for i in range(len(clusters)):
      table, projection = embed.table(i), embed.projection(i)
      if projection is not None and self.own_projections and self.own_projections[i]:
        projection = self.param(f"projection_{i}", self.projection_init, projection.shape)
      if i == 0 and len(clusters) > 1:  # Clusters come after the frequent tokens.
        kernel = self.param("clusters", self.kernel_init, (len(clusters) - 1, wide))
        biases[0] = jnp.concatenate([biases[0], self.param("cluster_bias", initial.zeros, (len(clusters) - 1,))])
        table = jnp.concatenate([table, kernel])
      narrow = x.astype(dtype) if projection is None else dot(x.astype(dtype), projection, ((x.ndim - 1,), (1,)))
      products = dot(narrow, table, ((x.ndim - 1,), (1,)), preferred_element_type=jnp.float32)
      logits.append(jax.nn.log_softmax(mixed_precision.add(products, biases[i])))
    frequent = clusters[0][1]
    chances = [logits[0][..., :frequent]]
    for i, within in enumerate(logits[1:]):
      chances.append(logits[0][..., frequent + i, None] + within)
    return jnp.concatenate(chances, axis=-1)
