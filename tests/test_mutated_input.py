"""Input that was changed at random, from a seed: it is read, or refused in one line; nothing else may happen."""

import copy
import json
import random

import jax
import numpy as np
import pytest
from safetensors import safe_open

import zoo
from tests.hub_folder import published_bert
from zoo import page
from zoo.build import shapes_of, sizes_of
from zoo.config import loading
from zoo.config.schema import resolve
from zoo.errors import UserError
from zoo.hub import generation
from zoo.train import metrics

pytestmark = pytest.mark.filterwarnings("ignore:.*ignored", "ignore:.*initialised at random")

NUMBERS = [float("nan"), float("inf"), -1, 0, 1, 0.5, 1e300, 10**9, 2**31, 2**63, 10**30, 10**400]
OTHERS = [None, True, "", "x", "\x00", "\ud800", "e" * 500, [], [[]], [None], {}, {"a.b": 1}, {"name": []}, [1, [2]]]
CONFIG = {
  "seed": 0, "steps": 2, "batch_size": 2, "workdir": "runs/x", "mesh": {"data": -1}, "sharding": "replicated",
  "model": {"family": "gpt", "variant": None, "vocab_size": 13, "max_length": 8, "dim": 6, "depth": 1, "num_heads": 2},
  "objective": {"name": "causal_lm"}, "data": {"name": "language", "source": "text:x", "augment": [{"name": "shift"}]},
  "optimizer": {"name": "adamw", "learning_rate": 1e-3, "multipliers": [["embed", 0.5]]},
  "eval": {"every": 1, "evaluators": {"samples": {"prompts": ["a"]}}}, "log": {"every": 1, "wandb": None},
  "checkpoint": {"best": None}, "bad_loss": {"action": "skip", "spike": None}, "timeouts": {"step": 60},
}  # fmt: skip


def paths(value, path=()):
  """Of everything in a nested value."""
  yield path
  for key, entry in value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ()):
    yield from paths(entry, (*path, key))


def mutated(value, rng):
  """With one entry replaced."""
  path, new = rng.choice(list(paths(value))[1:]), rng.choice(NUMBERS + OTHERS)
  whole = node = copy.deepcopy(value)
  for key in path[:-1]:
    node = node[key]
  node[path[-1]] = new
  return whole


def damaged(content, rng):
  """Bytes that were cut, turned, filled or nested."""
  place = rng.randrange(len(content))
  flipped = content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]
  return rng.choice([content[:place], flipped, flipped, bytes(len(content)), b"[" * 100_000, b'{"a":' * 300 + b"1"])


def read_or_refused(function, *args, **keywords):
  """What it returns; None if it refused in one line that can be read."""
  try:
    return function(*args, **keywords)
  except UserError as error:
    assert len(str(error)) < 3100 and str(error).isprintable()
    return None


def test_a_config_is_read_as_it_is_or_refused(tmp_path):
  rng = random.Random(0)
  for number in range(300):
    path = tmp_path / f"{number}.json"
    content = json.dumps(mutated(CONFIG, rng)).encode()
    path.write_bytes(damaged(content, rng) if rng.random() < 0.2 else content)
    result = read_or_refused(loading.load, [f"--config={path}"])
    assert result is None or json.loads(loading.to_json(result[0])) == resolve(result[0])


def test_an_override_is_taken_or_refused(tmp_path):
  rng, path = random.Random(1), tmp_path / "config.json"
  path.write_text(json.dumps(CONFIG))
  for _ in range(300):
    place = ".".join(map(str, rng.choice(list(paths(CONFIG))[1:])))
    value = rng.choice(NUMBERS + OTHERS)
    text = rng.choice([json.dumps(value), repr(value), str(value), "[" * 3000, "9" * 5000, "{'a': " * 300])
    read_or_refused(loading.load, [f"--config={path}", f"--config.{place}={text}"])


def test_a_model_is_loaded_as_it_was_or_refused(tmp_path):
  rng = random.Random(2)
  model = zoo.build("gpt", vocab_size=13, max_length=8, dim=6, depth=1, num_heads=2)
  draw = np.random.default_rng(0)
  params = jax.tree.map(lambda x: draw.normal(size=x.shape).astype(np.float32), shapes_of(model))
  zoo.save(tmp_path, model, params)
  content = (tmp_path / "model.json").read_bytes()
  for _ in range(100):
    changed = json.dumps(mutated(json.loads(content), rng)).encode()
    (tmp_path / "model.json").write_bytes(damaged(content, rng) if rng.random() < 0.3 else changed)
    loaded = read_or_refused(zoo.load, tmp_path)
    for old, new in zip(jax.tree.leaves(params), jax.tree.leaves(loaded[1]) if loaded else ()):
      np.testing.assert_array_equal(old, new)


