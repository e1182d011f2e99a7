"""Mixtures of experts: a router sends each token to a few of many feed-forward networks."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import canonicalize_dtype

from zoo.layers import initial
from zoo.layers.dense import Dense
from zoo.layers.kernel_products import dot, ragged_dot
from zoo.layers.mixed_precision import add_rows, look_up, multiply
from zoo.layers.mlp import activation


def all_experts(x, chosen, weights, gate, up, down, activate):
  """Dense dispatch: every expert reads every token, those not chosen get weight 0. Any mesh can shard the products.

  Args:
    x: [batch, length, dim]
    chosen: int32 [batch, length, top_k], numbers of experts.
    weights: float32 [batch, length, top_k], of the experts' outputs.
    gate, up: [experts, dim, mlp_dim]; down: [experts, mlp_dim, dim]; in x's dtype or, as parameters are, in float32.
    activate: activation of the gate.

  Returns:
    [batch, length, dim]
  """
  share = (jax.nn.one_hot(chosen, len(gate)) * weights[..., None]).sum(-2)
  h, up = (dot(x, kernel, ((2,), (1,))) for kernel in (gate, up))  # [batch, length, experts, mlp_dim]
  return dot(multiply(activate(h) * up, share[..., None]), down, ((2, 3), (0, 1)))


def chosen_experts(x, chosen, weights, gate, up, down, activate):
  """Sparse dispatch: tokens are sorted by expert, and an expert reads only its own. Arguments as `all_experts`."""
  batch, length, top_k = chosen.shape
  expert = chosen.reshape(-1)
  order = jnp.argsort(expert)
  token = order // top_k
  sizes_of_groups = jnp.bincount(expert, length=len(gate)).astype(jnp.int32)
  rows = look_up(x.reshape(batch * length, -1), token)
  h = activate(ragged_dot(rows, gate, sizes_of_groups)) * ragged_dot(rows, up, sizes_of_groups)
  y = multiply(ragged_dot(h, down, sizes_of_groups), weights.reshape(-1)[order][:, None])
  return add_rows(y, token, batch * length).reshape(x.shape)


DISPATCH = {"all": all_experts, "chosen": chosen_experts}


class Mixture(nn.Module):
  """Mixture of experts: the outputs of the top_k experts, weighted by the router's probabilities.

  Args:
    num_experts: number of gated networks of width mlp_dim; top_k of them read a token.
    normalize: whether the probabilities of the chosen are divided by their sum.
    dispatch: `all_experts` or a function like it.
    jitter: in training the input is multiplied by uniform noise from 1 - jitter to 1 + jitter.

  With the collection "router" mutable in `apply`, `chosen` (0 or 1) and `probability` are sown there, both float32
  [batch, length, num_experts]: see `zoo.objectives.routing`.
  """

  num_experts: int
  top_k: int
  mlp_dim: int
  activation: str | Callable = "silu"
  normalize: bool = True
  dispatch: Callable = all_experts
  jitter: float = 0.0
  dtype: Any = None
  kernel_init: Callable = initial.lecun_normal()
  down_init: Callable = initial.lecun_normal()

  @nn.compact
  def __call__(self, x, *, train=False):
    """[batch, length, dim] -> [batch, length, dim]"""
    if train and self.jitter:
      x *= jax.random.uniform(self.make_rng("dropout"), x.shape, x.dtype, 1 - self.jitter, 1 + self.jitter)
    route = Dense(self.num_experts, use_bias=False, dtype=self.dtype, kernel_init=self.kernel_init, name="router")
    probability = jax.nn.softmax(route(x).astype(jnp.float32))
    weights, chosen = jax.lax.top_k(probability, self.top_k)
    if self.normalize:
      weights /= weights.sum(-1, keepdims=True)
    self.sow("router", "chosen", jax.nn.one_hot(chosen, self.num_experts).sum(-2))
    self.sow("router", "probability", probability)
    kernels = Experts(self.num_experts, self.mlp_dim, self.kernel_init, self.down_init, name="experts")(x.shape[-1])
    x = x.astype(canonicalize_dtype(x, *kernels, dtype=self.dtype))
    return self.dispatch(x, chosen, weights, *kernels, activation(self.activation))


class Experts(nn.Module):
  """Stacked kernels of the experts' gated networks."""

  num_experts: int
  mlp_dim: int
  kernel_init: Callable
  down_init: Callable

  @nn.compact
  def __call__(self, dim):
    """-> gate, up [num_experts, dim, mlp_dim], down [num_experts, mlp_dim, dim]"""
    up_shape, down_shape = (self.num_experts, dim, self.mlp_dim), (self.num_experts, self.mlp_dim, dim)
    inits = {
      "gate": (self.kernel_init, up_shape),
      "up": (self.kernel_init, up_shape),
      "down": (self.down_init, down_shape),
    }
    return [Kernel(*init, name=name)() for name, init in inits.items()]


class Kernel(nn.Module):
  """Stacked kernels of one projection."""

  init_values: Callable
  shape: tuple[int, ...]

  @nn.compact
  def __call__(self):
    return self.param("kernel", self.init_values, self.shape)
