"""With activations in bfloat16 no family sums gradients of its parameters in bfloat16: seen in its program."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.models.test_families import FAMILIES, TINY, inputs
from tests.narrow_sums import narrow_origins, narrow_sums
from zoo.paths import path_names

MORE = {
  "mixtral": {"dispatch": "chosen"},
  "bert": {"head": "mlm"},
  "dinov2": {"mask_token": True},
  "clip": {"image_stem": [4]},
}


def program(model, *inputs, **options):
  """Parameters' names, and the program that gives their gradients."""
  params = jax.eval_shape(model.init, jax.random.key(0), *inputs)["params"]

  def loss(params, rng):
    out = model.apply({"params": params}, *inputs, **options, rngs={"dropout": rng})
    return sum((x.astype(jnp.float32) ** 2).sum() for x in jax.tree.leaves(out))

  return path_names(params), jax.make_jaxpr(jax.grad(loss))(params, jax.random.key(1)).jaxpr


def check(names, program):
  """Asserts that every gradient leaves the sum that makes it in float32."""
  assert sorted(narrow_sums(program)) == []
  assert len(program.outvars) == len(names)
  coarse = {name: narrow_origins(program, [x]) for name, x in zip(names, program.outvars, strict=True)}
  assert {name: origins for name, origins in coarse.items() if origins} == {}


@FAMILIES
def test_parameters_get_gradients_that_are_summed_in_float32(family):
  plain = zoo.build(family, **TINY[family], dtype="bfloat16")
  check(*program(plain, *inputs(plain)))
  busy = zoo.build(family, **TINY[family], dtype="bfloat16", scan=True, remat="full", dropout=0.1, drop_path=0.1)
  check(*program(busy, *inputs(busy), train=True))


