"""Ring attention equals `dense_attention`, and no device holds all keys and values."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

import zoo
from tests.filled import filled
from tests.train.test_sharded_training import alone, losses_of, training
from zoo.config.schema import with_defaults
from zoo.errors import UserError
from zoo.kernels import Kernel, Notes, with_kernels
from zoo.kernels.ring import ring
from zoo.layers import masks
from zoo.layers.attention import dense_attention
from zoo.layers.masks import AttentionMask
from zoo.perf.collectives import collectives
from zoo.sharding import activations, make_mesh, put_batch
from zoo.train.experiment import experiment

MESHES = {"sequence": make_mesh({"sequence": 8}), "all": make_mesh({"data": 2, "model": 2, "sequence": 2})}
BATCH, HEADS, DIM, QUERIES = 2, 4, 3, 19  # Eight devices have three tokens each, some of them none.
WINDOW = masks.both(masks.causal, masks.window(5))
PLACES = {n: np.arange(n, dtype=np.int32)[None] for n in (QUERIES, 29)}
REAL = {n: PLACES[n] < np.array([[n], [n - 7]]) for n in PLACES}
TEXTS = {n: np.where(REAL[n], 1 + (PLACES[n] > np.array([[4], [9]])), 0) for n in PLACES}
GIVEN = (np.random.default_rng(5).permutation(QUERIES)[None] + 3 * np.arange(BATCH)[:, None]).astype(np.int32)


def own_rule(query_positions, key_positions):
  """A mask rule of no model, by which some queries attend to no key."""
  return (2 * query_positions + key_positions) % 5 > 3 + (query_positions % 4 == 1)


def draw(seed, *shape, dtype="float32"):
  return np.random.default_rng(seed).standard_normal(shape).astype(jnp.dtype(dtype))


def mask_of(rule, *, padded=False, packed=False, places=PLACES[QUERIES], keys=QUERIES):
  """Of self-attention at those places, or of all queries to other keys."""
  texts = (TEXTS[QUERIES], TEXTS[keys]) if packed else (None, None)
  of_keys = places if keys == QUERIES else PLACES[keys]
  return AttentionMask(rule, places, of_keys, REAL[keys] if padded else None, *texts)


CASES = {  # kv_heads, mask, shape of a bias
  "all": (4, None, None),
  "causal": (4, mask_of(masks.causal), None),
  "window, grouped heads": (2, mask_of(WINDOW), None),
  "both sides, padding, texts that share a row": (2, mask_of(masks.window(3), padded=True, packed=True), None),
  "texts that share a row, causal": (4, mask_of(masks.causal, packed=True), None),
  "given places": (4, mask_of(masks.causal, places=GIVEN), None),
  "a rule of one's own, queries that see nothing": (2, mask_of(own_rule, padded=True), None),
  "a row without keys": (4, mask_of(None)._replace(valid=REAL[QUERIES] & np.array([[True], [False]])), None),
  "cross-attention": (2, mask_of(None, padded=True, packed=True, keys=29), None),
  "bias": (4, mask_of(masks.causal, padded=True), (1, HEADS, QUERIES, QUERIES)),
  "bias of rows": (2, mask_of(None, keys=29), (BATCH, 1, 1, 29)),
  "bias of everything": (2, mask_of(own_rule), (BATCH, HEADS, QUERIES, QUERIES)),
}


def outcome(kernel, mask, numbers):
  """The output, and the gradients of a function of all of it."""

  def loss(numbers):
    y = kernel(*numbers[:3], mask=mask, bias=numbers[3] if len(numbers) > 3 else None, scale=0.9)
    return (jnp.sin(y.astype(jnp.float32)) * draw(7, *y.shape)).sum(), y

  return jax.jit(jax.grad(loss, has_aux=True))(numbers)


def numbers_of(case, dtype="float32"):
  kv_heads, mask, bias = CASES[case]
  keys = QUERIES if mask is None else mask.key_positions.shape[1]
  numbers = draw(0, BATCH, QUERIES, HEADS, DIM), *(draw(i, BATCH, keys, kv_heads, DIM) for i in (1, 2))
  numbers += () if bias is None else (draw(3, *bias),)
  return jax.tree.map(lambda x: x.astype(jnp.dtype(dtype)), numbers), mask


def apart(actual, expected):
  """The largest difference of each array, relative to its largest entry."""
  pairs = zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True)
  return [float(np.abs(np.float32(one) - other).max() / np.abs(other).max()) for one, other in pairs]


@functools.cache
def dense(case):
  """The result of dense attention in a case."""
  numbers, mask = numbers_of(case)
  return outcome(dense_attention, mask, numbers)


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_those_of_dense_attention(case, mesh):
  numbers, mask = numbers_of(case)
  notes = Notes("ring")
  kernel = Kernel(functools.partial(ring, block=2), dense_attention, MESHES[mesh], "here", notes)
  result = outcome(kernel, mask, numbers)
  assert notes.reasons == {("here", ""): None}  # It did not fall back.
  assert max(apart(result, dense(case))) < 1e-5


def test_numbers_of_half_the_bits_are_as_near_to_the_truth_as_those_of_dense_attention():
  numbers, mask = numbers_of("bias", "bfloat16")
  truth = outcome(dense_attention, mask, jax.tree.map(np.float32, numbers))
  kernel = Kernel(ring, dense_attention, MESHES["all"], "", Notes("ring"))
  result = outcome(kernel, mask, numbers)
  assert all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(result))
  # bfloat16 has 8 bits: factors and products are rounded.
  assert max(apart(result, truth)) < 4 * 2**-8
  assert max(apart(outcome(dense_attention, mask, numbers), truth)) > 2**-10


@pytest.mark.parametrize("kernel", ["ring", "dense"])
def test_what_no_query_of_a_device_sees_is_not_computed(kernel):
  """A NaN stays a NaN when multiplied by a weight of 0."""
  numbers, mask = numbers_of("causal")
  numbers[2][:, -1] = np.nan
  run = Kernel(ring, dense_attention, MESHES["sequence"], "", Notes("ring")) if kernel == "ring" else dense_attention
  y = jax.jit(lambda: run(*numbers, mask=mask))()
  assert bool(jnp.isfinite(y[:, :16]).all()) == (kernel == "ring")


SIZES = dict(vocab_size=23, max_length=1024, dim=16, depth=2, num_heads=2)


def compiled(attention, mesh, **sizes):
  """The compiled loss and gradients of a GPT on long sequences."""
  model, notes = with_kernels(zoo.build("gpt", **SIZES, **sizes), attention, mesh)
  tokens = jax.ShapeDtypeStruct((2, SIZES["max_length"]), jnp.int32)
  params = jax.eval_shape(model.init, jax.random.key(0), tokens)["params"]
  rules = activations.parse_rules([], mesh, notes.keys)

  def loss(params, tokens):
    with activations.constrained(rules, mesh):
      return (model.apply({"params": params}, tokens) ** 2).mean()

  return jax.jit(jax.value_and_grad(loss)).lower(params, tokens).compile()


def test_keys_and_values_are_never_gathered_and_memory_falls():
  few, many = make_mesh({"sequence": 2}, jax.devices()[:2]), MESHES["sequence"]
  cases = {("dense", 8): many, ("ring", 8): many, ("ring", 2): few}
  programs = {case: compiled(case[0], mesh, scan=True, remat="full") for case, mesh in cases.items()}
  temporary = {case: program.memory_analysis().temp_size_in_bytes for case, program in programs.items()}
  gathers = {
    name: [one.bytes for one in collectives(programs[name, 8].as_text(), many.shape) if one.kind == "all-gather"]
    for name in ("dense", "ring")
  }
  keys = 2 * 1024 * 16 * 4
  assert keys in gathers["dense"] and max(gathers["ring"], default=0) < keys
  assert temporary["ring", 8] < temporary["dense", 8] / 3
  assert temporary["ring", 8] < temporary["ring", 2] / 3


TRAINED = {
  "gpt": ({"data": 2, "model": 2, "sequence": 2}, "fsdp+tensor", {"remat": "full"}, 2),
  "bert": ({"slice": 2, "sequence": 4}, "replicated", {"remat": "dots"}, 1),
  "t5": ({"expert": 2, "sequence": 4}, "replicated", {}, 1),
  "mixtral": ({"expert": 2, "model": 2, "sequence": 2}, "tensor", {}, 1),
}


@pytest.mark.slow
@pytest.mark.parametrize("family", TRAINED)
def test_the_same_losses_as_on_1_device(family):
  axes, strategy, sizes, accumulate = TRAINED[family]
  mesh, notes = make_mesh(axes), []

  def attending(model):
    model, noted = with_kernels(model, "ring", mesh)
    notes.append(noted)
    return model

  _, start, (want, _) = alone(family)
  _, step = training(family, attending, accumulate, **sizes)
  notes[0].reasons.clear()
  losses, _ = losses_of(step, start, strategy, mesh, notes[0].keys)
  np.testing.assert_allclose(losses, want, rtol=1e-5)
  assert notes[0].lines() == ["attention: ring"]


def test_what_the_ring_cannot_do_is_done_densely_and_said():
  model, mesh = zoo.build("gpt", **SIZES, dropout=0.3), MESHES["all"]
  params, texts = filled(model, *model.example()), jax.random.randint(jax.random.key(0), (2, 24), 0, 23)
  attending, notes = with_kernels(model, "ring", mesh)
  rules = activations.parse_rules([], mesh, notes.keys)

  def run(model, rules, tokens, train):
    keywords = {"train": train, "rngs": {"dropout": jax.random.key(1)}} if train else {}
    with activations.constrained(rules, mesh):
      return jax.jit(lambda: model.apply({"params": params}, tokens, **keywords))()

  for tokens, train, why in (
    (texts, True, "its weights are dropped out or captured"),
    (texts[:, :1], False, "1 queries see 1 keys, fewer than the 2 devices of mesh axis 'sequence'"),
    (texts[:1], False, "1 rows do not divide over the 2 devices of mesh axis 'data'"),
  ):
    notes.reasons.clear()
    assert apart(run(attending, rules, tokens, train), run(model, [], tokens, train)) < [1e-5]
    assert notes.lines() == [f"attention: ring -> dense in stack/block/attention: {why}"]


def test_there_must_be_devices_to_go_around():
  model = zoo.build("gpt", **SIZES)
  with pytest.raises(UserError, match="'ring', which needs mesh axis 'sequence'; the mesh is {'data': 8}. Set mesh"):
    with_kernels(model, "ring", make_mesh({"data": 8}))
  with pytest.raises(UserError, match="Set mesh.sequence to 2 or more, or attention to auto."):
    with_kernels(model, "ring", make_mesh({"data": 8, "sequence": 1}))


def test_one_line_of_a_config_sends_keys_around(tmp_path):
  (tmp_path / "a.txt").write_text("Of many words, some are said twice. " * 9)
  config = with_defaults(
    {
      "seed": 3,
      "steps": 2,
      "batch_size": 4,
      "workdir": "unused",
      "model": {"family": "gpt", **SIZES, "vocab_size": 260, "depth": 1},
      "objective": {"name": "causal_lm"},
      "data": {
        "name": "language",
        "source": f"text:{tmp_path}",
        "tokenizer": "bytes",
        "max_length": 65,
        "cache": False,
      },
      "optimizer": {"learning_rate": 1e-2},
      "mesh": {},
      "sharding": "replicated",
      "eval": {},
    }
  )
  mesh, result = make_mesh({"data": 2, "sequence": 4}), {}
  for name in ("dense", "ring"):
    built = experiment(ConfigDict(config | {"attention": name}), mesh)
    batch = put_batch(built.batches[0], mesh)
    program = built.compiled_step().lower(built.shapes, batch).compile()
    gathers = [one.bytes for one in collectives(program.as_text(), mesh.shape) if one.kind == "all-gather"]
    assert (2 * 64 * 16 * 4 in gathers) == (name == "dense")
    result[name] = program(jax.jit(built.init, out_shardings=built.placed)(jax.random.key(0)), batch)[1]
  assert built.attention.lines() == ["attention: ring"]
  for one, other in zip(jax.tree.leaves(result["ring"]), jax.tree.leaves(result["dense"]), strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-5)
