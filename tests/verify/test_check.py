"""Right placements pass, planted wrong ones are caught by their parameter, and what passed is remembered."""

import json
import math
import os
import random

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

import zoo
from scripts.sharding_fuzz import FAMILIES, draw, outcome
from tests.hosts.test_process import end, start
from train import main
from zoo import sharding
from zoo.build import shapes_of
from zoo.config import loading
from zoo.evaluate import artifacts
from zoo.optim.optimizers import OPTIMIZERS
from zoo.plan.fake_data import with_fake_data
from zoo.sharding import activations
from zoo.train.experiment import experiment
from zoo.tree import flatten
from zoo.verify import check
from zoo.verify.comparison import Verdict, compare
from zoo.verify.reduced_config import congruent_size, cut, is_cheap, reduced_size, reductions, rows_of, same_placements

TEXT = {"name": "language", "source": "text:here", "tokenizer": "bytes", "max_length": 22, "cache": False}
IMAGES = {"name": "labelled_images", "source": "images:here", "image_size": 16}
PAIRS = {"name": "image_text", "source": "webdataset:here", "tokenizer": "bytes", "image_size": 16, "max_length": 9}
SEQ2SEQ = {**TEXT, "name": "text_pairs", "target_length": 7}
DECODER = {"vocab_size": 260, "max_length": 21, "dim": 8, "depth": 2, "num_heads": 2}
IMAGE = {"image_size": 16, "patch_size": 4}
TOWERS = {f"{tower}_{size}": n for tower in ("image", "text") for size, n in {"dim": 8, "depth": 1, "heads": 2}.items()}
CASES = {
  "gpt": ({"family": "gpt", **DECODER}, "causal_lm", TEXT),
  "transformer_xl": (
    {"family": "transformer_xl", "vocab_size": 260, "dim": 8, "depth": 2, "num_heads": 2, "memory_length": 5},
    "causal_lm",
    {**TEXT, "name": "contiguous"},
  ),
  "t5": (
    {"family": "t5", "vocab_size": 260, "dim": 8, "depth": 1, "num_heads": 2, "mlp_dim": 12},
    "seq2seq",
    SEQ2SEQ,
  ),
  "vit": ({"family": "vit", **IMAGE, "dim": 8, "depth": 2, "num_heads": 2, "num_classes": 5}, "classify", IMAGES),
  "clip": (
    {"family": "clip", **IMAGE, **TOWERS, "stem_dims": [4], "embed_dim": 12, "vocab_size": 260, "max_length": 9},
    "contrastive",
    PAIRS,
  ),
}
FOUR = {"a": 2, "b": 2}


def settings(case, folder, mesh, strategy="replicated", rules=(), optimizer=(), **others):
  model, objective, data = CASES[case]
  sections = {
    "seed": 0,
    "steps": 2,
    "batch_size": 8,
    "workdir": str(folder / "run"),
    "model": model | others,
    "objective": {"name": objective},
    "data": with_fake_data({**data, "split": "train"}, folder),
    "optimizer": {"learning_rate": 1e-2, **dict(optimizer)},
    "mesh": mesh,
    "sharding": strategy,
    "activations": list(rules),
    "eval": {"evaluators": {}},
  }
  (folder / "config.json").write_text(json.dumps(sections))
  return loading.load([f"--config={folder}/config.json"])[0]


def compared(case, folder, mesh, strategy="replicated", rules=(), **others):
  settled = settings(case, folder, mesh, strategy, rules, **others)
  devices = sharding.make_mesh(mesh, jax.devices()[: int(np.prod(list(mesh.values())))])
  return compare(settled, experiment(settled, devices), devices)


@pytest.mark.slow
@pytest.mark.parametrize(
  "case, mesh, strategy",
  [
    ("gpt", {"data": 2, "model": 2, "sequence": 2}, "fsdp+tensor"),
    ("transformer_xl", {"data": 2, "model": 2}, "fsdp+tensor"),  # Its memory holds bools.
    ("t5", {"data": 4, "model": 2}, "tensor"),
    ("vit", {"slice": 2, "data": 2}, "fsdp"),
    ("clip", {"data": 2, "model": 2}, "fsdp+tensor"),
  ],
)
def test_right_placements_are_right(tmp_path, case, mesh, strategy):
  verdict = compared(case, tmp_path, mesh, strategy)
  assert not verdict.wrong and verdict.largest < 1e-4 and verdict.parameters > 20


@pytest.mark.slow(minutes=1)
def test_random_placements_of_the_zoo_are_right(tmp_path, request):
  for number in range(request.config.getoption("--placements")):
    drawn = draw(random.Random(f"0 {number}"), tmp_path, list(FAMILIES))
    verdict = outcome(drawn, tmp_path)
    assert not verdict.wrong, f"{verdict.line()}: {drawn}"


# Blocks of a product are exchanged where two axes split one dimension of a kernel (docs/sharding.md).
EIGHT = {"a": 2, "b": 2, "c": 2}
LINES = [["(up|down)/kernel", [["a", "b"], "c"]]]
RULES = [["up", [None, "c", "b"]], ["layer_0|layer_1", ["c", "b", None]]]
TOLD = "the gradient of stack/layer_1/feed_forward/down/kernel differs from one device's by 0."


