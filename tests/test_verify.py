"""Right placements pass, planted wrong ones are caught by their parameter, and what passed is remembered."""

import json
import os
import re

import jax
import numpy as np
import pytest

import zoo
from train import main
from zoo import comparison, config, sharding, verify
from zoo.comparison import compare
from zoo.errors import UserError
from zoo.experiment import experiment
from zoo.meshes import arranged
from zoo.reduced import congruent, like, lengths_modulus, rows_of
from zoo.stand_in import stand_in

TEXT = {"name": "language", "source": "text:here", "tokenizer": "bytes", "max_length": 22, "cache": False}
IMAGES = {"name": "labelled_images", "source": "images:here", "image_size": 16}
PAIRS = {"name": "image_text", "source": "webdataset:here", "tokenizer": "bytes", "image_size": 16, "max_length": 9}
SEQ2SEQ = {**TEXT, "name": "text_pairs", "target_length": 7}
DECODER = {"vocab_size": 260, "max_length": 21, "dim": 8, "depth": 2, "num_heads": 2}
IMAGE = {"image_size": 16, "patch_size": 4}
TOWERS = {f"{tower}_{size}": n for tower in ("image", "text") for size, n in {"dim": 8, "depth": 1, "heads": 2}.items()}
CASES = {
  "gpt": ({"family": "gpt", **DECODER}, "causal_lm", TEXT),
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


def settings(case, folder, mesh, strategy="replicated", rules=(), **others):
  model, objective, data = CASES[case]
  sections = {
    "seed": 0,
    "steps": 2,
    "batch_size": 8,
    "workdir": str(folder / "run"),
    "model": model | others,
    "objective": {"name": objective},
    "data": stand_in({**data, "split": "train"}, folder),
    "optimizer": {"learning_rate": 1e-2},
    "mesh": mesh,
    "sharding": strategy,
    "activations": list(rules),
    "eval": {"evaluators": {}},
  }
  (folder / "config.json").write_text(json.dumps(sections))
  return config.load([f"--config={folder}/config.json"])[0]


def compared(case, folder, mesh, strategy="replicated", rules=(), **others):
  settled = settings(case, folder, mesh, strategy, rules, **others)
  devices = sharding.make_mesh(mesh, jax.devices()[: int(np.prod(list(mesh.values())))])
  return compare(settled, experiment(settled, devices), devices)


@pytest.mark.slow
@pytest.mark.parametrize(
  "case, mesh, strategy",
  [
    ("gpt", {"data": 2, "model": 2, "sequence": 2}, "fsdp+tensor"),
    ("t5", {"data": 4, "model": 2}, "tensor"),
    ("vit", {"slice": 2, "data": 2}, "fsdp"),
    ("clip", {"data": 2, "model": 2}, "fsdp+tensor"),
  ],
)
def test_right_placements_are_right(tmp_path, case, mesh, strategy):
  verdict = compared(case, tmp_path, mesh, strategy)
  assert not verdict.wrong and verdict.largest < 1e-4 and verdict.parameters > 20
