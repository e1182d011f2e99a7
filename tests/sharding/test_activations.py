import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

import zoo
from tests.tiny import tiny_batch
from zoo.build import shapes_of
from zoo.config import registry
from zoo.errors import UserError
from zoo.layers.returned import intercept_outputs
from zoo.objectives.objective import value_and_grad
from zoo.perf.collectives import collectives
from zoo.sharding import activations, batch_sharding, make_mesh, shardings
from zoo.sharding.activations import parse_rules, spec_of
from zoo.tree import flatten

MESH = {"data": 2, "model": 2, "sequence": 2}
ANY = P.UNCONSTRAINED


def test_a_placement_is_of_the_first_dimensions_and_splits_what_is_long_enough():
  mesh = make_mesh(MESH)
  placed = ("batch", "sequence", None)
  assert spec_of(placed, (4, 6, 8), mesh) == P("data", "sequence", None)
  assert spec_of(placed, (4, 7, 8, 3), mesh) == P("data", "sequence", None, ANY)
  assert spec_of(placed, (4, 1, 8), mesh) == P("data", None, None)
  assert spec_of(placed, (4, 6), mesh) is None
  assert spec_of(placed, (4, 6, 8), mesh, evenly=True) == P("data", "sequence", None)
  assert spec_of(placed, (4, 7, 8), mesh, evenly=True) == P("data", None, None)
  assert spec_of(("batch", "expert", "any"), (4, 6, 8), mesh) == P("data", None, ANY)
  assert spec_of(placed, (8, 6, 8), make_mesh({"slice": 2, "data": 2, "expert": 2})) == P(
    ("slice", "data", "expert"), None, None
  )


def test_lines_of_ones_own_come_first_and_mistakes_are_named():
  mesh = make_mesh(MESH)
  rules = parse_rules([["mlp/up", ["batch", None, ["model", "sequence"]]]], mesh)
  assert rules[0] == ("mlp/up", ("batch", None, ("model", "sequence"))) and rules[1:] == parse_rules([], mesh)
  assert parse_rules([], make_mesh({"data": 1}, jax.devices()[:1])) == []
  with pytest.raises(UserError, match=r"'layers' is not a rule. A rule is"):
    parse_rules(["layers"], mesh)
  with pytest.raises(UserError, match="activations: 5 is not a rule"):
    parse_rules([5], mesh)
  with pytest.raises(UserError, match=r"mesh axis 'sequenze'. Did you mean 'sequence'"):
    parse_rules([["layers", ["batch", "sequenze"]]], mesh)
  with pytest.raises(UserError, match=r"activations: 'layer' matches no part of the model. The nearest: stack/layer_0"):
    activations.check(
      parse_rules([["layer", ["batch"]]], mesh), 1, {"embed": (1, 9, 8), "stack/layer_0": (1, 9, 8)}, mesh
    )
  with pytest.raises(UserError, match="'embed' places 4 dimensions, what it matches has at most 3. Give fewer"):
    activations.check(parse_rules([["embed", ["batch", None, None, None]]], mesh), 1, {"embed": (1, 9, 8)}, mesh)


def test_ones_own_rules_that_xla_is_known_to_get_wrong_are_refused():
  mesh = make_mesh({"data": 2, "model": 2, "other": 2})
  shapes = {"stem/conv_0": (1, 8, 8, 4), "conv_1": (1, 30, 8), "embed": (1, 9, 8), "stack/layer_0": (1, 9, 8)}

  def check(*lines):
    activations.check(parse_rules(lines, mesh), len(lines), shapes, mesh)

  for space in (["batch", "model", None, None], [None, None, ["model", "other"]], ["batch", "any", "model"]):
    with pytest.raises(
      UserError, match=r"activations: 'conv_0|stem.*' splits the spatial dimensions of the convolution stem/conv_0"
    ):
      check(["conv_0|stem/.*", space])
  with pytest.raises(UserError, match="splits the spatial dimensions of the convolution conv_1"):
    check(["conv_1", ["batch", "model", None]])
  with pytest.raises(
    UserError, match="'embed' splits the 9 tokens that embed looks up into 2 uneven parts.*multiple of 2"
  ):
    check(["embed", ["batch", "model", None]])
  with pytest.raises(UserError, match="activations: 'embed' uses the mesh axis 'data' twice"):
    check(["embed", ["batch", None, "data"]])
  check(["conv_0", ["batch", "any", None, "model"]], ["conv_1", ["batch", None, "model"]])  # Channels.
  check(["conv_0", ["data", "model", "other"]])  # Every axis splits something.
  check(["embed", ["batch", "any", "model"]], ["stack/layer_0", ["batch", "model"]])