@pytest.mark.filterwarnings("ignore:.*names no architectures")
def test_a_published_config_is_understood_or_refused(tmp_path):
  rng = random.Random(4)
  published_bert(tmp_path)
  content = json.loads((tmp_path / "config.json").read_text())
  for _ in range(80):
    changed = json.dumps(mutated(content, rng)).encode()
    (tmp_path / "config.json").write_bytes(damaged(changed, rng) if rng.random() < 0.1 else changed)
    loaded = read_or_refused(zoo.load, tmp_path)
    assert loaded is None or 0 <= sizes_of(loaded[0])["epsilon"] < float("inf")


def test_generation_options_are_numbers_or_refused():
  rng = random.Random(5)
  entries = {
    "do_sample": True, "temperature": 0.6, "top_k": 5, "top_p": 0.9, "min_p": 0.1, "eos_token_id": [2],
    "pad_token_id": 1, "num_beams": 2, "length_penalty": 2.0, "repetition_penalty": 1.1, "suppress_tokens": [-1, 7],
    "max_length": 9, "forced_eos_token_id": 2, "bad_words_ids": [[4]], "decoder_start_token_id": 0,
    "no_repeat_ngram_size": 3,
  }  # fmt: skip
  for number in range(300):
    config = {"model_type": ("gpt2", "t5", "whisper")[number % 3]}
    result = read_or_refused(generation.options, mutated(entries, rng), config, "generation_config.json")
    assert result is None or np.isfinite([x for x in result.values() if isinstance(x, float)]).all()


def test_images_and_sounds_become_numbers_or_are_refused(tmp_path):
  rng = random.Random(6)
  image = {
    "image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 7}, "crop_size": {"height": 5, "width": 6},
    "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4], "rescale_factor": 0.004, "resample": 3,
  }  # fmt: skip
  patches = {"image_processor_type": "Siglip2ImageProcessor", "patch_size": 2, "max_num_patches": 6, "resample": 2}
  sound = {"feature_extractor_type": "WhisperFeatureExtractor", "chunk_length": 1, "feature_size": 5, "n_fft": 32}
  sound |= {"hop_length": 16, "sampling_rate": 400, "padding_value": 0.0}
  for number in range(150):
    entries = mutated((image, patches, sound)[number % 3], rng)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(entries))
    processor = read_or_refused(zoo.load_processor, tmp_path)
    raw = np.zeros(100) if number % 3 == 2 else np.zeros((8, 9, 3), np.uint8)
    result = None if processor is None else read_or_refused(processor, raw)
    assert all(x.size and np.isfinite(x).all() for x in jax.tree.leaves(result))


def test_an_index_names_files_that_are_there_or_is_refused(tmp_path):
  rng = random.Random(7)
  published_bert(tmp_path)
  (tmp_path / "model.safetensors").rename(tmp_path / "model-1.safetensors")
  with safe_open(tmp_path / "model-1.safetensors", "np") as file:
    index = {"weight_map": dict.fromkeys(file.keys(), "model-1.safetensors")}
  for _ in range(60):
    whole = mutated(index, rng)
    if rng.random() < 0.5:
      name = rng.choice(
        ["../model-1.safetensors", f"{'x' * 300}.safetensors", "model-2.safetensors", "/etc/passwd", "."]
      )
      whole = {"weight_map": {**index["weight_map"], rng.choice(list(index["weight_map"])): name}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(whole))
    read_or_refused(zoo.load, tmp_path)


def test_a_page_is_made_of_any_run_folder(tmp_path):
  rng, line = random.Random(3), {"step": 1, "time": 1.0, "loss": 2.5, "eval/a/b": 1}
  for _ in range(60):
    lines = [
      json.dumps(mutated(line, rng)).encode() if rng.random() < 0.5 else json.dumps(line).encode() for _ in "abc"
    ]
    content = b"\n".join(lines)
    (tmp_path / "metrics.jsonl").write_bytes(damaged(content, rng) if rng.random() < 0.5 else content)
    (tmp_path / "config.json").write_bytes(damaged(json.dumps(mutated(CONFIG, rng)).encode(), rng))
    assert "<title>" in page.write(tmp_path).read_text()
    metrics.drop_beyond(tmp_path / "metrics.jsonl", 5)
