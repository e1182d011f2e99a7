"""Runs that carry statistics and memories, have frozen teachers, and learn from samples of themselves."""

import sys
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

import zoo
from zoo.checkpoints.manager import Checkpoints
from zoo.config import loading, registry
from zoo.config.schema import with_defaults
from zoo.errors import UserError
from zoo.models.model import Model
from zoo.objectives.objective import Objective, apply
from zoo.sharding import make_mesh
from zoo.sharding.batches import put_batch
from zoo.train.context import weights
from zoo.train.experiment import experiment
from zoo.train.initial import load_into
from zoo.train.replay import keep, replay

SIZES = {"image_size": 4, "num_classes": 3}


class Carrying(Model):
  """A classifier of images with a batch normalisation and a memory of the batch before."""

  dim: int
  num_classes: int
  image_size: int
  channels: int
  carries = {"batch_stats": "shared", "memory": "rows"}

  @nn.compact
  def __call__(self, image, train=False):
    x = nn.Dense(self.dim, name="dense")(image.reshape(len(image), -1))
    x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm")(x)
    if train or self.is_initializing():
      memory = self.variable("memory", "before", jnp.zeros, x.shape)
      x = x + nn.Dense(self.dim, use_bias=False, name="read")(memory.value)
      if train:
        memory.value = jax.lax.stop_gradient(x)
    return {"logits": nn.Dense(self.num_classes, name="classify")(jnp.tanh(x))}

  @nn.nowrap
  def example(self, batch_size=1):
    return (jnp.zeros((batch_size, self.image_size, self.image_size, self.channels)),)


def carrying(*, dim: int = 5, num_classes: int = 3, image_size: int = 4, channels: int = 3):
  return Carrying(dim=dim, num_classes=num_classes, image_size=image_size, channels=channels)


def sampled(model, *, generate):
  """Learns from what the model itself says behind a prompt, as reinforcement learning does: raises its likelihood."""

  def forward(params, batch, rng=None, context=None):
    logits = apply(model, params, batch["tokens"][:, :-1], rng=rng)
    said = jnp.take_along_axis(jax.nn.log_softmax(logits), batch["tokens"][:, 1:, None], axis=-1)
    return {"nll": -said[..., 0].mean(-1)}

  def collect(params, batch, rng, context):
    prompt = batch["tokens"][:, :3]
    return {**batch, "tokens": generate(model, params, prompt, max_new_tokens=4, temperature=1.0, rng=rng)}

  init = lambda rng, batch: model.init(rng, batch["tokens"])["params"]
  return Objective(init, forward, lambda outputs: (outputs["nll"].mean(), {}), collect=collect)


@pytest.fixture(autouse=True)
def toys(monkeypatch):
  """The family and the objective above, as files of the zoo would be."""
  files = {"models": carrying, "objectives": sampled}
  listed = registry._modules
  for package, function in files.items():
    module = types.ModuleType(f"zoo.{package}.{function.__name__}")
    setattr(module, function.__name__, function)
    module.VARIANTS = {}
    monkeypatch.setitem(sys.modules, module.__name__, module)
  monkeypatch.setattr(
    registry, "_modules", lambda package: [*listed(package), *(f.__name__ for p, f in files.items() if p == package)]
  )


@pytest.fixture
def folder(tmp_path):
  rng = np.random.default_rng(0)
  images = tmp_path / "images"
  for label in range(3):
    (images / str(label)).mkdir(parents=True)
    for i in range(16):
      pixels = rng.integers(0, 256, (4, 4, 3), np.uint8)
      Image.fromarray(pixels).save(images / str(label) / f"{i}.png")
  for i in range(5):
    (tmp_path / f"{i}.txt").write_text("".join(rng.choice(list("abc de\n"), 400)))
  return tmp_path


def config_of(folder, **changes):
  images = {"name": "labelled_images", "source": f"images:{folder}/images", "image_size": 4, "cache": True}
  config = {
    "seed": 3,
    "steps": 4,
    "batch_size": 16,
    "workdir": str(folder / "run"),
    "model": {"family": "carrying", **SIZES},
    "objective": {"name": "classify"},
    "data": {**images, "split": "train"},
    "optimizer": {"learning_rate": 1e-2, "ema": 0.9},
    "mesh": {"data": -1},
    "sharding": "replicated",
    "verify": "never",
    "eval": {},
  }
  return ConfigDict(with_defaults({**config, **changes}))