def test_blocks_of_a_product_that_are_exchanged_are_found(tmp_path):
  verdict = compared("gpt", tmp_path, EIGHT, LINES, RULES)
  assert list(verdict.wrong) == [f"stack/layer_{i}/feed_forward/down/kernel" for i in (1, 0)]
  assert min(verdict.wrong.values()) > 0.1 and verdict.line().startswith(TOLD) and "1 others of 36" in verdict.line()


def test_a_convolution_over_space_is_found_and_one_that_is_held_whole_is_right(tmp_path, monkeypatch):
  rules = [["stem", [None, "b", None, None]]]
  assert not compared("clip", tmp_path, FOUR, "replicated", rules).wrong
  monkeypatch.setattr(activations, "built_in", lambda mesh, keys=None: [])
  verdict = compared("clip", tmp_path, FOUR, "replicated", rules)
  np.testing.assert_allclose(verdict.wrong["image/stem/conv_0/kernel"], 1, rtol=1e-3)


def convolved():
  """An optimiser whose step is the momentum, a matrix convolved by its own corner."""

  def step(x):
    if x.ndim != 2:
      return x
    names = ("NHWC", "HWIO", "NHWC")
    image, window = x[None, :, :, None], x[:3, :3, None, None]
    return jax.lax.conv_general_dilated(image, window, (1, 1), "SAME", dimension_numbers=names)[0, :, :, 0]

  def update(gradients, state, params=None):
    state = jax.tree.map(lambda m, x: 0.9 * m + x, state, gradients)
    return jax.tree.map(step, state), state

  return optax.GradientTransformation(lambda params: jax.tree.map(jnp.zeros_like, params), update)


def test_an_optimiser_that_computes_something_else_on_a_mesh_is_found(tmp_path, monkeypatch):
  monkeypatch.setitem(OPTIMIZERS, "convolved", convolved)
  lines = [["layer_0/.*up/kernel", ["a"]]]
  right, wrong = (
    compared("gpt", tmp_path, FOUR, split, optimizer={"name": "convolved"}) for split in ("replicated", lines)
  )
  assert not right.wrong
  assert list(wrong.wrong) == ["the update of stack/layer_0/feed_forward/up/kernel"] and not wrong.module
  assert wrong.line().startswith("the update of stack/layer_0/feed_forward/up/kernel differs from one device's by ")


@pytest.mark.parametrize(
  "optimizer",
  [
    {"name": "muon", "clip_norm": 0.5, "weight_decay": 0.1},
    {"name": "adafactor", "min_dim_size_to_factor": 128, "momentum": 0.9},
    {"name": "lion", "clip_norm": 0.5, "freeze": ["stack/layer_1/.*"], "schedule": "constant", "warmup_steps": 1},
  ],
)
def test_what_optimisers_make_of_gradients_is_right(tmp_path, optimizer):
  verdict = compared("gpt", tmp_path, FOUR, [["up/kernel", ["a", "b"]], ["kernel", ["b"]]], optimizer=optimizer)
  assert not verdict.wrong and verdict.largest < 1e-4


def test_a_wrong_placement_ends_with_status_2_and_one_line_before_anything_is_written(tmp_path, capsys):
  settings("gpt", tmp_path, EIGHT, LINES, RULES)
  for arguments in ([], ["--verify-sharding"]):
    with pytest.raises(SystemExit) as ended:
      main([f"--config={tmp_path}/config.json", *arguments])
    told = capsys.readouterr().err
    assert ended.value.code == 2 and len(told.splitlines()) == 1
    assert TOLD in told and "--config.verify=never trains regardless" in told
    assert not (tmp_path / "run").exists()


def test_what_was_verified_is_remembered(tmp_path, monkeypatch):
  monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
  calls = []
  monkeypatch.setattr(check, "compare", lambda *args: calls.append(args) or Verdict({}, "", 36, 1e-7, "depth", 1.0))

  def asked(folder, verify_when="auto", mesh=FOUR, **others):
    settled = settings("gpt", tmp_path, mesh, **others)
    settled.verify = verify_when
    devices = sharding.make_mesh(mesh, jax.devices()[: math.prod(mesh.values())])
    before, notes = len(calls), []
    record = check.before_training(settled, experiment(settled, devices), devices, tmp_path / folder, notes.append)
    if record is not None:  # As train.py does.
      artifacts.write_json(tmp_path / folder, check.FILE, record)
    return len(calls) - before, record is not None, notes

  told = "Verified on mesh {'a': 2, 'b': 2}, sharding replicated: loss, 36 gradients and the optimizer's updates equal"
  compared_now, written, notes = asked("first")
  assert (compared_now, written) == (1, True) and notes[0].startswith(told)
  assert asked("first") == (0, False, [])
  assert asked("second") == (0, True, [])  # The cache tells the folder.
  (tmp_path / "cache" / "verified").rename(tmp_path / "elsewhere")
  assert asked("second") == (0, False, [])
  (tmp_path / "second" / "verified.json").write_text("{")
  assert asked("second", "never") == (0, False, [])
  assert asked("second")[:2] == (1, True)
  for change in ({"mesh": {"a": 4}}, {"strategy": [["up/kernel", ["a"]]]}, {"rules": [["up", ["a"]]]}, {"dim": 12}):
    assert asked("second", **change)[:2] == (1, True), change
    assert asked("second", **change) == (0, False, [])
  assert asked("second", "always", **change)[:2] == (1, True)
  assert asked("second", mesh={"data": 1}) == (0, False, [])


