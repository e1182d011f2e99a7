"""A toy family that carries statistics and a memory, objectives for it, and their runs without the loop around them."""

import sys
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

import zoo
from zoo.config import registry
from zoo.config.schema import with_defaults
from zoo.layers.stack import stack
from zoo.models.model import Model
from zoo.objectives.distill import distill
from zoo.objectives.objective import Objective, apply
from zoo.sharding import make_mesh
from zoo.sharding.batches import put_batch
from zoo.train.experiment import experiment

SIZES = {"image_size": 4, "num_classes": 3}


class Carries(nn.Module):
  """A layer with a batch normalisation, and in training a memory of what it made of the batch before."""

  dtype: str | None = None

  @nn.compact
  def __call__(self, x, train=False):
    x = nn.Dense(x.shape[-1], dtype=self.dtype, name="dense")(x)
    x = nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=self.dtype, name="norm")(x)
    if train or self.is_initializing():
      memory = self.variable("memory", "before", jnp.zeros, x.shape)
      x = x + nn.Dense(x.shape[-1], use_bias=False, dtype=self.dtype, name="read")(memory.value)
      if train:
        memory.value = jax.lax.stop_gradient(x)
    return jnp.tanh(x)


class Carrying(Model):
  """A classifier of images by such layers."""

  stack: nn.Module
  dim: int
  num_classes: int
  image_size: int
  channels: int
  carries = {"batch_stats": "shared", "memory": "rows"}

  @nn.compact
  def __call__(self, image, train=False):
    x = nn.Dense(self.dim, name="dense")(image.reshape(len(image), -1))
    return {"logits": nn.Dense(self.num_classes, name="classify")(self.stack(x, train=train))}

  @nn.nowrap
  def example(self, batch_size=1):
    return (jnp.zeros((batch_size, self.image_size, self.image_size, self.channels)),)


def carrying(
  *,
  dim: int = 8,
  depth: int = 2,
  num_classes: int = 3,
  image_size: int = 4,
  channels: int = 3,
  scan: bool = True,
  dtype: str | None = None,
):
  return Carrying(stack(Carries(dtype), depth, scan=scan), dim, num_classes, image_size, channels)


class Playing(Model):
  """A generator of images, and a discriminator that tells them from others: two players."""

  generator: nn.Module
  discriminator: nn.Module
  image_size: int
  channels: int

  @nn.compact
  def __call__(self, image, train=False):
    image = image.reshape(len(image), -1)
    drawn = self.generator(image)
    tell = lambda image: self.discriminator(jnp.tanh(image))[:, 0]
    return {"drawn": drawn, "of_drawn": tell(drawn), "of_image": tell(image)}

  @nn.nowrap
  def example(self, batch_size=1):
    return (jnp.zeros((batch_size, self.image_size, self.image_size, self.channels)),)


def playing(*, image_size: int = 4, channels: int = 3, dtype: str | None = None):
  return Playing(nn.Dense(image_size**2 * channels, dtype=dtype), nn.Dense(1, dtype=dtype), image_size, channels)


def taught(model, *, frozen):
  """`distill`, with a pull of the parameters towards zero that grows with the steps."""

  def penalty(params, context):
    size = sum((x**2).sum() for x in jax.tree.leaves(params))
    return 1e-3 * context.step * size, {"size": size}

  return distill(model, frozen=frozen)._replace(penalty=penalty)


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


def played(model):
  """Two players in one loss. The discriminator also learns from what the generator drew before the step, of noise."""

  def forward(params, batch, rng=None, context=None):
    fixed = jax.lax.stop_gradient(params)
    generator = apply(model, {**fixed, "generator": params["generator"]}, batch["image"], rng=rng)
    discriminator = {**fixed, "discriminator": params["discriminator"]}
    real, drawn = (apply(model, discriminator, batch[name], rng=rng) for name in ("image", "drawn"))
    tell = jax.nn.softplus(-real["of_image"]) + jax.nn.softplus(real["of_drawn"]) + jax.nn.softplus(drawn["of_image"])
    return {"generator": jax.nn.softplus(-generator["of_drawn"]), "discriminator": tell}

  def collect(params, batch, rng, context):
    noise = jax.random.normal(rng, batch["image"].shape)
    return {**batch, "drawn": apply(model, params, noise)["drawn"].reshape(noise.shape)}

  init = lambda rng, batch: model.init(rng, batch["image"])["params"]
  return Objective(init, forward, lambda outputs: (sum(x.mean() for x in outputs.values()), {}), collect=collect)


FILES = {"models": [carrying, playing], "objectives": [played, sampled, taught]}


def install(replace=setattr, register=sys.modules.__setitem__):
  """Makes them files of the zoo, as it were: for a process, or with pytest's monkeypatch for a test."""
  listed = registry._modules
  for package, functions in FILES.items():
    for function in functions:
      module = types.ModuleType(f"zoo.{package}.{function.__name__}")
      setattr(module, function.__name__, function)
      module.VARIANTS = {}
      register(module.__name__, module)
  names = {package: [function.__name__ for function in functions] for package, functions in FILES.items()}
  replace(registry, "_modules", lambda package: [*listed(package), *names.get(package, [])])


def write_data(folder):
  """Images of three classes, texts, and a teacher of these classes."""
  rng = np.random.default_rng(0)
  images = folder / "images"
  for label in range(3):
    (images / str(label)).mkdir(parents=True)
    for i in range(16):
      pixels = rng.integers(0, 256, (4, 4, 3), np.uint8)
      Image.fromarray(pixels).save(images / str(label) / f"{i}.png")
  for i in range(5):
    (folder / f"{i}.txt").write_text("".join(rng.choice(list("abc de\n"), 400)))


def settings(folder, **changes):
  """A config's sections."""
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
  return {**config, **changes}


def config_of(folder, **changes):
  return ConfigDict(with_defaults(settings(folder, **changes)))


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


def everything(folder):
  """Statistics, a memory, a teacher and a penalty at once."""
  return {"objective": {"name": "taught"}, "frozen": distilled(folder)["frozen"]}


def players(folder):
  """Two players, each with an optimizer of its own, that learn from samples of the current parameters."""
  discriminator = {"params": ["discriminator/.*"], "name": "sgd", "momentum": 0.9, "learning_rate": 0.1}
  optimizer = {"learning_rate": 1e-2, "ema": 0.9, "groups": [discriminator]}
  return {"model": {"family": "playing"}, "objective": {"name": "played"}, "optimizer": optimizer}
