"""With activations in bfloat16 no family sums gradients of its parameters in bfloat16: seen in its program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.models.test_families import FAMILIES, TINY, chances, inputs
from tests.narrow_sums import narrow_origins, narrow_sums
from tests.tiny import OBJECTIVES, tiny_batch, tiny_model, tiny_objective
from zoo.kernels import with_kernels
from zoo.kernels.experts import on_mesh
from zoo.objectives.causal_lm import causal_lm
from zoo.objectives.objective import value_and_grad
from zoo.sharding import batch_sharding, make_mesh
from zoo.tree import path_names


def program(model, *inputs, **options):
  """Parameters' names, and the program that gives their gradients."""
  params = jax.eval_shape(model.init, jax.random.key(0), *inputs)["params"]

  def loss(params, rng):
    out = model.apply({"params": params}, *inputs, **options, rngs={"dropout": rng})
    return sum((x.astype(jnp.float32) ** 2).sum() for x in jax.tree.leaves(out))

  return path_names(params), jax.make_jaxpr(jax.grad(loss))(params, jax.random.key(1)).jaxpr


def check(names, program):
  """Asserts that every gradient leaves the sum that makes it in float32."""
  assert sorted(narrow_sums(program)) == [], "sum in float32: see zoo/layers/mixed_precision.py"
  assert len(program.outvars) == len(names)
  coarse = {name: narrow_origins(program, [x]) for name, x in zip(names, program.outvars, strict=True)}
  assert {name: origins for name, origins in coarse.items() if origins} == {}


@FAMILIES
def test_parameters_get_gradients_that_are_summed_in_float32(family):
  plain = zoo.build(family, **TINY[family], dtype="bfloat16")
  check(*program(plain, *inputs(plain)))
  recomputed = {} if family == "reformer" else {"remat": "full"}  # Reversible layers recompute in any case.
  busy = zoo.build(family, **TINY[family], dtype="bfloat16", scan=True, **recomputed, **chances(family, 0.1))
  check(*program(busy, *inputs(busy), train=True))


CALLS = {
  "bert": ({"head": "mlm"}, {"segments": (2, 8), "predict": (2, 3)}),
  "dinov2": ({"mask_token": True}, {"masked": (2, 4)}),
  "mae": ({}, {"noise": (2, 4)}),
  "gpt": ({}, {"segment_ids": (2, 8), "predict": (2, 3)}),
  "mixtral": ({"dispatch": "chosen", "pad": 0}, {"segment_ids": (2, 8)}),
  "clip": ({"image_size": 8, "patch_size": 4, "stem_dims": [4]}, {}),
  "t5": ({"gated": True}, {"segment_ids": (2, 8), "decoder_segment_ids": (2, 6)}),
}


@pytest.mark.parametrize("family", CALLS)
def test_so_they_are_with_what_a_call_may_have_besides(family):
  sizes, shapes = CALLS[family]
  model = zoo.build(family, **{**TINY[family], **sizes}, dtype="bfloat16")
  rng = np.random.default_rng(0)
  options = {name: rng.integers(0, 2, shape) for name, shape in shapes.items()}
  if "noise" in options:
    options["noise"] = rng.random(shapes["noise"])
  check(*program(model, *inputs(model), **options))


@pytest.mark.parametrize("case", OBJECTIVES)
def test_objectives_and_accumulation_sum_in_float32(case):
  objective, batch = tiny_objective(case, dtype="bfloat16"), tiny_batch()
  check_objective(objective, batch, accumulate=2)


def test_chunks_of_logits_on_a_mesh_and_attention_in_a_ring_sum_in_float32():
  mesh = make_mesh({"data": 2, "sequence": 4})
  model = tiny_model("causal_lm", dtype="bfloat16", scan=True, depth=2, max_length=9)
  model, _ = with_kernels(model, "ring", mesh)
  objective = causal_lm(model, chunk=16, by_row=batch_sharding(mesh))
  check_objective(objective, {"tokens": np.zeros((4, 9), np.int32)})


def test_experts_on_devices_of_their_own_sum_in_float32():
  mesh = make_mesh({"data": 2, "expert": 4})
  sizes = {**TINY["mixtral"], "num_experts": 4, "dispatch": "chosen", "max_length": 9}
  model = zoo.build("mixtral", **sizes, dtype="bfloat16")
  plain, apart = (causal_lm(one, balance=0.1) for one in (model, on_mesh(model, mesh)))
  assert plain != apart
  check_objective(apart._replace(init=plain.init), {"tokens": np.zeros((8, 9), np.int32)})


def check_objective(objective, batch, accumulate=1):
  key = jax.random.key(0)
  params = jax.eval_shape(objective.init, key, batch)
  grads = lambda params: value_and_grad(objective, accumulate)(params, batch, key)[1]
  check(path_names(params), jax.make_jaxpr(grads)(params).jaxpr)


def test_the_check_sees_sums_in_bfloat16():
  x, index = jnp.ones((8, 3), "bfloat16"), jnp.zeros(8, jnp.int32)
  coarse = {
    "reduce_sum": lambda bias: x + bias.astype("bfloat16")[None],
    "scatter-add": lambda table: table.astype("bfloat16")[index],
    "dot_general": lambda column: x @ column.astype("bfloat16").reshape(3, 1),
  }
  for name, function in coarse.items():
    for wrapped in (function, jax.checkpoint(function), jax.jit(function)):
      program = jax.make_jaxpr(jax.grad(lambda p, f=wrapped: f(p).sum(dtype=jnp.float32)))(jnp.ones(3)).jaxpr
      found = narrow_origins(program, program.outvars)
      assert any(one.startswith((name, name.replace("-", "_"))) for one in found), (name, found)