def test_what_cannot_be_compared_goes_on_unless_always(tmp_path, capsys, monkeypatch):
  monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
  settings("gpt", tmp_path, {"data": 8})

  def full(*_):
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nand more")

  monkeypatch.setattr(check, "compare", full)
  told = (
    "mesh {'data': 8}, sharding replicated could not be compared with one device: RESOURCE_EXHAUSTED: Out of memory."
  )
  with pytest.raises(SystemExit):
    main([f"--config={tmp_path}/config.json", "--config.verify=always"])
  assert capsys.readouterr().err == f"Error: {told}\n"
  assert main([f"--config={tmp_path}/config.json"]) == 0
  assert f"{told} Training continues without verification." in capsys.readouterr().out
  assert not (tmp_path / "run" / "verified.json").exists()


def test_of_one_device_there_is_nothing_to_compare(tmp_path):
  settled = settings("gpt", tmp_path, {"data": 1})
  mesh = sharding.make_mesh({"data": 1}, jax.devices()[:1])
  assert "no sharding to verify" in check.verified(settled, experiment(settled, mesh), mesh)


def test_sizes_are_reduced_to_those_that_divide_alike():
  for size in range(1, 200):
    for parts in (1, 4, 6, 8):
      smaller = reduced_size(size, parts, 2)
      assert smaller <= size and math.gcd(smaller, parts) == math.gcd(size, parts)
      assert (
        congruent_size(size, parts, 16) % parts == size % parts
        and min(size, 16) <= congruent_size(size, parts, 16) <= size
      )
  mesh = sharding.make_mesh({"data": 4, "model": 2})
  assert [rows_of(rows, 1, mesh) for rows in (4, 480, 32768)] == [(4, 1), (8, 1), (8, 1)]
  rows, parts = rows_of(480, 5, mesh)
  assert rows % parts == 0 and math.gcd(rows // parts, 4) == math.gcd(480 // 5, 4)
  assert rows_of(12, 3, mesh) == (12, 3)


@pytest.mark.parametrize(
  "family, variant, length",
  [("gpt", "gpt2", 1025), ("t5", "t5-large", 512), ("llama", "llama-2-7b", 4097), ("clip", "ViT-B/16", 77)],
)
def test_a_reduced_model_is_small_and_placed_by_the_same_rules(family, variant, length):
  model, mesh = {"family": family, "variant": variant, "scan": True}, sharding.make_mesh({"data": 4, "model": 2})
  full = shapes_of(zoo.build(**model))
  batch = {"tokens": np.zeros((8, length), np.int32), "image": np.zeros((8, 224, 224, 3), np.float32)}
  for strategy in ("replicated", "fsdp+tensor"):
    settled = ConfigDict({"model": model, "optimizer": {}, "batch_size": 64, "activations": [], "sharding": strategy})
    for reduced in reductions(settled, full, batch, mesh):
      small = shapes_of(zoo.build(**reduced.model))
      affordable = not reduced.if_cheap or is_cheap(small, batch, reduced.rows, "cpu")
      if affordable and same_placements(small, full, strategy, mesh):
        break
    assert reduced.what == "depth, width and length" and reduced.rows == 8
    bulk = [sum(leaf.size for path, leaf in flatten(shapes).items() if "embed" not in path) for shapes in (small, full)]
    assert bulk[0] < bulk[1] / 50
    shorter = cut(batch, reduced, np.random.default_rng(0))
    assert shorter["tokens"].shape[1] % 8 == length % 8 and shorter["tokens"].shape[1] < 200


@pytest.mark.slow(minutes=1)
def test_two_hosts_come_to_one_verdict(tmp_path, monkeypatch):
  monkeypatch.setenv("XLA_FLAGS", os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=4"))  # Each of them.
  settings("gpt", tmp_path, EIGHT)
  path = tmp_path / "config.json"
  right = end(start(path, 2, "--config.steps=1", "--config.verify=always", "--config.sharding=replicated"))
  assert [status for status, _, _ in right] == [0, 0], right
  assert "Verified on mesh {'a': 2, 'b': 2, 'c': 2}" in right[0][1] and "Verified" not in right[1][1]
  assert (tmp_path / "run" / "verified.json").exists()
  settings("gpt", tmp_path, EIGHT, LINES, RULES)
  placed = f"--config.sharding={json.dumps(LINES)}"
  wrong = end(start(path, 2, placed, f"--config.workdir={tmp_path}/wrong"))
  assert [status for status, _, _ in wrong] == [2, 2], wrong
  assert all(TOLD in told for _, _, told in wrong)
  assert not (tmp_path / "wrong").exists()
