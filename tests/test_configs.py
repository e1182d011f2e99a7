"""Every recipe in configs/, shrunk, trains through train.py itself; the full-size ones fit where they are meant to."""

import ast
import itertools
import json
import math
import signal
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

import train
import zoo
from tests.data import toys
from tests.filled import filled
from zoo import optim, sharding
from zoo.config import loading

ROOT = Path(__file__).parent.parent
CONFIGS = sorted(ROOT.glob("configs/*.py"))
# One that names a task has no model or data of its own: tests/finetune trains it.
RECIPES = [path for path in CONFIGS if "task" not in loading.read_config(path)]

# Each config gets the next of these: all devices, and a sharding that is not the one it is written with.
PLACES = [("fsdp", {"data": 8}), ("tensor", {"data": 2, "model": 4}), ("fsdp+tensor", {"data": 4, "model": 2})]
PLACED = [pytest.param(path, *place, id=path.stem) for path, place in zip(RECIPES, itertools.cycle(PLACES))]

# These run in a form of their loss that holds less; on one device all of them hold the whole.
FORMS = {
  "clip_emoji": {"pairs": "ring"},
  "siglip_emoji": {"pairs": "all_gather", "chunk": 3},
  "gpt_sotu": {"chunk": 32},
  "bert_sotu": {"chunk": 32},
  "t5_pretrain": {"chunk": 32},
}


def first_of_their_kind():
  """The configs whose losses are compared with one device's: of each kind of data and loss the first, and every form.

  What a mesh does to a family is compared in tests/models/test_families_on_meshes.py.
  """
  first: dict[tuple, str] = {}
  for path in RECIPES:
    written = loading.read_config(path)
    kind = (written["objective"]["name"], written["data"]["name"], json.dumps(FORMS.get(path.stem)))
    first.setdefault(kind, path.stem)
  return set(first.values())


COMPARED = first_of_their_kind()

TOWER = {"dim": 16, "depth": 1, "num_heads": 4}
IMAGE = {"image_size": 16, "patch_size": 8}
TEXT = {"max_length": 16}
SMALL = {
  "gpt": TOWER | TEXT,
  "llama": TOWER | TEXT | {"mlp_dim": 24},
  "bert": TOWER | TEXT,
  "sentence_bert": TOWER | TEXT,
  "vit": TOWER | IMAGE,
  "transformer": TOWER,
  "transformer_xl": TOWER | {"memory_length": 8},
  "rnn": {"dim": 16, "depth": 1},
  "hierarchical": {"depth": 1, "num_heads": 4},  # Its encoder is shrunk like one that is alone.
  "longformer": TOWER | TEXT | {"window": 8},
  "reformer": TOWER | TEXT | {"mlp_dim": 24, "axial_shape": [4, 4], "axial_dims": [4, 12]},
  "t5": TOWER,
  "clip": {f"{tower}_{size}": n for tower in ("image", "text") for size, n in (("dim", 16), ("depth", 1), ("heads", 4))}
  | {"embed_dim": 24}
  | IMAGE
  | TEXT,
}
# What is read of the shipped datasets: for training, for evaluation.
SPLITS = {
  "tfds:sotu": ("train[:2]+train[-2:]", "test[:2]"),  # Of two periods.
  "tfds:emoji": ("train[:80]", "test[:40]"),
  "tfds:digits": ("train[:200]", "test[:40]"),
}
OF_A_USER = dict.fromkeys(("tfds", "webdataset"), ("train[:75%]", "train[75%:]"))
OF_A_USER["jsonl"] = ("train[:95%]", "train[95%:]")

PUBLISHED = {
  "gpt2_owt": 124_439_808,
  "bert_wiki": 110_106_428,
  "vit_b16_i1k": 86_567_656,
  "clip_b16_laion": 149_620_737,
}


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
  """Where TFDS prepares the shipped datasets, once."""
  return tmp_path_factory.mktemp("tfds")