class Run:
  """An experiment's steps, without the loop around them."""

  def __init__(self, config, devices):
    self.mesh = make_mesh({"data": devices}, jax.devices()[:devices])
    self.made = experiment(config, self.mesh, offers={"generate": zoo.generate})
    self.step, self.collect = self.made.compiled_step(), self.made.compiled_collect()
    self.frozen = self.made.frozen_arguments(self.made.frozen.put())
    self.shapes = jax.tree.map(lambda x, s: x.update(sharding=s), self.made.shapes, self.made.placed)

  def start(self):
    return jax.jit(self.made.init, out_shardings=self.made.placed)(jax.random.key(3))

  def further(self, state, first, last):
    metrics = {}
    for n in range(first, last):
      batch = put_batch(self.made.batches[n], self.mesh)
      batch = batch if self.collect is None else self.collect(state, batch, *self.frozen)
      state, metrics, _ = self.step(state, batch, *self.frozen)
    return state, metrics


def text(folder):
  data = {"name": "language", "source": f"text:{folder}/*.txt", "tokenizer": "bytes", "max_length": 8, "cache": False}
  model = {"family": "gpt", "vocab_size": 260, "max_length": 8, "dim": 6, "depth": 1, "num_heads": 3}
  return {"model": model, "data": {**data, "split": "train"}, "objective": {"name": "sampled"}}


def distilled(folder):
  teacher = zoo.build("vit", **SIZES, patch_size=2, dim=6, depth=1, num_heads=3)
  zoo.save(folder / "teacher", teacher, teacher.init(jax.random.key(1), *teacher.example())["params"])
  student = {"family": "vit", **SIZES, "patch_size": 2, "dim": 4, "depth": 1, "num_heads": 2}
  return {"model": student, "objective": {"name": "distill"}, "frozen": {"teacher": str(folder / "teacher")}}


CASES = {"carried": lambda folder: {}, "distilled": distilled, "sampled": text}


@pytest.mark.parametrize("devices, accumulate", [(1, 1), (1, 2), (8, 1), (8, 2)])
@pytest.mark.parametrize("case", CASES)
def test_a_run_that_was_killed_goes_on_to_the_same_bits(folder, case, devices, accumulate):
  config = config_of(folder, **CASES[case](folder))
  config.optimizer.accumulate = accumulate
  run = Run(config, devices)
  whole, metrics = run.further(run.start(), 0, 4)
  assert all(np.isfinite(float(value)) for value in metrics.values())
  state, _ = run.further(run.start(), 0, 2)
  with Checkpoints(folder / "checkpoints") as saver:
    saver.save(2, state, wait=True)
    again, _ = Checkpoints(folder / "checkpoints").restore(run.shapes)
  resumed, _ = run.further(again, 2, 4)
  jax.tree.map(np.testing.assert_array_equal, resumed, whole)
  if case == "carried":
    assert float(jnp.abs(whole["rows"]["memory"]["before"]).max()) > 0
    spec = run.made.placed["rows"]["memory"]["before"].spec
    assert spec == run.made.by_row.spec
  else:
    assert not {"shared", "rows"} & set(whole)
  assert run.made.model_flops({name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in run.made.batches[0].items()})


def test_devices_and_parts_do_not_change_what_is_carried(folder):
  # Not by Adam: a bias before a norm has gradients of zero, of whose rounding it makes whole steps.
  config = config_of(folder, optimizer={"name": "sgd", "momentum": 0.0, "learning_rate": 0.1})
  one, eight = (Run(config, devices) for devices in (1, 8))
  alone, spread = (jax.device_get(run.further(run.start(), 0, 3)[0]) for run in (one, eight))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), alone, spread)


def test_statistics_are_saved_loaded_and_begun_from_with_the_parameters(folder):
  run = Run(config_of(folder), 1)
  state, _ = run.further(run.start(), 0, 3)
  zoo.save(folder / "saved", run.made.model, weights(state))
  model, loaded = zoo.load(folder / "saved")
  assert set(loaded) == {"params", "batch_stats"}
  jax.tree.map(np.testing.assert_array_equal, loaded, {"params": state["ema"], **state["ema_shared"]})
  image = np.random.default_rng(1).normal(size=(2, 4, 4, 3)).astype(np.float32)
  want = model.apply({"params": state["ema"], **state["ema_shared"]}, image)["logits"]
  np.testing.assert_array_equal(apply(model, loaded, image)["logits"], want)
  _, states = zoo.capture(model, loaded, image)
  # Statistics are averaged as the parameters that they are of: the mean lags behind.
  assert not np.array_equal(*(state[name]["batch_stats"]["norm"]["mean"] for name in ("shared", "ema_shared")))
  begun = load_into(folder / "saved", run.start(), model)
  for name in ("shared", "ema_shared"):
    jax.tree.map(np.testing.assert_array_equal, begun[name], state["ema_shared"])
  jax.tree.map(np.testing.assert_array_equal, begun["params"], state["ema"])


