"""Places a file's arrays into sharded parameters: sliced on the host, transposed and cast on the devices.

Transposing dominates the loading time of a published model; on a host it runs at a tenth of the memory bandwidth.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from zoo import sharding
from zoo.build import merged
from zoo.convert.rules.layouts import SAME, Layout
from zoo.errors import UserError
from zoo.layers.sizes import compute_dtype
from zoo.layers.stack import scanned_path
from zoo.tree import flatten, unflatten, variables

SMALL = 1 << 20  # bytes; below it compiling a program for the shape takes longer than transposing on the host.


def parameter_dtype(dtype: Any) -> np.dtype:
  """The dtype of parameters: a floating one, by name or object, float32 if None; UserError for any other.

  >>> parameter_dtype("bfloat16"), parameter_dtype(None)
  (dtype(bfloat16), dtype('float32'))
  """
  try:
    kind = compute_dtype(dtype) or np.dtype(np.float32)
  except ValueError as error:
    raise UserError(str(error)) from None
  if kind == np.float64 and not jax.config.read("jax_enable_x64"):
    raise UserError("dtype is float64, which JAX has only with jax_enable_x64. Set it, or choose float32.")
  return kind


class ShardedParams:
  """Parameters filled one array at a time; layers of a scan are written into their stacked leaf.

  Args:
    shapes: `jax.ShapeDtypeStruct`s of the weights, from `zoo.build.weights_of`.
    dtype: of the parameters; other collections have that of `shapes`.
    mesh, strategy: their sharding; the first device without a mesh.
  """

  def __init__(self, shapes: Any, dtype: np.dtype, mesh: Mesh | None, strategy: str | list):
    self.shapes = flatten(merged(shapes))
    params = flatten(variables(shapes)["params"])
    self.dtypes = {name: dtype if name in params else np.dtype(x.dtype) for name, x in self.shapes.items()}
    if mesh is None:
      self.places = dict.fromkeys(self.shapes, SingleDeviceSharding(jax.devices()[0]))
    else:
      self.places = flatten(merged(sharding.shardings(shapes, strategy, mesh)))
    self.leaves: dict[str, jax.Array] = {}
    self.last: jax.Array | None = None

  def put(self, path: str, array: np.ndarray, layout: Layout = SAME) -> None:
    """Sets the parameter at `path`, which names one layer of a scan, to `array`.

    array: of any shape and dtype that `layout.read` turns into the parameter's shape; it is cast to its dtype.
    """
    target, layer = scanned_path(path, self.shapes)
    target_sharding, shape, dtype = self.places[target], self.shapes[target].shape, self.dtypes[target]
    part, part_shape = (target_sharding, shape) if layer is None else (_of_layer(target_sharding), shape[1:])
    lies_as_is = _raw_sharding(part, layout, len(part_shape))
    # float64 is cast on the host: devices have none, unless jax_enable_x64 is set.
    if lies_as_is is None or array.nbytes < SMALL or array.dtype.itemsize > 4:
      array, layout, lies_as_is = np.asarray(layout.read(array, part_shape), dtype, order="C"), SAME, part
    raw = jax.make_array_from_callback(array.shape, lies_as_is, lambda index: array[index])
    if layer is None:
      as_stored = layout is SAME and array.dtype == dtype
      leaf = raw if as_stored else _layout_program(layout, part_shape, dtype, target_sharding)(raw)
    else:
      if target not in self.leaves:
        self.leaves[target] = jax.jit(jnp.zeros, static_argnums=(0, 1), out_shardings=target_sharding)(shape, dtype)
      leaf = _write(layout, part_shape, target_sharding)(self.leaves[target], raw, layer)
    # One write may be in flight while the next array is read; more would each hold their array in memory.
    if self.last is not None and not self.last.is_deleted():
      self.last.block_until_ready()
    self.leaves[target] = self.last = leaf

  def tree(self) -> Any:
    """The tree of all arrays, once all have been put, with names as in `zoo.build.merged`."""
    return unflatten({name: self.leaves[name] for name in self.shapes})


def _of_layer(target_sharding: Any) -> Any:
  return (
    NamedSharding(target_sharding.mesh, PartitionSpec(*target_sharding.spec[1:]))
    if isinstance(target_sharding, NamedSharding)
    else target_sharding
  )


def _raw_sharding(target_sharding: Any, layout: Layout, ndim: int) -> Any:
  """The sharding of an array in the file's layout that makes transposing it local; None if there is none."""
  if not isinstance(target_sharding, NamedSharding):
    return target_sharding
  spec = layout.spec((*target_sharding.spec, *(None,) * (ndim - len(target_sharding.spec))))
  return None if spec is None else NamedSharding(target_sharding.mesh, PartitionSpec(*spec))


@functools.cache
def _layout_program(layout: Layout, shape: tuple[int, ...], dtype: np.dtype, target_sharding: Any):
  return jax.jit(lambda raw: layout.read(raw, shape).astype(dtype), out_shardings=target_sharding)


@functools.cache
def _write(layout: Layout, shape: tuple[int, ...], target_sharding: Any):
  def write(leaf, raw, layer):
    return jax.lax.dynamic_update_index_in_dim(leaf, layout.read(raw, shape).astype(leaf.dtype), layer, 0)

  return jax.jit(write, donate_argnums=0, out_shardings=target_sharding)
