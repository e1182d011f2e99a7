"""Recurrent layers: Elman's, the LSTM and the GRU, over padded and packed rows, in either direction.

The products with inputs and with the state both have biases, as in cuDNN and torch.nn, so that weights are compatible.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import canonicalize_dtype

from zoo.layers import initial
from zoo.layers.dense import DenseGeneral
from zoo.layers.recurrence import Cell, How, recur
from zoo.layers.sequence import SequenceInfo, segments_of


class Recurrent(nn.Module):
  """A recurrent layer in one direction.

  With the collection "cache" mutable in `apply` it continues from the cached state, and stores its last one.

  Args:
    cell: computes the next state.
    hidden_dim: width of the state.
    reverse: runs from the last token to the first; a cache is then refused.
    dtype: computation dtype of products; states are float32.
    kernel_init, recurrent_init: initializers of kernels for inputs, and of each gate's kernel for the state.

  >>> from zoo.layers.recurrence import cell
  >>> layer = Recurrent(cell("lstm"), 5)
  >>> x = jnp.ones((2, 7, 3))
  >>> params = layer.init(jax.random.key(0), x)["params"]
  >>> {name: part["kernel"].shape for name, part in params.items()}  # [inputs, gates, hidden_dim]
  {'from_hidden': (5, 4, 5), 'from_input': (3, 4, 5)}
  >>> layer.apply({"params": params}, x).shape
  (2, 7, 5)
  """

  cell: Cell
  hidden_dim: int
  reverse: bool = False
  dtype: Any = None
  kernel_init: Callable = initial.xavier_uniform()
  recurrent_init: Callable = initial.orthogonal()

  @nn.compact
  def __call__(self, x, *, info=SequenceInfo()):
    """Hidden states: [batch, length, dim] -> [batch, length, hidden_dim]

    Args:
      x: [batch, length, dim]
      info: `SequenceInfo` of x. Tokens that are not valid do not change the state, and their outputs are 0; each
        segment of a packed row begins with a state of zeros.
    """
    caching = self.is_mutable_collection("cache") and not self.is_initializing()
    if caching and (self.reverse or info.segment_ids is not None):
      raise ValueError(
        "A backward layer cannot resume from a cache." if self.reverse else
        "Packed sequences cannot be cached. Give each segment its own row, no segment_ids."
      )  # fmt: skip
    dtype = canonicalize_dtype(x, dtype=self.dtype)
    features = (self.cell.gates, self.hidden_dim)
    kernel_init, recurrent_init = self._by_gate(self.kernel_init), self._by_gate(self.recurrent_init)
    dense = DenseGeneral(features, dtype=dtype, kernel_init=kernel_init, bias_init=self._bias_init(), name="from_input")
    weights = Weights(features, recurrent_init, name="from_hidden")(self.hidden_dim)
    state = dict(self.variables.get("cache", {})) if caching else {}
    state = state or {name: jnp.zeros((x.shape[0], self.hidden_dim), jnp.float32) for name in self.cell.names}
    begins = self._begins(info, x.shape[:2], caching)
    how = How(self.cell, self.reverse)
    state, hidden = recur(how, weights, dense(x), state, begins, info.valid)
    if caching:
      for name, array in state.items():
        self.put_variable("cache", name, array)
    return hidden if info.valid is None else jnp.where(info.valid[..., None], hidden, 0)

  def _begins(self, info, shape, caching):
    """bool [batch, length]: the tokens, in this direction, before which the state is cleared; None: there are none."""
    if info.segment_ids is not None:
      segments = info.segment_ids
    elif info.positions is None or caching:  # Positions of one call with a cache increase.
      return None
    else:
      segments = segments_of(info.positions, info.valid)
    differs = segments[:, 1:] != segments[:, :-1]
    return jnp.broadcast_to(jnp.pad(differs, ((0, 0), (0, 1) if self.reverse else (1, 0))), shape)

  def _by_gate(self, init):
    """Initializer that draws each gate's kernel separately: [inputs, gates * hidden_dim]"""

    def draw(rng, shape, dtype):
      gates = [init(key, (shape[0], self.hidden_dim), dtype) for key in jax.random.split(rng, self.cell.gates)]
      return jnp.stack(gates, axis=1).reshape(shape)

    return draw

  def _bias_init(self):
    """Bias initializer: zeros, but 1 for a forget gate. https://proceedings.mlr.press/v37/jozefowicz15"""
    if self.cell.forget is None:
      return initial.zeros
    return lambda rng, shape, dtype: (
      jnp.zeros((self.cell.gates, self.hidden_dim), dtype).at[self.cell.forget].set(1).reshape(shape)
    )


class Weights(nn.Module):
  """The kernel and the bias of a product that is computed elsewhere."""

  features: tuple[int, ...]
  kernel_init: Callable

  @nn.compact
  def __call__(self, inputs):
    """-> {"kernel": [inputs, *features], "bias": [*features]}"""
    init = lambda rng, shape, dtype: self.kernel_init(rng, (shape[0], math.prod(shape[1:])), dtype).reshape(shape)
    kernel = self.param("kernel", init, (inputs, *self.features), jnp.float32)
    return {"kernel": kernel, "bias": self.param("bias", initial.zeros, self.features, jnp.float32)}


class RecurrentBlock(nn.Module):
  """dropout(layer(x)), or with two directions dropout([layer(x), the same layer in reverse(x)]).

  Args:
    layer: a `Recurrent`, copied to `forward` and `backward`.
    bidirectional: whether there is a second one in reverse.
    dropout: rate of dropout on the output.
  """

  layer: nn.Module
  bidirectional: bool = False
  dropout: float = 0.0

  @nn.compact
  def __call__(self, x, *, info=SequenceInfo(), train=False):
    """[batch, length, dim] -> [batch, length, hidden_dim], or twice that width with two directions."""
    y = self.layer.copy(name="forward")(x, info=info)
    if self.bidirectional:
      y = jnp.concatenate([y, self.layer.copy(name="backward", reverse=True)(x, info=info)], axis=-1)
    return nn.Dropout(self.dropout)(y, deterministic=not train)
