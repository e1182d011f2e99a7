import json

import numpy as np
import pytest
from safetensors.numpy import load_file

import zoo
from tests.compat.cases import TEXT, VISION, randomised, text_inputs
from zoo import compat


@pytest.mark.parametrize("name", ["FlaxCLIPTextModel", "FlaxCLIPTextModelWithProjection", "FlaxCLIPVisionModel"])
def test_a_tower_is_saved_with_the_names_that_torch_reads_old_and_new(name, tmp_path):
  config = VISION if "Vision" in name else TEXT
  model = getattr(compat, name)(config, _do_init=False)
  params = randomised(model.params_shape_tree)
  model.save_pretrained(tmp_path, params)
  front = "vision_model." if "Vision" in name else "text_model."
  names = load_file(tmp_path / "model.safetensors")
  assert all(key.startswith((front, "text_projection.")) for key in names)
  assert json.loads((tmp_path / "config.json").read_text())["architectures"] == [name.removeprefix("Flax")]
  zoo.load(tmp_path)

  transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
  reference = getattr(transformers, name.removeprefix("Flax")).from_pretrained(tmp_path)
  inputs = text_inputs(2, 8)
  if "Vision" in name:
    inputs = {"pixel_values": np.random.default_rng(0).normal(size=(2, 3, 12, 12)).astype(np.float32)}
  with torch.no_grad():
    want = reference(**{key: torch.tensor(value) for key, value in inputs.items()})
  np.testing.assert_allclose(model(**inputs, params=params)[0], want[0].numpy(), atol=1e-5)
