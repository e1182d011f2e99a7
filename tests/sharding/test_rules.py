import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import zoo
from zoo import optim
from zoo.errors import UserError
from zoo.sharding import STRATEGIES, batch_sharding, make_mesh, put_batch, report, shardings


def shape(*sizes):
  return jax.ShapeDtypeStruct(sizes, jnp.float32)


def specs(tree, strategy, mesh):
  """path -> PartitionSpec"""
  return {row.path: row.spec for row in report(tree, strategy, mesh)}


def gpt_shapes(vocab_size=24, **sizes):
  model = zoo.build(
    "gpt", **{"vocab_size": vocab_size, "max_length": 11, "dim": 8, "depth": 3, "num_heads": 2, **sizes}
  )
  return jax.eval_shape(lambda rng: model.init(rng, *model.example()), jax.random.key(0))["params"]


@pytest.mark.parametrize(
  "axes, want",
  [
    ({"data": -1}, {"data": 8}),
    ({"data": -1, "model": 1}, {"data": 8, "model": 1}),
    ({"data": 2, "model": -1}, {"data": 2, "model": 4}),
    ({"data": 2, "expert": 2, "model": 2}, {"data": 2, "expert": 2, "model": 2}),
  ],
)
def test_a_mesh_takes_all_devices(axes, want):
  mesh = make_mesh(axes)
  assert dict(mesh.shape) == want
  assert set(mesh.axis_types) == {jax.sharding.AxisType.Auto}


def test_a_mesh_can_be_made_of_some_devices():
  assert make_mesh({"data": -1}, jax.devices()[:3]).devices.tolist() == jax.devices()[:3]


@pytest.mark.parametrize(
  "axes, message",
  [
    ({"data": 3}, r"mesh {'data': 3} does not fit: there are 8 devices, and it needs as many as 3. Change mesh"),
    ({"data": 4, "model": 4}, "does not fit: there are 8 devices, and it needs as many as 16"),
    ({"data": -1, "model": 3}, "does not fit: there are 8 devices, and it needs a multiple of 3"),
    ({"data": -1, "model": -1}, "mesh has -1 at data and model. Only one axis"),
    ({"data": 0}, "mesh.data is 0. It must be an int: a number of devices, or -1"),
    ({"data": "all"}, "mesh.data is 'all'. It must be an int: a number of devices, or -1"),
    ({}, "mesh is empty. It needs an axis"),
  ],
)
def test_a_mesh_that_does_not_fit_is_told(axes, message):
  with pytest.raises(UserError, match=message):
    make_mesh(axes)


def test_fsdp_splits_the_largest_dimension_that_divides_and_the_later_of_equals():
  mesh = make_mesh({"data": 4, "model": 2})
  tree = {"a": shape(8, 12), "b": shape(100, 7, 8), "c": shape(8, 8), "d": shape(7), "e": shape()}
  placements = specs(tree, "fsdp", mesh)
  assert placements == {"a": P(None, "data"), "b": P("data", None, None), "c": P(None, "data"), "d": P(), "e": P()}


def test_tensor_splits_heads_hidden_units_and_the_vocabulary():
  placements = specs(gpt_shapes(), "tensor", make_mesh({"data": -1, "model": 2}))
  layer = {path.removeprefix("stack/layer_1/"): spec for path, spec in placements.items() if "layer_1" in path}
  assert {path: spec for path, spec in layer.items() if spec != P()} == {
    "self_attention/query/kernel": P(None, "model", None),
    "self_attention/query/bias": P("model", None),
    "self_attention/key/kernel": P(None, "model", None),
    "self_attention/key/bias": P("model", None),
    "self_attention/value/kernel": P(None, "model", None),
    "self_attention/value/bias": P("model", None),
    "self_attention/out/kernel": P("model", None, None),
    "feed_forward/up/kernel": P(None, "model"),
    "feed_forward/up/bias": P("model"),
    "feed_forward/down/kernel": P("model", None),
  }
  assert placements["embed/embedding"] == P("model", None)
  assert placements["positions/embedding"] == P()


