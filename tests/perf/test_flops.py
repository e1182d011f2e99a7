import functools
import types

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from zoo.build import build
from zoo.perf import flops
from zoo.perf.flops import count, training_flops


def array(*shape):
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def product(x, w):
  return x @ w


X, W, SQUARE = array(2, 3), array(3, 5), array(3, 3)
ONCE, ONCE_SQUARE = 2 * 2 * 3 * 5, 2 * 2 * 3 * 3


@jax.custom_vjp
def by_hand(x, w):
  return x @ w


by_hand.defvjp(lambda x, w: (x @ w, (x, w)), lambda kept, d: (d @ kept[1].T, kept[0].T @ d))


@jax.custom_jvp
def forward_by_hand(x, w):
  return x @ w


forward_by_hand.defjvp(lambda primals, tangents: (primals[0] @ primals[1], tangents[0] @ primals[1]))


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.checkpoint, lambda _: by_hand, lambda _: forward_by_hand])
def test_a_matrix_product_is_two_flops_for_each_pair(wrap):
  assert count(wrap(product), X, W) == ONCE


def test_a_batch_of_products_counts_each():
  assert count(jax.vmap(product, (None, 0)), X, array(7, 3, 5)) == 7 * ONCE
  assert count(lambda q, k: jnp.einsum("bqhd,bkhd->bhqk", q, k), array(2, 5, 3, 7), array(2, 11, 3, 7)) == (
    2 * (2 * 3 * 5 * 11) * 7
  )


def test_a_scan_counts_as_often_as_it_runs():
  def scanned(x, w):
    return jax.lax.scan(lambda x, _: (x @ w, None), x, length=11)[0]

  assert count(scanned, X, SQUARE) == 11 * ONCE_SQUARE


def test_a_choice_counts_as_its_dearest_branch():
  def chosen(x, w):
    return jax.lax.cond(x[0, 0] > 0, lambda: x @ w @ w, lambda: x @ w)

  assert count(chosen, X, SQUARE) == 2 * ONCE_SQUARE


def test_a_loop_of_unknown_length_counts_once():
  def loop(x, w):
    return jax.lax.while_loop(lambda x: x.sum() < 3, lambda x: x @ w, x)

  assert count(loop, X, SQUARE) == ONCE_SQUARE


def test_a_sharded_program_counts_on_every_device_it_is_mapped_over():
  mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
  over = functools.partial(jax.shard_map, mesh=mesh, in_specs=(P("data"), P()), out_specs=P("data"))
  assert count(over(product, axis_names={"data"}), X, W) == ONCE
  assert count(over(product), X, W) == 4 * ONCE  # The four devices along "model" all do the same.


@pytest.mark.parametrize("wrap", [lambda f: f, lambda _: by_hand])
def test_a_gradient_costs_three_forward_passes(wrap):
  forward = wrap(product)
  gradient = jax.grad(lambda x, w: forward(x, w).sum(), argnums=(0, 1))
  assert count(gradient, X, W) == training_flops(forward, X, W) == 3 * ONCE


def test_a_convolution_counts_every_tap_of_every_output():
  convolve = functools.partial(
    jax.lax.conv_general_dilated, window_strides=(2, 2), padding="VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
  )
  outputs = 2 * 3 * 3
  assert count(convolve, array(2, 7, 7, 3), array(3, 3, 3, 5)) == 2 * (outputs * 5) * (3 * 3 * 3)
  depthwise = functools.partial(convolve, feature_group_count=3)
  assert count(depthwise, array(2, 7, 7, 3), array(3, 3, 1, 6)) == 2 * (outputs * 6) * (3 * 3)


def test_zeros_between_the_inputs_of_a_transposed_convolution_cost_nothing():
  def up(x, w):
    return jax.lax.conv_transpose(x, w, (2, 2), "SAME")

  assert count(up, array(1, 4, 4, 3), array(2, 2, 3, 5)) == 2 * (4 * 4 * 3) * (2 * 2 * 5)


