"""A tiny published model, for tests that need no reference."""

import json
import pathlib

import jax
import numpy as np

import zoo

SIZES = dict(vocab_size=23, max_length=11, dim=6, depth=2, num_heads=3, mlp_dim=7, head="mlm")


def random_params(model, seed=0):
  """Parameters without constants."""
  shapes = jax.eval_shape(lambda rng: model.init(rng, *model.example()), jax.random.key(0))["params"]
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)


def published_bert(folder: pathlib.Path, **sizes):
  """Saves a BERT in the hub's layout; returns its model and parameters."""
  model = zoo.build("bert", **{**SIZES, **sizes})
  params = random_params(model)
  zoo.save_hf(folder, model, params)
  return model, params


def edit_config(folder: pathlib.Path, **entries):
  """Changes entries of a config.json; None removes one."""
  path = folder / "config.json"
  config = json.loads(path.read_text()) | entries
  path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))
