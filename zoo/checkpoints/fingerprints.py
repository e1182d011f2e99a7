"""Array fingerprints: checksums that change with any bit of an array and do not depend on its sharding.

Every 32-bit word (smaller dtypes are widened) is mixed with its index by a bijection (the finaliser of MurmurHash3,
https://github.com/aappleby/smhasher), and the results are summed modulo 2**32. So one changed word is always detected,
and several are missed once in four billion times. Integer sums do not depend on their order: every device
sums its own shards, with no copy to a host.
"""

from collections import defaultdict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from zoo.sharding import mesh_of
from zoo.tree import path_name


def fingerprints(tree: Any) -> dict[str, int]:
  """Path -> fingerprint (uint32), for JAX arrays of any dtype (PRNG keys too), NumPy arrays and Python numbers."""
  sums_by_path, groups = {}, defaultdict(list)
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    if isinstance(leaf, jax.Array):
      groups[frozenset(leaf.sharding.device_set)].append((path_name(path), leaf))
    else:
      sums_by_path[path_name(path)] = int(_sum(np, np.asarray(leaf)))
  for group in groups.values():
    names, arrays = zip(*group, strict=True)
    # One vector, replicated on every host.
    mesh = mesh_of(arrays)
    replicated = None if mesh is None else NamedSharding(mesh, PartitionSpec())
    sums = jax.jit(_sums, out_shardings=replicated)(arrays)
    sums_by_path |= {name: int(value) for name, value in zip(names, np.asarray(sums), strict=True)}
  return sums_by_path


def _sums(arrays: tuple[jax.Array, ...]) -> jax.Array:
  return jnp.stack([_sum_on_device(x) for x in arrays])


@jax.jit  # Traced once for all arrays of a shape, of which parameters, moments and averages have the same.
def _sum_on_device(array: jax.Array) -> jax.Array:
  return _sum(jnp, array)


def _sum(xp: Any, array: Any) -> Any:
  words = _words(array) if xp is np else _words_on_device(array)
  index = xp.zeros([1] * words.ndim, np.uint32)
  for axis, size in enumerate(words.shape):  # Row-major, modulo 2**32. No reshape: that would move shards.
    along = xp.arange(size, dtype=np.uint32).reshape([-1 if i == axis else 1 for i in range(words.ndim)])
    index = index * np.uint32(size & 0xFFFFFFFF) + along
  return xp.sum(_mix(words + _mix(index)), dtype=np.uint32)


def _words(array: np.ndarray) -> np.ndarray:
  size, flat = min(array.dtype.itemsize, 4), np.ascontiguousarray(array).reshape(-1)
  return flat.view(f"u{size}").astype(np.uint32)


def _words_on_device(array: jax.Array) -> jax.Array:
  if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
    array = jax.random.key_data(array)
  if jnp.iscomplexobj(array):
    array = jnp.stack([array.real, array.imag], -1)
  if array.dtype == jnp.bool_:
    return array.astype(jnp.uint32)
  bits = jnp.iinfo(array.dtype).bits if jnp.issubdtype(array.dtype, jnp.integer) else jnp.finfo(array.dtype).bits
  return jax.lax.bitcast_convert_type(array, f"uint{min(bits, 32)}").astype(jnp.uint32)


def _mix(x: Any) -> Any:
  for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
    x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
  return x ^ (x >> np.uint32(16))
