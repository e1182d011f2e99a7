"""Expert parallelism: experts of a mixture on different devices, and the tokens exchanged between them.

`zoo.layers.experts.chosen_experts` sorts tokens by expert, which XLA cannot shard: every device would do all of it.
"""

from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from zoo.layers.experts import chosen_experts
from zoo.layers.kernel_products import ragged_dot
from zoo.layers.mixed_precision import add_rows, look_up, multiply
from zoo.layers.parts import replace_modules
from zoo.sharding.meshes import row_axes


def on_mesh(model: Any, mesh: Mesh) -> Any:
  """A copy of the model with expert parallelism over mesh axis "expert" in all mixtures with dispatch "chosen"."""
  if "expert" not in mesh.shape:
    return model
  send = over(mesh)
  chooses = lambda part: getattr(part, "dispatch", None) is chosen_experts
  return replace_modules(model, lambda part, path: part.clone(dispatch=send) if chooses(part) else part)


def over(mesh: Mesh) -> Callable:
  """`chosen_experts` sharded over a mesh: the same signature and results for global arrays.

  Every device gathers the tokens of its row of devices along "expert", computes the outputs of its own experts, and
  sends the sums back: https://arxiv.org/abs/2006.16668, section 3, with all-gather and reduce-scatter instead of
  all-to-all, so that no token is dropped if many choose one expert. Axis "model" shards mlp_dim.
  """

  def dispatch(x, chosen, weights, gate, up, down, activate):
    def whole_or(axis: str, size: int) -> str | None:
      return axis if axis in mesh.shape and size % mesh.shape[axis] == 0 else None

    length, hidden = whole_or("sequence", x.shape[1]), whole_or("model", gate.shape[-1])
    tokens = P(row_axes(mesh.axis_names), length, None)
    kernels = P("expert", None, hidden), P("expert", None, hidden), P("expert", hidden, None)

    def local(x, chosen, weights, casts, gate, up, down):
      x, chosen, weights = (jax.lax.all_gather(array, "expert", axis=0, tiled=True) for array in (x, chosen, weights))
      # Operands of a product must vary over the same axes; gradients are then summed over the added ones.
      axes = {axis for axis in (*row_axes(mesh.axis_names), length) if axis not in (None, "expert")}
      casts, (gate, up, down) = varying((casts, (gate, up, down)), axes)
      x = varying(x, () if hidden is None else (hidden,))
      first = jax.lax.axis_index("expert") * len(gate)
      y = own_experts(x, chosen, weights, gate, up, down, activate, first=first, casts=casts)
      y = jax.lax.psum_scatter(y, "expert", scatter_dimension=0, tiled=True)
      return y if hidden is None else jax.lax.psum(y, hidden)

    # Cast outside, kernels are sent to their experts' devices in x's dtype; their gradients are summed in their own.
    casts = tuple(kernel.astype(x.dtype) for kernel in (gate, up, down))
    specs = (tokens, tokens, tokens, kernels, *kernels)
    return jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=tokens)(x, chosen, weights, casts, gate, up, down)

  return dispatch


def varying(arrays: Any, axes: Collection[str]) -> Any:
  """Marks replicated arrays as varying over these mesh axes, for shard_map's types."""
  if not axes:
    return arrays
  if hasattr(jax.lax, "pcast"):
    return jax.lax.pcast(arrays, tuple(axes), to="varying")
  return jax.lax.pvary(arrays, tuple(axes))  # noqa: B009 (newer JAX has none)


def own_experts(x, chosen, weights, gate, up, down, activate, *, first, casts=(None, None, None)):
  """Outputs of the experts `first`, `first` + 1, ... for the tokens that chose them; other arguments as `all_experts`.

  casts: the three kernels in x's dtype, if already computed.

  Returns:
    [batch, length, dim], 0 for tokens that chose other experts.
  """
  batch, length, top_k = chosen.shape
  expert = chosen.reshape(-1) - first
  mine = (expert >= 0) & (expert < len(gate))
  expert = jnp.where(mine, expert, len(gate))  # Tokens of other experts come last, in no group.
  order = jnp.argsort(expert)
  token, mine = order // top_k, mine[order]
  sizes = (expert[None] == jnp.arange(len(gate))[:, None]).sum(1, dtype=jnp.int32)
  each = x.reshape(batch * length, -1)
  rows = jnp.where(mine[:, None], look_up(each, token), 0)
  h = activate(ragged_dot(rows, gate, sizes, cast=casts[0])) * ragged_dot(rows, up, sizes, cast=casts[1])
  y = multiply(ragged_dot(h, down, sizes, cast=casts[2]), weights.reshape(-1)[order][:, None])
  # Rows after the last group belong to no expert, and their values are undefined.
  return add_rows(jnp.where(mine[:, None], y, 0), token, batch * length).reshape(x.shape)