@pytest.fixture(scope="session")
def own_data(tmp_path_factory):
  """What a user brings: kind of source in a config -> the source that stands for it."""
  folder, rng = tmp_path_factory.mktemp("own"), np.random.default_rng(0)
  words = ["the", "sea", "is", "wide", "and", "old", "ships", "sail"]
  # Over a hundred: of a dozen, Grain's shuffle takes 2 ms for each.
  texts = [" ".join(f"{' '.join(rng.choice(words, 9)).capitalize()}." for _ in range(4)) for _ in range(128)]
  labels = ["negative", "positive"]
  toys.write_jsonl(
    folder / "texts.jsonl",
    [{"text": text, "label": labels[n % 2], "source": text, "target": text[:20]} for n, text in enumerate(texts)],
  )
  drawings = [toys.png(tuple(map(int, rng.integers(0, 256, 3))), (20, 17 + n)) for n in range(24)]
  toys.write(folder / "classes", {f"class_{n % 3}/{n}.png": drawing for n, drawing in enumerate(drawings)})
  pairs = {f"{n}.png": drawing for n, drawing in enumerate(drawings)}
  toys.write_tar(folder / "shard.tar", pairs | {f"{n}.txt": f"Picture {n}" for n in range(24)})
  for path in CONFIGS:  # Runs of the recipes, for those that learn from them.
    if any(
      run == f"runs/{path.stem}" for other in CONFIGS for run in loading.read_config(other).get("frozen", {}).values()
    ):
      section = loading.read_config(path)["model"]
      model = zoo.build(**{**section, **SMALL[section["family"]]})
      zoo.save(folder / path.stem, model, filled(model, *model.example()))
  return {
    "runs": folder,
    "jsonl": f"jsonl:{folder}/*.jsonl",
    "webdataset": f"webdataset:{folder}/*.tar",
    "tfds": f"images:{folder}/classes",
  }