def test_a_checkpoint_of_an_unfinished_run_has_its_statistics(folder):
  config = config_of(folder)
  run = Run(config, 1)
  state, _ = run.further(run.start(), 0, 2)
  (folder / "run").mkdir()
  loading.save(config, folder / "run")
  with Checkpoints(folder / "run" / "checkpoints") as saver:
    saver.save(2, state, wait=True)
  _, loaded = zoo.load(folder / "run")
  jax.tree.map(np.testing.assert_array_equal, loaded, weights(state))


def test_a_batch_is_replayed_with_what_was_carried_into_it(folder):
  config = config_of(folder)
  run = Run(config, 1)
  state, metrics = run.further(run.start(), 0, 3)
  path = keep(folder, 3, run.made.batches[2], 0, 1)
  told = replay(path, run.made, run.mesh, folder / "none", run.start)
  assert f"loss {float(metrics['loss']):.4g}"[:9] in told, (told, metrics)


@pytest.mark.parametrize(
  "entry, message",
  [
    (3, "frozen.teacher is 3. It must be a folder or an id, or a section with a 'source'"),
    ({"folder": "x"}, "frozen.teacher is .* It must be a folder or an id"),
    ("nowhere", "frozen.teacher: .*nowhere"),
  ],
)
def test_frozen_models_that_are_none_are_refused(folder, entry, message):
  with pytest.raises(UserError, match=message):
    Run(config_of(folder, frozen={"teacher": entry}, objective={"name": "distill"}), 1)


def test_a_frozen_model_may_be_a_section_with_options_of_load(folder):
  changes = distilled(folder)
  changes["frozen"] = {"teacher": {"source": changes["frozen"]["teacher"], "dtype": "bfloat16"}}
  frozen = Run(config_of(folder, **changes), 1).made.frozen
  assert {x.dtype.name for x in jax.tree.leaves(frozen.params)} == {"bfloat16"}


@pytest.mark.parametrize(
  "teacher, student, message",
  [
    ({"num_classes": 5}, {}, r"The teacher gives logits \(1, 5\), the student \(1, 3\). Set num_classes alike."),
    ({"image_size": 8}, {}, r"The teacher takes images \(8, 8, 3\), the student \(4, 4, 3\). Set image_size."),
    ({}, {"preprocessing": {"image": {"mean": [0.1] * 3, "std": [0.2] * 3}}}, "The teacher's pixels are x / 127.5 - 1"),
    ({"num_classes": None}, {}, "distill needs a model that gives logits"),
  ],
)
def test_teachers_that_do_not_fit_are_refused_before_training(folder, teacher, student, message):
  changes = distilled(folder)
  model = zoo.build("vit", **{**SIZES, "patch_size": 2, "dim": 6, "depth": 1, "num_heads": 3, **teacher})
  zoo.save(folder / "other", model, model.init(jax.random.key(1), *model.example())["params"])
  changes |= {"frozen": {"teacher": str(folder / "other")}, "model": {**changes["model"], **student}}
  with pytest.raises(UserError, match=message):
    Run(config_of(folder, **changes), 1)


def test_another_teacher_is_another_run_and_the_order_of_keys_is_none(folder):
  config = config_of(folder, **distilled(folder))
  config.optimizer.groups = [{"params": ["head/.*"], "learning_rate": 0.1}]
  (folder / "run").mkdir()
  loading.save(config, folder / "run")
  loading.check_same_run(config, folder / "run")
  config.frozen.teacher = "another"
  with pytest.raises(UserError, match="holds another run: frozen.teacher: .* -> .*another"):
    loading.check_same_run(config, folder / "run")


def test_distilling_needs_a_teacher(folder):
  with pytest.raises(UserError, match="distill needs a teacher. Set frozen.teacher"):
    Run(config_of(folder, objective={"name": "distill"}), 1)