def test_fsdp_and_tensor_together_split_another_dimension_over_data():
  placements = specs(gpt_shapes(), "fsdp+tensor", make_mesh({"data": 4, "model": 2}))
  assert placements["stack/layer_0/self_attention/query/kernel"] == P("data", "model", None)
  assert placements["stack/layer_0/self_attention/out/kernel"] == P("model", None, "data")
  assert placements["stack/layer_0/feed_forward/down/kernel"] == P("model", "data")
  assert placements["embed/embedding"] == P("model", "data")
  assert placements["stack/layer_0/mlp_norm/scale"] == P("data")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_scanned_stack_is_placed_as_its_layers_are(strategy):
  mesh = make_mesh({"data": 4, "model": 2})
  loop, scanned = [specs(gpt_shapes(scan=scan), strategy, mesh) for scan in (False, True)]
  for path, spec in scanned.items():
    if "layers" in path:
      same = loop[path.replace("layers", "layer_0")]
      assert spec == (P(None, *same) if any(same) else P()), path


def test_a_vocabulary_that_does_not_divide_is_left_whole():
  mesh = make_mesh({"data": 4, "model": 2})
  odd = gpt_shapes(vocab_size=23)
  assert specs(odd, "tensor", mesh)["embed/embedding"] == P(None, "model")
  assert specs(odd, "fsdp", mesh)["embed/embedding"] == P(None, "data")
  tree = {"embed": {"embedding": shape(23, 7)}}
  assert specs(tree, "fsdp+tensor", mesh)["embed/embedding"] == P()


def test_heads_that_do_not_divide_are_told_with_the_way_out():
  with pytest.raises(
    UserError,
    match=r"stack/layer_0/self_attention/.*/.* \(.*3, 2.*\): 3 does not divide over the 2 devices of mesh axis 'model'"
    ". "
    "Change the model's size, use the sharding 'fsdp', or change the mesh {'data': 4, 'model': 2}",
  ):
    shardings(gpt_shapes(dim=6, num_heads=3), "tensor", make_mesh({"data": -1, "model": 2}))


@pytest.mark.parametrize(
  "options", [{}, {"freeze": ["positions/.*"], "clip_norm": 1.0, "multipliers": [["bias", 0.5]]}]
)
@pytest.mark.parametrize("name", ["adamw", "lion", "sgd", "muon", "adafactor"])
def test_optimiser_state_and_averages_live_where_their_parameters_do(name, options):
  mesh, params = make_mesh({"data": 4, "model": 2}), gpt_shapes(scan=True)
  more = {"min_dim_size_to_factor": 8} if name == "adafactor" else {}
  transform, _ = optim.optimizer(params, 10, name=name, learning_rate=0.1, **options, **more)
  state = {"params": params, "ema": params, "opt_state": jax.eval_shape(transform.init, params), "step": shape()}
  rows = report(state, "fsdp+tensor", mesh)
  owners = {row.path.removeprefix("params/"): row for row in rows if row.path.startswith("params/")}
  followers = 0
  for row in rows:
    owner = next((owners[path] for path in owners if row.path.endswith("/" + path)), None)
    if owner is not None and owner.shape == row.shape:
      assert row.spec == owner.spec, row
      followers += not row.path.startswith("params/")
    else:
      assert row.spec == P(), row  # Counts, and adafactor's sums over rows and columns.
  assert followers > len(owners)


def test_own_lines_place_the_last_dimensions_and_the_first_match_wins():
  mesh = make_mesh({"data": 2, "model": 2, "expert": 2})
  lines = [["layer_1/.*kernel", []], ["(up|down)/kernel", ["data", ["model", "expert"]]], ["kernel", ["expert"]]]
  placements = specs(gpt_shapes(), lines, mesh)
  assert placements["stack/layer_1/feed_forward/up/kernel"] == P()
  assert placements["stack/layer_0/feed_forward/up/kernel"] == P("data", ("model", "expert"))
  assert placements["stack/layer_0/self_attention/query/kernel"] == P(None, None, "expert")
  assert placements["embed/embedding"] == P()
  assert specs(gpt_shapes(), [*lines, "fsdp"], mesh)["embed/embedding"] == P("data", None)
  scanned = specs(gpt_shapes(scan=True), [["up/kernel", ["data", "model"]]], mesh)
  assert scanned["stack/layers/feed_forward/up/kernel"] == P(None, "data", "model")