@pytest.fixture(autouse=True)
def nothing_is_left_behind(monkeypatch, tmp_path_factory):
  """Caches in a temporary folder; the handler of SIGTERM that a run sets is taken back."""
  monkeypatch.setenv("ZOO_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
  handler = signal.getsignal(signal.SIGTERM)
  yield
  signal.signal(signal.SIGTERM, handler)


def shrunk(path, data_dir, own_data):
  """The command line that makes a config small enough for a test, as a user would write it."""
  written = loading.read_config(path)
  family = written["model"]["family"]
  assert family in SMALL, f"{path.name} trains {family}: add small sizes of it to SMALL in tests/test_configs.py"
  model = dict(SMALL[family])
  if "stem_dims" in written["model"]:
    model |= {"stem_dims": [4] * len(written["model"]["stem_dims"])}
  model |= {"dtype": "float32"} if "dtype" in written["model"] else {}  # bfloat16 sums depend on where they are made.
  changes = {"steps": 3, "batch_size": 16, "log.every": 1, "optimizer.warmup_steps": 0, "data.workers": 0}
  changes["verify"] = "never"  # The test compares with one device itself.
  # Adam turns a gradient of 1e-9, which is rounding, into a whole step; so large an eps it does not.
  changes |= {} if written["optimizer"]["name"] == "adafactor" else {"optimizer.eps": 1e-5}
  changes |= {f"model.{size}": value for size, value in model.items()}
  if written.get("init"):  # Weights that are not here, and patterns of layers that a small model has not.
    changes |= {"init": "none", "optimizer.multipliers": "[]"}
  if "encoder" in written["model"]:
    changes |= {f"model.encoder.{size}": value for size, value in SMALL[written["model"]["encoder"]["family"]].items()}
  for name, run in written.get("frozen", {}).items():
    changes[f"frozen.{name}"] = own_data["runs"] / Path(run).name
  for entry, source in loading.flatten(written):
    section, _, key = entry.rpartition(".")
    if key == "source":
      is_shipped = source in SPLITS
      changes[entry] = source if is_shipped else own_data[source.partition(":")[0]]
      changes[f"{section}.data_dir"] = data_dir if is_shipped else "none"
    elif key == "split":
      of_the_run = written["data"].get("source") or written["data"]["data"]["source"]
      of_the_section = dict(loading.flatten(written)).get(f"{section}.source", of_the_run)
      train_split, test_split = SPLITS.get(of_the_section, OF_A_USER[of_the_section.partition(":")[0]])
      is_for_training = section.split(".")[0] == "data" or section.endswith(".train_data")
      changes[entry] = train_split if is_for_training else test_split
    elif key == "tokenizer" and "/" in source:
      changes[entry] = "sotu"  # One that was learnt from texts that are not here, and is no larger.
    elif key == "target_length":
      changes[entry] = 12
    elif key in ("image_size", "max_length") and section != "model":
      changes[entry] = {**IMAGE, **TEXT}[key]
    elif key == "batch_size" and section:
      changes[entry] = 16
    elif key == "max_new_tokens":
      changes[entry] = 3
    elif key == "decay_steps":
      changes[entry] = 2
  return [f"--config={path}", *(f"--config.{entry}={value}" for entry, value in changes.items())]


def train_with(command, workdir, *more):
  """Runs train.py in this process -> the losses, the last line of metrics."""
  assert train.main([*command, f"--config.workdir={workdir}", *more, "--traceback"]) == 0
  lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  return [line["loss"] for line in lines if "loss" in line], lines[-1]


@pytest.mark.slow
@pytest.mark.parametrize("path, strategy, mesh", PLACED)
def test_every_config_trains_and_neither_a_sharding_nor_a_form_of_the_loss_changes_its_losses(
  path, strategy, mesh, tmp_path, data_dir, own_data, monkeypatch
):
  command = shrunk(path, data_dir, own_data)
  if any(
    evaluator.get("name") == "generation" for evaluator in loading.read_config(path)["eval"]["evaluators"].values()
  ):
    pytest.importorskip("sacrebleu")
    pytest.importorskip("rouge_score")
  placed = [f"--config.mesh={json.dumps(mesh)}", f"--config.sharding={strategy}"]
  placed += [f"--config.objective.{option}={value}" for option, value in FORMS.get(path.stem, {}).items()]
  losses, last = train_with(command, tmp_path / "many", *placed)
  assert len(losses) == 3 and np.isfinite(losses).all()
  evaluators = loading.read_config(path)["eval"]["evaluators"]
  measured = {name.split("/")[1] for name in last if name.startswith("eval/")}
  assert measured == set(evaluators)
  model, params = zoo.load(tmp_path / "many")
  assert set(SMALL[model.spec["family"]]) <= set(model.spec) and params
  if path.stem not in COMPARED:
    return

  unmeasured = ["--config.eval.evaluators={}"]
  unmeasured += ["--config.checkpoint.best=none"] if "best" in loading.read_config(path).get("checkpoint", {}) else []
  one_device = partial(sharding.make_mesh, devices=jax.devices()[:1])
  monkeypatch.setattr(sharding, "make_mesh", one_device)
  alone, _ = train_with(
    command,
    tmp_path / "one",
    '--config.mesh={"data": 1}',
    "--config.sharding=replicated",
    *unmeasured,
  )
  np.testing.assert_allclose(losses, alone, rtol=1e-5)


def state_shapes(settings):
  """The model of a config at its full size, and the shapes of the state that train.py makes for it."""
  model = zoo.build(**settings.model)

  def init(rng):
    params = model.init(rng, *model.example())["params"]
    options = loading.without(settings.optimizer, "accumulate", "ema")
    state = {"params": params, "opt_state": optim.optimizer(params, settings.steps, **options)[0].init(params)}
    return state | ({"ema": params} if "ema" in settings.optimizer else {})

  return model, jax.eval_shape(init, jax.random.key(0))


def test_every_full_size_config_is_looked_at():
  assert set(PUBLISHED) == {path.stem for path in CONFIGS if "variant" in loading.read_config(path)["model"]}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_full_size_config_is_of_its_published_size_and_fits_8_devices_in_every_sharding(name):
  settings, _ = loading.load([f"--config={ROOT}/configs/{name}.py"])
  _, shapes = state_shapes(settings)
  assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes["params"])) == PUBLISHED[name]
  mesh, held = sharding.make_mesh({"data": 2, "model": 4}), {}
  for strategy in sharding.STRATEGIES:
    placed = sharding.shardings(shapes, strategy, mesh)
    pieces = jax.tree.map(lambda leaf, place: math.prod(place.shard_shape(leaf.shape)), shapes, placed)
    held[strategy] = sum(jax.tree.leaves(pieces))
  assert held["replicated"] == sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
  assert (
    held["fsdp+tensor"] < min(held["fsdp"], held["tensor"]) < max(held["fsdp"], held["tensor"]) < held["replicated"]
  )
  assert held["fsdp+tensor"] < held["replicated"] / 5


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_says_first_which_command_runs_it(path):
  says = ast.get_docstring(ast.parse(path.read_text())) or ""
  assert f"python train.py --config=configs/{path.name}" in says
  settings, _ = loading.load([f"--config={path}"])
  assert settings.workdir == f"runs/{path.stem}"
