"""Normalisation layers. Variance is computed from the centred values: E[x^2] - E[x]^2 cancels in float32."""

from typing import Any

import flax.linen as nn
from flax.linen.dtypes import canonicalize_dtype

from zoo.layers import initial
from zoo.layers.mixed_precision import multiply


def layer_norm(epsilon, dtype=None):
  """scale * (x - mean) / sqrt(variance + epsilon) + bias over the last axis. https://arxiv.org/abs/1607.06450"""
  return nn.LayerNorm(epsilon=epsilon, dtype=dtype, use_fast_variance=False)


def rms_norm(epsilon, dtype=None):
  """scale * x / sqrt(mean(x^2) + epsilon) over the last axis. https://arxiv.org/abs/1910.07467"""
  return nn.RMSNorm(epsilon=epsilon, dtype=dtype, use_fast_variance=False)


class LayerScale(nn.Module):
  """scale * x, with a trained scale per channel. https://arxiv.org/abs/2103.17239, section 2"""

  value: float  # at the start
  dtype: Any = None

  @nn.compact
  def __call__(self, x):
    """[..., dim] -> [..., dim]"""
    scale = self.param("scale", initial.constant(self.value), x.shape[-1:])
    return multiply(x.astype(canonicalize_dtype(x, scale, dtype=self.dtype)), scale)
