"""A family with running statistics, in the hub's layout and in the zoo's own: they travel with the parameters."""

import json
import sys
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import zoo
from zoo.config import registry
from zoo.convert.rules.layouts import CONV, Rule, batch_norm, linear
from zoo.convert.rules.options import Key
from zoo.errors import UserError
from zoo.hub import loading, tables
from zoo.layers.stack import stack
from zoo.models.model import Model
from zoo.sharding import make_mesh

SIZES = {"image_size": 5, "channels": 3, "dim": 8, "depth": 5, "num_classes": 7}


class Convolution(nn.Module):
  """x + relu(norm(convolution(x))), the norm only where there is one."""

  normed: bool

  @nn.compact
  def __call__(self, x, train=False):
    y = nn.Conv(x.shape[-1], (3, 3), padding=1, use_bias=False, name="conv")(x)
    norm = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, name="norm")
    return x + nn.relu(norm(y) if self.normed else y)


class ConvNet(Model):
  """A stem and layers of which every other one is normed."""

  stack: nn.Module
  dim: int
  num_classes: int
  image_size: int
  channels: int
  carries = {"batch_stats": "shared"}

  @nn.compact
  def __call__(self, image, train=False):
    x = nn.Conv(self.dim, (1, 1), use_bias=False, name="stem")(image)
    x = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, name="norm")(x)
    x = self.stack(x, train=train).mean((1, 2))
    return {"logits": nn.Dense(self.num_classes, name="classify")(x)}

  @nn.nowrap
  def example(self, batch_size=1):
    return (jnp.zeros((batch_size, self.image_size, self.image_size, self.channels)),)


def convnet(*, dim: int, depth: int, num_classes: int, image_size: int, channels: int = 3, scan: bool | None = None):
  layers = stack((Convolution(False), Convolution(True)), depth, scan=scan)
  return ConvNet(layers, dim, num_classes, image_size, channels)


TABLE = types.ModuleType("zoo.convert.convnet")
KEYS = [Key(name, name) for name in SIZES]
PARAMS, FILE = "params.safetensors", "model.safetensors"


def rules(sizes):
  conv = lambda ours, theirs: [Rule(f"{ours}/kernel", f"{theirs}.weight", CONV)]
  layers = [*conv("stem", "stem.0"), *batch_norm("norm", "stem.1"), *linear("classify", "classify")]
  for i in range(sizes["depth"]):
    layers += conv(f"stack/layer_{i}/conv", f"layers.{i}.conv")
    layers += batch_norm(f"stack/layer_{i}/norm", f"layers.{i}.norm") if i % 2 else []
  return layers


@pytest.fixture(autouse=True)
def family(monkeypatch):
  """The family and its table, as files of the zoo would be."""
  module = types.ModuleType("zoo.models.convnet")
  module.__dict__.update(convnet=convnet, VARIANTS={})
  TABLE.__dict__.update(
    MODEL_TYPES=("convnet",),
    HEADS={None: ("ConvNet",)},
    head_of=lambda sizes: None,
    with_head=lambda sizes, head: sizes,
    sizes=lambda options, head, tensors: options.sizes(KEYS),
    config=lambda sizes: {"model_type": "convnet", **{name: sizes[name] for name in SIZES}},
    rules=rules,
  )
  for one in (module, TABLE):
    monkeypatch.setitem(sys.modules, one.__name__, one)
  listed, families = registry._modules, tables.families
  monkeypatch.setattr(registry, "_modules", lambda of: [*listed(of), *["convnet"] * (of == "models")])
  monkeypatch.setattr(tables, "families", lambda: [*families(), "convnet"])


