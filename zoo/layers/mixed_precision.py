"""Mixed precision: float32 parameters, bfloat16 or float16 activations, and gradients summed in float32.

A parameter that many tokens share has a gradient that is a sum over them. Where the parameter is cast before it is
broadcast over the tokens, that sum has the activations' precision, and in bfloat16 256 + 1 is 256. Here the parameter
is cast first as usual, so that the forward pass is unchanged, but the derivative is that of
broadcasting first and casting afterwards: gradients are cast to float32 and then summed, over devices too.

Products with kernels: `zoo.layers.kernel_products`.
"""

import functools

import jax
import jax.numpy as jnp


def narrower(dtype, other):
  """Whether `dtype` has less precision than `other`.

  >>> narrower("bfloat16", "float32"), narrower("float32", "bfloat16")
  (True, False)
  """
  return jnp.promote_types(dtype, other) != dtype


def broadcast(parameter, shape, dtype):
  """`parameter.astype(dtype)` broadcast to `shape`; its gradient is summed in the parameter's own precision.

  >>> jax.grad(lambda bias: broadcast(bias, (4096, 2), "bfloat16").sum())(jnp.zeros(2))
  Array([4096., 4096.], dtype=float32)
  """
  return _broadcast(parameter, tuple(shape), jnp.dtype(dtype))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _broadcast(parameter, shape, dtype):
  return jnp.broadcast_to(parameter.astype(dtype), shape)


@_broadcast.defjvp
def _broadcast_jvp(shape, dtype, primals, tangents):
  return _broadcast(*primals, shape, dtype), jnp.broadcast_to(tangents[0], shape).astype(dtype)


def add(x, parameter):
  """x + parameter, in x's dtype; the parameter, broadcastable to x, has its gradient summed in its own precision.

  >>> jax.grad(lambda bias: add(jnp.ones((4096, 1), "bfloat16"), bias).sum())(jnp.zeros(1))
  Array([4096.], dtype=float32)
  """
  return x + _like(x, parameter)


def multiply(x, parameter):
  """x * parameter, with the gradient of `add`."""
  return x * _like(x, parameter)


def _like(x, parameter):
  if narrower(x.dtype, parameter.dtype):
    return broadcast(parameter, x.shape, x.dtype)
  return parameter.astype(x.dtype).reshape((1,) * (x.ndim - parameter.ndim) + parameter.shape)


def look_up(table, index, dtype=None):
  """`table.astype(dtype)[index]`, int32 [...] -> [..., dim]; a row's gradient is summed in float32 or better.

  dtype: of what is looked up; the table's if None. An index outside the table gives NaN.

  >>> table, index = jnp.zeros((3, 1)), jnp.full(4096, 2)
  >>> jax.grad(lambda table: look_up(table, index, "bfloat16").sum())(table)[:, 0]
  Array([   0.,    0., 4096.], dtype=float32)
  """
  return _look_up(table, index, table.dtype if dtype is None else jnp.dtype(dtype))


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _look_up(table, index, dtype):
  return jnp.take(table.astype(dtype), index, axis=0)


@_look_up.defjvp
def _look_up_jvp(dtype, primals, tangents):
  table, index = primals
  return _look_up(table, index, dtype), jnp.take(_wide(tangents[0]), index, axis=0).astype(dtype)


def add_rows(x, index, count):
  """Scatter-add of the rows of x into zeros [count, dim] at `index`, in float32: [rows, dim], int32 [rows]

  >>> add_rows(jnp.ones((4096, 1), "bfloat16"), jnp.full(4096, 1), 2)[:, 0]
  Array([0, 4096], dtype=bfloat16)
  """
  wide = _wide(x)
  return jnp.zeros((count, x.shape[1]), wide.dtype).at[index].add(wide).astype(x.dtype)


def _wide(x):
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


@jax.custom_jvp
def pick(x, index):
  """Gathers rows of each example at `index`: [batch, length, dim], int32 [batch, k] -> [batch, k, dim]

  The gradient of a row that was gathered several times is summed in float32.
  """
  # By vmap the batch stays a batch: a gather over (row, index) pairs would fetch the whole batch to every device.
  return jax.vmap(lambda rows, at: rows[at])(x, index)


@pick.defjvp
def _pick_jvp(primals, tangents):
  x, index = primals
  return pick(x, index), pick(_wide(tangents[0]), index).astype(x.dtype)
