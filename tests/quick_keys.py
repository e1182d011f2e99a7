"""Random keys whose numbers take a few operations: what dropout costs is the compilation of JAX's own generator.

For tests in which it only matters that numbers come from the key and differ, not how they are distributed.
"""

import math

import jax
import jax.numpy as jnp
from jax.extend.random import define_prng_impl


def _mixed(x):
  """Bits that hang on all bits of x, uint32: two rounds of multiplications and shifts."""
  for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
    x = (x ^ (x >> shift)) * jnp.uint32(factor)
  return x ^ (x >> 16)


def _numbered(key, count):
  return _mixed(jnp.arange(count, dtype=jnp.uint32) + _mixed(key[0]))


def _bits(key, width, shape):
  return _numbered(key, math.prod(shape)).reshape(shape).astype(f"uint{width}")


QUICK = define_prng_impl(
  key_shape=(1,),
  seed=lambda seed: jnp.full((1,), seed, jnp.uint32),
  split=lambda key, shape: _numbered(key, math.prod(shape)).reshape(*shape, 1),
  random_bits=_bits,
  fold_in=lambda key, data: _mixed(key * jnp.uint32(31) + jnp.asarray(data, jnp.uint32)),
  name="quick",
  tag="quick",
)


def quick_key(seed):
  """`jax.random.key` of these numbers."""
  return jax.random.key(seed, impl=QUICK)
