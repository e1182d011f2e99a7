"""The weights that ship with the package."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

import zoo
from zoo import evaluate
from zoo.json_files import read_json

FOLDER = Path(zoo.__file__).parent / "weights" / "clip_emoji"


def test_the_weights_are_those_of_their_digest_and_small():
  content = (FOLDER / "params.safetensors").read_bytes()
  assert (FOLDER / "SHA256SUMS").read_text() == f"{hashlib.sha256(content).hexdigest()}  params.safetensors\n"
  assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 12e6


@pytest.mark.slow(minutes=1)
def test_they_reach_the_recall_that_the_recipe_claims_and_find_cats(tmp_path):
  config = read_json(FOLDER / "config.json")
  model, params = zoo.load(FOLDER, dtype="float32")
  evaluators = evaluate.evaluators(config["eval"], model, config["data"])
  results = evaluate.run(evaluators, params, tmp_path, None, note=lambda text: None)
  claimed = {
    "image_to_text_r1": 0.132,
    "image_to_text_r10": 0.472,
    "text_to_image_r1": 0.157,
    "text_to_image_r10": 0.476,
  }
  for name, recall in claimed.items():
    assert results[f"eval/retrieval/{name}"] == pytest.approx(recall, abs=0.002)  # Three drawings of 1,543.
  held_out, encoder = zoo.load_data(FOLDER, "test"), zoo.embedder(FOLDER)
  vectors = zoo.embed(encoder, [held_out[i]["image"] for i in range(len(held_out))])
  best = np.argsort(-(vectors @ zoo.embed(encoder, "cat face")[0]))[:8]
  captions = [held_out.caption(int(index)) for index in best]
  assert "cat face" in captions and sum("cat" in caption.split() for caption in captions) >= 5, captions
