"""Compares tiny models on random meshes, strategies and lengths with one device, loss and every gradient.

    python -m scripts.sharding_fuzz --seed=0 --cases=20
    python -m scripts.sharding_fuzz --seed=0 --cases=20 --rules

Families, sizes, meshes (2 x 2, 4 x 2, 2 x 2 x 2, slices), strategies, lengths that may not divide, accumulation and
forms of the loss are drawn by the seed. With --rules so are lines of `sharding` and `activations`, as a user may write
them: XLA gets some of these wrong, and which it is that differs is shown. Simulated devices do: set
XLA_FLAGS=--xla_force_host_platform_device_count=8. Exits with status 1 if a case without rules of its own differs.
"""

import argparse
import json
import pathlib
import random
import sys
import tempfile
from typing import Any

import jax

from zoo import sharding
from zoo.config import loading
from zoo.errors import UserError
from zoo.plan.fake_data import with_fake_data
from zoo.train.experiment import experiment
from zoo.verify.comparison import Verdict, compare

TEXT = {"name": "language", "source": "text:here", "tokenizer": "bytes", "cache": False}
SENTENCES = {**TEXT, "name": "sentence_pairs"}
IMAGES = {"name": "labelled_images", "source": "images:here"}
PAIRS = {"name": "image_text", "source": "webdataset:here", "tokenizer": "bytes"}
MASKED = {"mask_token": 259, "special_tokens": [256, 257, 258]}
# family -> objective, its options, data
FAMILIES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
  "gpt": ("causal_lm", {}, TEXT),
  "llama": ("causal_lm", {}, TEXT),
  "mixtral": ("causal_lm", {}, TEXT),
  "bert": ("masked_lm", MASKED, TEXT),
  "modernbert": ("masked_lm", MASKED, TEXT),
  "t5": ("seq2seq", {}, {**TEXT, "name": "text_pairs"}),
  "bart": ("seq2seq", {}, {**TEXT, "name": "text_pairs"}),
  "vit": ("classify", {}, IMAGES),
  "clip": ("contrastive", {}, PAIRS),
  "siglip": ("sigmoid_contrastive", {}, PAIRS),
}
MESHES: tuple[dict[str, int], ...] = (
  {"data": 2, "model": 2},
  {"data": 4, "model": 2},
  {"data": 2, "model": 4},
  {"data": 2, "sequence": 2},
  {"data": 2, "model": 2, "sequence": 2},
  {"slice": 2, "data": 2, "model": 2},
  {"slice": 2, "data": 2, "sequence": 2},
)
EXPERTS = {"data": 2, "expert": 2, "model": 2}


