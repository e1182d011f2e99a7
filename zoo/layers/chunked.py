"""Chunked feed-forward: a position-wise part is applied to a few positions at a time."""

import flax.linen as nn
import jax.numpy as jnp


class Chunked(nn.Module):
  """`part` over chunks of positions, so that its hidden values of one chunk only are in memory, in both passes.

  The backward pass computes a chunk's hidden values again. Parameters are those of `part`, under the same names.
  https://arxiv.org/abs/2001.04451, section 3

  Args:
    part: position-wise, called as `zoo.layers.mlp.MLP` is.
    chunk: number of positions; the last chunk may be shorter.
  """

  part: nn.Module
  chunk: int

  def setup(self):
    nn.share_scope(self, self.part)

  def __call__(self, x, *, train=False):
    """[batch, length, dim] -> [batch, length, dim]"""
    count = x.shape[1] // self.chunk
    if self.is_initializing() or count < 2:
      return self.part(x, train=train)
    body = nn.remat(lambda part, _, x: (None, part(x, train=train)), prevent_cse=False)
    over = nn.scan(
      body, variable_broadcast="params", split_rngs={"params": False, "dropout": True}, in_axes=1, out_axes=1
    )
    full = count * self.chunk
    chunks = x[:, :full].reshape(x.shape[0], count, self.chunk, x.shape[2])
    y = over(self.part, None, chunks)[1].reshape(x.shape[0], full, -1)
    return y if full == x.shape[1] else jnp.concatenate([y, self.part(x[:, full:], train=train)], axis=1)