def test_every_convolution_of_the_zoo_has_a_name_that_is_held_whole():
  sizes = {"dim": 4, "depth": 1, "num_heads": 1}
  towers = {f"{tower}_{size}": n for tower in ("image", "text") for size, n in (("dim", 4), ("depth", 1), ("heads", 1))}
  models = {
    "whisper": {"vocab_size": 9, "source_length": 4, "max_length": 4, "mels": 3, **sizes},
    "clip": {
      "image_size": 8,
      "patch_size": 4,
      "stem_dims": [3, 5],
      "embed_dim": 4,
      "vocab_size": 9,
      "max_length": 4,
      **towers,
    },
  }
  source, convolves = Path(zoo.__file__).parent, re.compile(r"\b(Conv|ConvTranspose|\w+_pool)\(")
  code = [path for folder in ("models", "layers") for path in (source / folder).glob("*.py")]
  files = [path for path in code if convolves.search(re.sub(r"class \w+\(", "", path.read_text()))]
  assert {path.stem for path in files} == {"whisper", "embeddings"}  # Another one needs a name that is held whole.
  for family, options in models.items():
    kernels = [path for path, x in flatten(shapes_of(zoo.build(family, **options))).items() if "conv" in path]
    assert kernels and all(re.search(f"{activations.CONVOLUTION}/(kernel|bias)$", path) for path in kernels)


def compiled(family, name, axes, rules=None, strategy="replicated", length=64, **sizes):
  """The gradient's program on a mesh, and the mesh."""
  mesh = make_mesh(axes)
  model = zoo.build(family, vocab_size=23, max_length=length, depth=2, num_heads=2, **sizes)
  objective = registry.build("objectives", {"name": name}, model)
  batch = tiny_batch(rows=8, length=length)
  shapes = jax.eval_shape(objective.init, jax.random.key(0), batch)
  rules = parse_rules([], mesh) if rules is None else rules

  def step(params, batch):
    with activations.constrained(rules, mesh):
      return value_and_grad(objective)(params, batch)

  places = (shardings(shapes, strategy, mesh), batch_sharding(mesh))
  return jax.jit(step, in_shardings=places).lower(shapes, batch).compile(), mesh


def test_of_long_texts_a_device_holds_a_part():
  whole, _ = compiled("gpt", "causal_lm", {"data": 2, "sequence": 4}, rules=[], dim=16, length=257)
  split, mesh = compiled("gpt", "causal_lm", {"data": 2, "sequence": 4}, dim=16, length=257)
  temporary = [program.memory_analysis().temp_size_in_bytes for program in (whole, split)]
  assert temporary[1] < temporary[0] / 2
  gathered = [one for one in collectives(split.as_text(), mesh.shape) if one.kind == "all-gather"]
  # Keys and values, [4, 256, 2, 8] float32, and nothing that is larger.
  assert gathered and max(one.bytes for one in gathered) <= 4 * 256 * 16 * 4


def test_tokens_go_to_the_experts_that_live_apart():
  program, _ = compiled(
    "mixtral", "causal_lm", {"data": 2, "expert": 4}, dim=12, mlp_dim=56, num_experts=4, top_k=2, length=9
  )
  text = program.as_text()
  assert "f32[1,12,56]" in text and "f32[4,12,56]" not in text


def test_arrays_are_handed_over_with_the_paths_of_their_modules():
  model = zoo.build("gpt", vocab_size=23, max_length=8, dim=8, depth=2, num_heads=2, scan=True)
  shapes = {}
  with intercept_outputs(lambda path, array: shapes.setdefault(path, array)):
    model.init(jax.random.key(0), jnp.zeros((2, 8), jnp.int32))
  assert shapes["stack/layers"].shape == (2, 8, 8)
  assert shapes["stack/layers/self_attention/key"].shape == (2, 8, 2, 4)