def draw(rng: random.Random, folder: pathlib.Path, families: list[str], rules: bool = False) -> dict[str, Any]:
  """A config as `train.py` has it, of a tiny model; its made-up data lie in `folder`."""
  family = rng.choice(families)
  objective, options, data = FAMILIES[family]
  mesh = rng.choice([*MESHES, EXPERTS] if family == "mixtral" else MESHES)
  heads = rng.choice([2, 4]) * max(1, mesh.get("model", 1) // 2)
  tower = {"dim": heads * rng.choice([2, 4, 6]), "depth": rng.choice([1, 2]), "num_heads": heads}
  length, side = rng.choice([8, 9, 12, 13]), rng.choice([8, 12])
  text = {"vocab_size": rng.choice([260, 261, 263, 264]), "max_length": length}
  image = {"image_size": side, "patch_size": 4}
  if family in ("clip", "siglip"):
    both = {f"{part}_{size}": n for part in ("image", "text") for size, n in tower.items() if size != "num_heads"}
    model = {**image, **text, **both, "image_heads": heads, "text_heads": heads}
    model |= {"embed_dim": rng.choice([6, 8]), "stem_dims": rng.choice([[], [4]])} if family == "clip" else {}
    options = options | rng.choice([{}, {"pairs": "ring"}, {"pairs": "all_gather", "chunk": 1}])
  elif family == "vit":
    model = {**image, **tower, "num_classes": rng.choice([5, 8])}
  else:
    model = {**text, **tower}
    model |= {"mlp_dim": rng.choice([8, 16])} if family in ("llama", "mixtral", "modernbert") else {}
    model |= {"num_experts": 4, "top_k": 2} if family == "mixtral" else {}
    options = options | rng.choice([{}, {"chunk": 24}])
  if family == "t5":
    del model["max_length"]
  sizes = {"image_size": side} if "image_size" in model else {}
  sizes |= {"max_length": length + (objective == "causal_lm")} if family != "vit" else {}
  model |= {"dropout": rng.choice([0.0, 0.1]), "scan": rng.choice([True, False])}
  names = ["replicated", "fsdp", "tensor", "fsdp+tensor"]
  strategy = rng.choice([name for name in names if "tensor" not in name or "model" in mesh])
  return {
    "seed": rng.randrange(1000),
    "steps": 1,
    "batch_size": 16,
    "workdir": str(folder / "run"),
    "model": {"family": family, **model},
    "objective": {"name": objective, **options},
    "data": with_fake_data({**data, **sizes, "split": "train"}, folder),
    "optimizer": {"learning_rate": 1e-3, "accumulate": rng.choice([1, 1, 2])},
    "mesh": mesh,
    "sharding": [*_lines(rng, mesh), strategy] if rules else strategy,
    "activations": _rules(rng, mesh) if rules else [],
    "eval": {},
  }


def _lines(rng: random.Random, mesh: dict[str, int]) -> list[Any]:
  kernels = ("(query|key|value)/kernel", "out/kernel", "up/kernel", "down/kernel")
  return [[pattern, _placement(rng, mesh, 2)] for pattern in rng.sample(kernels, 2)]


def _rules(rng: random.Random, mesh: dict[str, int]) -> list[Any]:
  parts = ("layers|layer_0", "query", "key", "value", "up", "down", "self_attention|feed_forward")
  return [[pattern, _placement(rng, mesh, 3)] for pattern in rng.sample(parts, 3)]


def _placement(rng: random.Random, mesh: dict[str, int], dimensions: int) -> list[Any]:
  """Axes at random over dimensions, none twice."""
  parts: list[Any] = [None] * dimensions
  for axis in mesh:
    if (place := rng.randrange(dimensions + 1)) < dimensions:
      parts[place] = axis if parts[place] is None else [*sharding.axes_of(_tuple(parts[place])), axis]
  return parts


def _tuple(part: Any) -> Any:
  return tuple(part) if isinstance(part, list) else part


def outcome(settings: dict[str, Any], folder: pathlib.Path) -> Verdict:
  """What comes of a config on as many of the devices as its mesh has.

  Raises:
    UserError: the config does not fit together.
  """
  path = folder / "config.json"
  path.write_text(json.dumps(settings))
  loaded, _ = loading.load([f"--config={path}"])
  size = 1
  for axis in settings["mesh"].values():
    size *= axis
  mesh = sharding.make_mesh(loaded.mesh, jax.devices()[:size])
  return compare(loaded, experiment(loaded, mesh), mesh)


def told(settings: dict[str, Any]) -> str:
  """A case in one line."""
  shown = ("model", "objective", "mesh", "sharding", "activations", "optimizer")
  return json.dumps({name: settings[name] for name in shown})


def main() -> int:
  """Runs the cases; returns the exit status."""
  parser = argparse.ArgumentParser(description="Compares random placements with one device.")
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--cases", type=int, default=20)
  parser.add_argument("--families", default=",".join(FAMILIES), help="of which to draw")
  parser.add_argument("--rules", action="store_true", help="draws lines of sharding and activations too")
  asked = parser.parse_args()
  counts = {"right": 0, "wrong": 0, "refused": 0}
  for number in range(asked.cases):
    rng = random.Random(
      f"{asked.seed} {number}"
    )  # A case can be run alone: --cases and what is drawn before it do not matter.
    with tempfile.TemporaryDirectory() as name:
      folder = pathlib.Path(name)
      settings = draw(rng, folder, asked.families.split(","), asked.rules)
      try:
        verdict = outcome(settings, folder)
      except (UserError, ValueError) as error:
        how, line = "refused", str(error).splitlines()[0]
      else:
        how, line = "wrong" if verdict.wrong else "right", verdict.line()
      counts[how] += 1
      print(f"{number:4} {how}: {line}; {told(settings)}", flush=True)
  print(", ".join(f"{how}: {count}" for how, count in counts.items()))
  return 1 if not asked.rules and counts["right"] < asked.cases else 0


if __name__ == "__main__":
  sys.exit(main())
