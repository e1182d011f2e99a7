"""Matrix products ordered to be fast on CPUs when there are few rows, as in decoding.

XLA's routine repacks the second operand for each product. In rows @ kernel that is the kernel, nearly all there is to
read. The transposed kernel times the rows packs the rows instead: 8 rows of a GPT-2 take half the time. So the
kernels are transposed once, before the loop: `outputs_first`. The model gets them transposed back, `as_built`, and
multiplies by `kernel_first`, which transposes them once more; XLA cancels the two.
"""

import math

import jax

from zoo.layers.parts import replace_modules

FEW = 64  # Rows. With more of them packing the kernel is cheap, compared with transposing the product.
TURNED = "kernel_outputs_first"


def kernel_first(x, kernel, dimension_numbers, precision=None, preferred_element_type=None):
  """As `jax.lax.dot_general` without batch dimensions: x [..., inputs], kernel [inputs, outputs] -> [..., outputs]

  Inputs and outputs may have several dimensions. With many rows the product has x first, as they have it.
  """
  (of_x, of_kernel), _ = dimension_numbers
  rows, inputs = x.shape[: x.ndim - len(of_x)], len(of_kernel)
  options = {"precision": precision, "preferred_element_type": preferred_element_type}
  if tuple(of_x) != tuple(range(len(rows), x.ndim)) or min(of_kernel) != 0:
    return jax.lax.dot_general(x, kernel, dimension_numbers, **options)
  outputs, width = kernel.shape[inputs:], math.prod(kernel.shape[:inputs])
  kernel = kernel.transpose(*range(inputs, kernel.ndim), *range(inputs)).reshape(-1, width)
  x = x.reshape(*rows, width)
  if are_few(rows):
    return table_first(x, kernel, **options).reshape(*rows, *outputs)
  # The two turns cancel here too; of a kernel with several dimensions XLA would make a copy.
  return jax.lax.dot_general(x, kernel, (((x.ndim - 1,), (1,)), ((), ())), **options).reshape(*rows, *outputs)


def are_few(sizes):
  """Whether rows of these sizes are few; of a symbolic size (`jax.export`) nobody knows, and they count as many."""
  return all(isinstance(size, int) for size in sizes) and math.prod(sizes) <= FEW


def table_first(x, table, **options):
  """x @ table.T, computed as (table @ x.T).T: [..., inputs], [outputs, inputs] -> [..., outputs]"""
  rows = x.reshape(-1, x.shape[-1])
  y = jax.lax.dot_general(table, rows, (((1,), (1,)), ((), ())), **options)
  # Without a barrier XLA swaps the operands to save the transposition.
  return jax.lax.optimization_barrier(y).T.reshape(*x.shape[:-1], table.shape[0])


def with_products(module, dot_general):
  """A copy of the module with `dot_general` in every part that has such a field."""
  chosen = lambda part: part.clone(dot_general=dot_general) if hasattr(part, "dot_general") else part
  return replace_modules(module, lambda part, path: chosen(part))


def outputs_first(params, parent=""):
  """Transposes dense kernels to `kernel_outputs_first`, [inputs, outputs] -> [outputs, inputs]; other arrays stay."""
  if not isinstance(params, dict):
    return params
  order = _turn(params.get("kernel"), parent)
  turned = {name: outputs_first(value, name) for name, value in params.items() if name != "kernel" or order is None}
  return turned if order is None else {**turned, TURNED: params["kernel"].transpose(order)}


def as_built(params, parent=""):
  """Inverse of `outputs_first`; a tree without transposed kernels is returned unchanged."""
  if not isinstance(params, dict):
    return params
  back = {name: as_built(value, name) for name, value in params.items() if name != TURNED}
  if TURNED not in params:
    return back
  kernel = params[TURNED]
  outputs = kernel.ndim - _inputs(parent, kernel.ndim)
  return {**back, "kernel": kernel.transpose(*range(outputs, kernel.ndim), *range(outputs))}


def _inputs(parent, dimensions):
  """Number of input dimensions of a dense kernel: two (heads, head_dim) of an attention's output, else one."""
  return 2 if parent == "out" and dimensions == 3 else 1


def _turn(kernel, parent):
  """Permutation to [outputs, inputs]; None if not a dense kernel."""
  dense = getattr(kernel, "ndim", 0) == 2 or parent in ("query", "key", "value", "out")
  if kernel is None or not dense or kernel.ndim not in (2, 3):
    return None
  inputs = _inputs(parent, kernel.ndim)
  return (*range(inputs, kernel.ndim), *range(inputs))