def gpt(**changes):
  return build("gpt", **{**dict(vocab_size=101, max_length=16, dim=12, depth=3, num_heads=2), **changes})


def forward_flops(model, tokens):
  rng, example = jax.random.key(0), jax.ShapeDtypeStruct(tokens, jnp.int32)
  params = jax.eval_shape(lambda rng: model.init(rng, *model.example()), rng)["params"]
  return count(lambda params, tokens: model.apply({"params": params}, tokens), params, example)


def test_gpt_costs_what_its_formula_says():
  batch, length, dim, depth, vocab = 2, 16, 12, 3, 101
  weights = depth * 12 * dim**2 + vocab * dim  # Every weight but norms, biases and positions: "6 N D" is 3 * 2 N D.
  attention = depth * 2 * length * dim  # Logits and weighted values of each token.
  assert forward_flops(gpt(), (batch, length)) == 2 * batch * length * (weights + attention)


@pytest.mark.parametrize("changes", [{"scan": True}, {"remat": "full"}, {"scan": True, "remat": "dots"}])
def test_however_it_is_computed_the_model_costs_the_same(changes):
  assert forward_flops(gpt(**changes), (2, 5)) == forward_flops(gpt(scan=False), (2, 5))


@pytest.mark.parametrize(
  "kind, expected",
  [
    ("TPU v3", 61.5e12),
    ("TPU v4", 275e12),
    ("TPU v5 lite", 197e12),
    ("TPU v5", 459e12),
    ("TPU v6 lite", 918e12),
    ("TPU7x", 1153.5e12),
    ("NVIDIA A100-SXM4-80GB", 312e12),
    ("NVIDIA H100 80GB HBM3", 989e12),
    ("NVIDIA H100 PCIe", 756e12),
    ("NVIDIA H200", 989e12),
    ("NVIDIA GB200", 2500e12),
    ("NVIDIA B200", 2250e12),
    ("NVIDIA L4", 121e12),
    ("NVIDIA L40S", 362e12),
    ("Tesla T4", 65e12),
    ("cpu", None),
    ("NVIDIA GeForce GTX 1080", None),
  ],
)
def test_the_peak_is_known_for_the_usual_devices_and_no_others(kind, expected):
  device = types.SimpleNamespace(device_kind=kind)
  assert flops.peak(device) == expected
  assert flops.peak_of([device] * 3) == (None if expected is None else 3 * expected)


def test_a_cpu_has_no_peak():
  assert flops.peak() is None
  assert flops.peak_of(jax.devices()) is None


def test_a_row_meets_the_kernel_of_its_group_alone():
  arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((10, 3), (4, 3, 5))]
  sizes = jax.ShapeDtypeStruct((4,), jnp.int32)
  loss = lambda rows, kernels, sizes: jax.lax.ragged_dot(rows, kernels, sizes).sum()
  assert flops.count(loss, *arrays, sizes) == 2 * 10 * 3 * 5
  assert flops.count(jax.grad(loss, argnums=(0, 1)), *arrays, sizes) == 3 * 2 * 10 * 3 * 5


def test_a_pallas_kernel_counts_as_often_as_it_has_blocks():
  def kernel(x, y, out):
    out[...] = jnp.dot(x[...], y[...])

  def blocks(x, y):
    block = pl.BlockSpec((2, 3), lambda i: (i, 0))
    specs = [block, pl.BlockSpec((3, 5), lambda i: (0, 0))]
    shape = jax.ShapeDtypeStruct((8, 5), jnp.float32)
    out = pl.BlockSpec((2, 5), lambda i: (i, 0))
    return pl.pallas_call(kernel, grid=(4,), in_specs=specs, out_specs=out, out_shape=shape, interpret=True)(x, y)

  assert count(blocks, array(8, 3), array(3, 5)) == 2 * 8 * 3 * 5
