"""Random parameters for tests: constant initial values would hide mistakes. Drawn by NumPy: nothing compiles."""

import functools

import jax
import jax.numpy as jnp
import numpy as np


@functools.lru_cache(maxsize=64)
def _shapes(module, tree, inputs):
  """Shapes of the parameters, cached: many tests need the same, and tracing is slow."""
  inputs = jax.tree.unflatten(tree, [jax.ShapeDtypeStruct(*leaf) for leaf in inputs])
  return jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]


def filled(module, *inputs, seed=0):
  """Numbers in the shapes of the parameters that `module` would start with; a scale is near 1, the rest near 0."""
  leaves, tree = jax.tree.flatten(inputs)
  return numbers(_shapes(module, tree, tuple((leaf.shape, leaf.dtype) for leaf in map(jnp.asarray, leaves))), seed)


def numbers(shapes, seed=0):
  """Numbers in these shapes; a scale is near 1, the rest near 0. NumPy draws: initial values take long to compile."""
  rng = np.random.default_rng(seed)

  def draw(path, leaf):
    center = 1.0 if path[-1].key == "scale" else 0.0
    return jax.device_put((center + 0.4 * rng.standard_normal(leaf.shape)).astype(leaf.dtype))  # Compiles nothing.

  return jax.tree_util.tree_map_with_path(draw, shapes)
