import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from tests.tiny import drawn, tiny_batch, tiny_model
from zoo.errors import UserError
from zoo.objectives.contrastive import contrastive
from zoo.objectives.objective import value_and_grad
from zoo.objectives.sigmoid_contrastive import sigmoid_contrastive
from zoo.perf import collectives, flops
from zoo.sharding import batch_sharding, make_mesh

CONTRASTS = [contrastive, sigmoid_contrastive]
LEARNT = ("image", "text", "scale", "bias")
ROWS = 24


def over(**axes):
  """Rows over the axes of a mesh that are not called "model"."""
  return NamedSharding(make_mesh(axes), P(tuple(name for name in axes if name != "model")))


def toy(rows=ROWS):
  """-> what `forward` of two towers gives: learnt, and the rest. Rows share groups, some have no weight, some half."""
  rng = np.random.default_rng(0)
  unit = lambda x: jnp.array(x / np.linalg.norm(x, axis=-1, keepdims=True), jnp.float32)
  weight = np.ones(rows)
  weight[[3, rows - 1, rows // 2]] = 0, 0, 0.5
  arrays = {"image": unit(rng.normal(size=(rows, 7))), "text": unit(rng.normal(size=(rows, 7)))}
  arrays |= {"scale": jnp.full(rows, 9.0), "bias": jnp.full(rows, -2.0)}
  return arrays, {"group": jnp.array(rng.integers(0, rows, rows)), "weight": jnp.array(weight, jnp.float32)}


def gradient(objective):
  """-> f(learnt, rest) -> ((loss, metrics), gradients), compiled."""
  return jax.jit(jax.value_and_grad(lambda learnt, rest: objective.reduce({**learnt, **rest}), has_aux=True))


@functools.cache
def whole(contrast):
  return gradient(contrast(None))(*toy())


def assert_close(got, want):
  largest = max(np.abs(x).max() for x in jax.tree.leaves(want))
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * max(np.abs(b).max(), largest / 100))


@pytest.mark.parametrize("contrast", CONTRASTS)
@pytest.mark.parametrize(
  "form, chunk, axes",
  [
    ("all_gather", None, {}),
    ("all_gather", 5, {}),  # 5 does not divide 24, nor 7 what a ring of one holds.
    ("ring", 7, {}),
    ("all_gather", 7, {"data": 8}),
    ("ring", 2, {"data": 8}),  # A device has 3 texts.
    ("all_gather", None, {"slice": 2, "data": 2, "model": 2}),
    ("ring", None, {"slice": 2, "data": 2, "model": 2}),
  ],
)
def test_every_form_gives_the_loss_the_metrics_and_the_gradients_of_the_whole(contrast, form, chunk, axes):
  by_row, side_arrays = None, toy()
  if axes:
    by_row = over(**axes)
    side_arrays = jax.device_put(side_arrays, by_row)
  assert_close(gradient(contrast(None, pairs=form, chunk=chunk, by_row=by_row))(*side_arrays), whole(contrast))


@pytest.mark.parametrize("form", ["all_gather", "ring"])
def test_of_equal_logits_the_first_is_picked_in_whatever_order_they_come(form):
  """All logits are equal: everybody picks row 1, the first that counts, which is of its own group alone."""
  learnt, _ = toy()
  alike = {name: jnp.tile(learnt[name][:1], (ROWS, 1)) for name in ("image", "text")}
  rest = {"group": jnp.arange(ROWS) // 2, "weight": jnp.ones(ROWS).at[0].set(0)}
  by_row = over(data=8)
  reduce = jax.jit(contrastive(None, pairs=form, chunk=2, by_row=by_row).reduce)
  arrays = reduce(jax.device_put({**learnt, **alike, **rest}, by_row))[1]
  for rate in ("image_to_text", "text_to_image"):
    np.testing.assert_allclose(arrays[rate], 1 / 23, rtol=1e-6)


@pytest.mark.parametrize("form", ["all_gather", "ring"])
def test_parts_of_a_batch_give_the_gradient_of_the_whole(form):
  model, batch, rng = tiny_model("contrastive"), tiny_batch(), jax.random.key(2)
  plain = contrastive(model)
  params = drawn(plain, batch)
  want = jax.jit(value_and_grad(plain))(params, batch, rng)
  by_row = over(data=4, model=2)
  objective = contrastive(model, pairs=form, chunk=3, by_row=by_row)
  assert_close(jax.jit(value_and_grad(objective, 2))(params, jax.device_put(batch, by_row), rng), want)


def compiled(contrast, rows, by_row=None, embed=512, **options):
  """The program of value and gradient at this batch; nothing is computed."""
  shape = lambda *sizes, dtype=jnp.float32: jax.ShapeDtypeStruct((rows, *sizes), dtype, sharding=by_row)
  learnt = {"image": shape(embed), "text": shape(embed), "scale": shape(), "bias": shape()}
  rest = {"group": shape(dtype=jnp.int32), "weight": shape()}
  return gradient(contrast(None, by_row=by_row, **options)).lower(learnt, rest).compile()


def temporary(program):
  return program.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_in_chunks_memory_grows_with_the_batch_and_not_with_its_square(contrast):
  few, many = (temporary(compiled(contrast, rows, pairs="all_gather", chunk=512)) for rows in (4096, 32768))
  assert 4 < many / few < 10  # 8 times the rows.
  plain = [temporary(compiled(contrast, rows)) for rows in (4096, 32768)]
  assert 50 < plain[1] / plain[0] < 70  # 64 times the pairs.
  assert plain[1] > 16e9 and many < 0.5e9


def test_a_ring_gathers_nothing_and_holds_the_texts_of_two_devices():
  mesh = make_mesh({"data": 8})
  by_row = batch_sharding(mesh)
  programs = {form: compiled(contrastive, 4096, by_row, pairs=form, chunk=64) for form in ("all_gather", "ring")}
  sent = {form: collectives.collectives(program.as_text(), mesh.shape) for form, program in programs.items()}
  kinds = {form: {one.kind for one in arrays} for form, arrays in sent.items()}
  assert kinds["ring"] == {"collective-permute", "all-reduce"}
  assert max(one.bytes for one in sent["ring"] if one.kind == "all-reduce") < 1000  # Sums, and no rows.
  assert "all-gather" in kinds["all_gather"] and "collective-permute" not in kinds["all_gather"]
  texts = 4096 * 512 * 4
  assert temporary(programs["ring"]) < texts < temporary(programs["all_gather"])


def test_every_form_is_counted_as_the_same_arithmetic():
  by_row, side_arrays = over(data=4, model=2), toy()
  forms = [{}, {"pairs": "all_gather", "chunk": 6, "by_row": by_row}, {"pairs": "ring", "by_row": by_row}]
  arrays = [
    flops.count(lambda learnt, rest, f=f: contrastive(None, **f).reduce({**learnt, **rest}), *side_arrays)
    for f in forms
  ]
  assert arrays == [2 * ROWS * ROWS * 7] * 3


def test_mistakes_end_in_one_line():
  with pytest.raises(UserError, match="pairs is 'rings'. Did you mean 'ring'\\? It must be one of: whole, all_gather"):
    contrastive(None, pairs="rings")
  with pytest.raises(UserError, match="chunk is 0. It must be 1 or more: the number of texts that a device compares"):
    sigmoid_contrastive(None, pairs="ring", chunk=0)
  with pytest.raises(UserError, match="chunk is 64, but pairs is 'whole', which has no chunks. Set pairs to"):
    contrastive(None, chunk=64)
  learnt, rest = toy(20)
  with pytest.raises(UserError, match="pairs 'ring': 20 rows do not divide over 8 devices. Change batch_size or mesh"):
    contrastive(None, pairs="ring", by_row=over(data=8)).reduce({**learnt, **rest})
