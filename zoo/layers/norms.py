"""Norms, as parts. Variance is computed from the centred values: E[x^2] - E[x]^2 cancels in float32."""

import flax.linen as nn


def layer_norm(epsilon, dtype=None):
  """scale * (x - mean) / sqrt(variance + epsilon) + bias over the last axis. https://arxiv.org/abs/1607.06450"""
  return nn.LayerNorm(epsilon=epsilon, dtype=dtype, use_fast_variance=False)


def rms_norm(epsilon, dtype=None):
  """scale * x / sqrt(mean(x^2) + epsilon) over the last axis. https://arxiv.org/abs/1910.07467"""
  return nn.RMSNorm(epsilon=epsilon, dtype=dtype, use_fast_variance=False)
