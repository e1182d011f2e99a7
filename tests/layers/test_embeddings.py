import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from tests.filled import filled
from zoo.layers.embeddings import ClassToken, ConvStem, PatchEmbed, unembed
from zoo.layers.mixed_precision import pick

IMAGE = jax.random.normal(jax.random.key(0), (2, 6, 10, 3))


def parameters(module, *args):
  return {"params": filled(module, *args)}


def test_patch_embedding_equals_a_convolution():
  patches, convolution = PatchEmbed(2, 7), nn.Conv(7, (2, 2), (2, 2), "VALID")
  params = parameters(patches, IMAGE)
  want = convolution.apply(params, IMAGE)
  assert want.shape == (2, 3, 5, 7)
  np.testing.assert_allclose(patches.apply(params, IMAGE), want.reshape(2, 15, 7), rtol=1e-4, atol=1e-4)


def test_patches_start_as_a_convolution_would():
  shape = jax.eval_shape(nn.Conv(7, (2, 2)).init, jax.random.key(1), IMAGE)["params"]["kernel"].shape
  kernel = PatchEmbed(2, 7).init(jax.random.key(1), IMAGE)["params"]["kernel"]
  assert kernel.shape == shape
  np.testing.assert_allclose(kernel.std(), 12**-0.5, rtol=0.25)


def test_an_image_that_does_not_divide_is_refused():
  with pytest.raises(
    ValueError, match="An image of 6 x 10 does not divide into patches of patch_size 4. Resize or crop"
  ):
    PatchEmbed(4, 7).init(jax.random.key(0), IMAGE)


def test_a_stage_of_the_stem_halves_the_resolution_and_sees_the_neighbours():
  stem = ConvStem((5,))
  params = parameters(stem, IMAGE)
  out = stem.apply(params, IMAGE)
  assert out.shape == (2, 3, 5, 5)
  changed = abs(stem.apply(params, IMAGE.at[0, 0, 0].add(1.0)) - out).max(-1) > 1e-6
  np.testing.assert_array_equal(np.argwhere(changed), [[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1]])


def test_the_class_token_comes_first():
  x = jax.random.normal(jax.random.key(0), (2, 5, 7))
  params = parameters(ClassToken(), x)
  out = ClassToken().apply(params, x)
  np.testing.assert_array_equal(out[:, 1:], x)
  np.testing.assert_array_equal(out[:, 0], jnp.tile(params["params"]["embedding"], (2, 1)))


def test_picked_rows_are_those_of_their_example():
  x, index = jax.random.normal(jax.random.key(0), (2, 5, 7)), jnp.array([[4, 0, 4], [1, 2, 3]])
  np.testing.assert_array_equal(pick(x, index), [[x[0, 4], x[0, 0], x[0, 4]], [x[1, 1], x[1, 2], x[1, 3]]])


def test_picking_leaves_every_example_on_its_device():
  mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
  rows = NamedSharding(mesh, P("data"))
  x, index = jnp.zeros((16, 5, 7)), jnp.zeros((16, 3), jnp.int32)
  backward = jax.grad(lambda x, index: jnp.sin(pick(x, index)).sum())
  for function in (pick, backward):
    program = jax.jit(function, in_shardings=(rows, rows), out_shardings=rows).lower(x, index).compile().as_text()
    assert "all-gather" not in program and "all-reduce" not in program


def test_unembedding_multiplies_by_the_table_and_answers_in_float32():
  class Tied(nn.Module):
    embed: nn.Module

    def __call__(self, tokens):
      return unembed(self.embed, self.embed(tokens))

  tokens = jnp.array([[3, 1]])
  for dtype in (None, jnp.bfloat16):
    tied = Tied(nn.Embed(5, 7, dtype=dtype))
    params = parameters(tied, tokens)
    table = params["params"]["embed"]["embedding"]
    logits = tied.apply(params, tokens)
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits[0], table[tokens[0]] @ table.T, rtol=0.03 if dtype else 1e-5, atol=0.03)