@pytest.mark.parametrize(
  "strategy, message",
  [
    ("fdsp", r"There is no sharding 'fdsp'. Did you mean 'fsdp'\? There are: replicated, fsdp, tensor, fsdp\+tensor"),
    (["fdsp"], "There is no sharding 'fdsp'"),
    ([["upp/kernel", [None]]], "sharding: 'upp/kernel' matches no parameter. The nearest: stack/layer_.*up/kernel"),
    (
      [["up/kernel", ["modle"]]],
      r"'up/kernel' names the mesh axis 'modle'. Did you mean 'model'\? The mesh is {'data': 4",
    ),
    ([["up/kernel", ["model", "model"]]], "'up/kernel' uses the mesh axis 'model' twice"),
    ([["up/kernel", "model"]], r"\['up/kernel', 'model'\] is not a rule. A rule is a pattern and a list"),
    ([["up/kernel"]], "is not a rule"),
    ([["up/bias", [None, "model"]]], r"up/bias \(32,\) has fewer dimensions than sharding 'up/bias' places"),
    ([["(", ["model"]]], r"sharding: '\(' is not a regular expression"),
    (
      [["positions/embedding", ["data", None]]],
      r"positions/embedding \(11, 8\): 11 does not divide over the 4 devices of mesh axis 'data'. Change the model's "
      "size, change the line 'positions/embedding', or change the mesh {'data': 4, 'model': 2}",
    ),
    (
      [["positions/embedding", [["data", "model"], None]]],
      "11 does not divide over the 8 devices of mesh axis 'data' and 'model'",
    ),
  ],
)
def test_mistakes_in_a_sharding_are_told(strategy, message):
  with pytest.raises(UserError, match=message):
    shardings(gpt_shapes(), strategy, make_mesh({"data": 4, "model": 2}))


@pytest.mark.parametrize("strategy, axis", [("fsdp", "data"), ("tensor", "model"), ("fsdp+tensor", "data")])
def test_a_strategy_needs_its_axes(strategy, axis):
  mesh = make_mesh({"rows": -1})
  with pytest.raises(UserError, match=rf"needs a mesh axis '{axis}', the mesh is {{'rows': 8}}. Add mesh.{axis}"):
    shardings(gpt_shapes(), strategy, mesh)
  assert set(specs(gpt_shapes(), "replicated", mesh).values()) == {P()}


def test_the_report_says_what_a_device_holds():
  tree = {"params": {"up": {"kernel": shape(8, 6)}, "scale": shape(7)}, "step": jax.ShapeDtypeStruct((), jnp.int32)}
  rows = report(tree, "fsdp+tensor", make_mesh({"data": 4, "model": 2}))
  assert [(row.path, row.bytes, row.bytes_per_device) for row in rows] == [
    ("params/scale", 28, 28),
    ("params/up/kernel", 192, 24),
    ("step", 4, 4),
  ]
  assert rows[1].rule == "fsdp+tensor: (up|gate)/kernel"


def test_batches_are_spread_by_rows():
  mesh = make_mesh({"data": 4, "model": 2})
  batch = put_batch({"x": np.arange(24).reshape(8, 3), "y": np.arange(8)}, mesh)
  assert batch["x"].sharding.is_equivalent_to(batch_sharding(mesh), 2)
  assert {shard.data.shape for shard in batch["x"].addressable_shards} == {(2, 3)}
  np.testing.assert_array_equal(batch["x"], np.arange(24).reshape(8, 3))
  whole = put_batch({"y": np.arange(3)}, make_mesh({"model": 8}))
  assert whole["y"].sharding.is_fully_replicated
  with pytest.raises(UserError, match="batch_size 6 does not divide over the 4 devices of mesh axis 'data'"):
    put_batch({"y": np.arange(6)}, mesh)