def published(folder):
  """A torch model of these sizes with statistics of its own, saved as the hub has it -> the torch model."""
  torch = pytest.importorskip("torch")

  class Layer(torch.nn.Module):
    def __init__(self, normed):
      super().__init__()
      self.conv = torch.nn.Conv2d(8, 8, 3, padding=1, bias=False)
      self.norm = torch.nn.BatchNorm2d(8) if normed else torch.nn.Identity()

    def forward(self, x):
      return x + torch.relu(self.norm(self.conv(x)))

  class Net(torch.nn.Module):
    def __init__(self):
      super().__init__()
      self.stem = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 1, bias=False), torch.nn.BatchNorm2d(8))
      self.layers = torch.nn.Sequential(*(Layer(i % 2 == 1) for i in range(SIZES["depth"])))
      self.classify = torch.nn.Linear(8, 7)

    def forward(self, x):
      return self.classify(self.layers(self.stem(x)).mean((2, 3)))

  torch.manual_seed(0)
  net = Net()
  with torch.no_grad():
    for _ in range(3):  # Its statistics are of these images, no longer zeros and ones.
      net(torch.randn(5, 3, 5, 5) * 2 + 1)
  folder.mkdir()
  save_file({name: tensor.numpy() for name, tensor in net.state_dict().items()}, folder / FILE)
  (folder / "config.json").write_text(json.dumps({"architectures": ["ConvNet"], "model_type": "convnet", **SIZES}))
  return net.eval()


def torch_logits(net, image):
  import torch

  with torch.no_grad():
    return net(torch.from_numpy(image.transpose(0, 3, 1, 2).copy())).numpy()


def test_running_statistics_are_read_and_written_as_torch_has_them(tmp_path):
  net = published(tmp_path / "published")
  image = np.random.default_rng(0).standard_normal((2, 5, 5, 3), np.float32)
  want = torch_logits(net, image)
  mesh = make_mesh({"data": -1})
  model, weights = zoo.load(tmp_path / "published", mesh=mesh, strategy="fsdp")
  assert set(weights) == {"params", "batch_stats"} == set(model.init(jax.random.key(0), image))
  np.testing.assert_allclose(jax.jit(model.apply)(weights, image)["logits"], want, atol=1e-5)

  zoo.save_hf(tmp_path / "again", model, weights)
  tensors, before = (load_file(tmp_path / name / FILE) for name in ("again", "published"))
  assert tensors.keys() == before.keys()
  for name, tensor in tensors.items():
    assert tensor.dtype == before[name].dtype
    # Torch counts batches, and does not use the count; the zoo has none.
    np.testing.assert_array_equal(tensor, 0 if name.endswith("num_batches_tracked") else before[name])
  scanned = zoo.build("convnet", **SIZES, scan=True)
  read = loading.read_params(loading.open_tensors(tmp_path / "again"), TABLE, scanned, "here")
  np.testing.assert_allclose(jax.jit(scanned.apply)(read, image)["logits"], want, atol=1e-5)
  zoo.save_hf(tmp_path / "scanned", scanned, read)
  assert (tmp_path / "scanned" / FILE).read_bytes() == (tmp_path / "again" / FILE).read_bytes()

  for folder, weights_of_it in ((tmp_path / "loop", weights), (tmp_path / "scan", read)):
    zoo.save(folder, zoo.build("convnet", **SIZES, scan=folder.name == "scan"), weights_of_it)
  assert (tmp_path / "loop" / PARAMS).read_bytes() == (tmp_path / "scan" / PARAMS).read_bytes()
  _, loaded = zoo.load(tmp_path / "scan", dtype="bfloat16")
  jax.tree.map(np.testing.assert_array_equal, loaded["batch_stats"], read["batch_stats"])
  assert {x.dtype.name for x in jax.tree.leaves(loaded["params"])} == {"bfloat16"}


def test_parameters_alone_are_not_the_whole_model(tmp_path):
  model = zoo.build("convnet", **SIZES)
  params = model.init(jax.random.key(0), *model.example())["params"]
  for save in (zoo.save, zoo.save_hf):
    with pytest.raises(UserError, match="6 missing .batch_stats/norm/mean, "):
      save(tmp_path / "saved", model, params)
