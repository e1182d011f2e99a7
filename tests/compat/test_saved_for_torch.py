import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

import zoo
from tests.compat.cases import T5, TEXT, VISION, randomised, text_inputs
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


@pytest.mark.filterwarnings("ignore:.*initialised at random")
def test_an_encoder_of_t5_and_a_model_without_decoder_layers_read_each_others_files(tmp_path):
  config = {**T5, "num_decoder_layers": 0}
  whole = compat.FlaxT5Model(config)
  assert set(whole.params["decoder"]) == {"final_layer_norm"}
  whole.save_pretrained(tmp_path / "whole")
  encoder = compat.FlaxT5EncoderModel.from_pretrained(tmp_path / "whole")
  encoder.save_pretrained(tmp_path / "encoder")
  again = compat.FlaxT5Model.from_pretrained(tmp_path / "encoder")
  jax.tree.map(np.testing.assert_array_equal, again.params, whole.params)  # Norms begin as ones.
  ids = np.array([[3, 4, 1]])
  out = again(ids, decoder_input_ids=ids, output_hidden_states=True)
  np.testing.assert_array_equal(out.decoder_hidden_states[-1], out.last_hidden_state)
  np.testing.assert_allclose(out.encoder_last_hidden_state, encoder(ids)[0], atol=1e-6)
  cache = again.init_cache(1, 5, again.encode(ids))
  step = again.decode(ids[:, :1], again.encode(ids), past_key_values=cache)
  np.testing.assert_allclose(step[0], out[0][:, :1], atol=1e-6)
