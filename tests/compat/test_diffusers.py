"""diffusers' Flax pipelines on our text encoders: they load, run, save and load again."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from zoo import compat

# What diffusers and transformers warn of, each of itself.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow(minutes=1)]
VOCABULARY = ["<|startoftext|>", "<|endoftext|>", *"abcdefgh", *(f"{letter}</w>" for letter in "abcdefgh")]
TEXT = dict(vocab_size=18, hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20)
VISION = dict(
  image_size=224, patch_size=112, hidden_size=10, num_hidden_layers=2, num_attention_heads=2, intermediate_size=14
)
UNET: dict[str, Any] = dict(
  sample_size=8, block_out_channels=(32,), down_block_types=("CrossAttnDownBlock2D",), attention_head_dim=4,
  up_block_types=("CrossAttnUpBlock2D",), layers_per_block=1,
)  # fmt: skip


@pytest.fixture
def parts(tmp_path, ranks_are_promoted):
  """The parts of a tiny Stable Diffusion, by the names of its constructor, and their parameters."""
  for library in ("transformers", "diffusers"):  # Imported here, not by every process that collects tests.
    pytest.importorskip(library)
  compat.install()
  import diffusers
  import transformers
  from diffusers.pipelines.stable_diffusion.safety_checker_flax import FlaxStableDiffusionSafetyChecker

  (tmp_path / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(VOCABULARY)}))
  (tmp_path / "merges.txt").write_text("#version: 0.2\n")
  key = jax.random.PRNGKey(0)
  config = transformers.CLIPTextConfig(**TEXT, max_position_embeddings=7, eos_token_id=1, bos_token_id=0)
  both = transformers.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=5)
  unet = diffusers.FlaxUNet2DConditionModel(**UNET, cross_attention_dim=12)
  vae = diffusers.FlaxAutoencoderKL(block_out_channels=(32,))
  scheduler = diffusers.FlaxDDIMScheduler()
  pipeline = dict(
    text_encoder=transformers.FlaxCLIPTextModel(config, seed=1),
    tokenizer=transformers.CLIPTokenizer(
      str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"), model_max_length=7
    ),
    vae=vae,
    unet=unet,
    scheduler=scheduler,
    safety_checker=FlaxStableDiffusionSafetyChecker(both),
    feature_extractor=transformers.CLIPImageProcessor(),
  )
  params = {name: pipeline[name].params for name in ("text_encoder", "safety_checker")}
  params |= {"unet": unet.init_weights(key), "vae": vae.init_weights(key), "scheduler": scheduler.create_state()}
  yield pipeline, params
  compat.uninstall()


@pytest.fixture(autouse=True)
def ranks_are_promoted():
  with jax.numpy_rank_promotion("allow"):
    yield


def test_a_pipeline_of_diffusers_is_saved_and_loaded_and_runs_as_before(parts, tmp_path):
  from diffusers import FlaxStableDiffusionPipeline

  made, params = parts
  pipeline = FlaxStableDiffusionPipeline(**made)
  pipeline.save_pretrained(str(tmp_path / "sd"), params)
  index = json.loads((tmp_path / "sd" / "model_index.json").read_text())
  assert index["text_encoder"] == ["transformers", "FlaxCLIPTextModel"]
  again, loaded = FlaxStableDiffusionPipeline.from_pretrained(str(tmp_path / "sd"))
  assert type(again.text_encoder) is compat.FlaxCLIPTextModel
  for name in ("text_encoder", "safety_checker"):
    jax.tree.map(np.testing.assert_array_equal, loaded[name], params[name])
  again.save_pretrained(str(tmp_path / "again"), loaded)
  assert json.loads((tmp_path / "again" / "model_index.json").read_text()) | index == index

  pixels = np.random.default_rng(0).normal(size=(2, 3, 224, 224)).astype(np.float32)
  nsp_terms = [p.safety_checker(pixels, tree["safety_checker"]) for p, tree in ((pipeline, params), (again, loaded))]
  np.testing.assert_array_equal(*nsp_terms)
  assert nsp_terms[0].shape == (2,) and nsp_terms[0].dtype == bool

  def images(pipeline, params, prompt):
    pipeline.safety_checker = None
    ids = pipeline.prepare_inputs([prompt])
    rng = jax.random.PRNGKey(1)
    return np.asarray(pipeline(jnp.asarray(ids), params, rng, num_inference_steps=1, height=8, width=8).images)

  first, second, other = images(pipeline, params, "abc"), images(again, loaded, "abc"), images(again, loaded, "hg f")
  np.testing.assert_array_equal(first, second)
  assert first.shape == (1, 8, 8, 3) and abs(first - other).max() > 0


def _image(pipeline, params, prompt, pictures):
  """The image that a pipeline generates for a prompt; from an input image for pipelines that take one."""
  rng, options = jax.random.PRNGKey(1), dict(num_inference_steps=2, height=8, width=8)
  picture = PIL.Image.fromarray(np.random.default_rng(2).integers(0, 256, (32, 32, 3), np.uint8))
  inputs = pipeline.prepare_inputs([prompt], *(picture, picture.convert("L"))[:pictures])
  if not isinstance(inputs, tuple):
    return np.asarray(pipeline(jnp.asarray(inputs), params, rng, **options).images)
  ids, *shown = inputs
  shown = [jax.image.resize(x, (*x.shape[:2], 8, 8), "nearest") for x in shown]
  return np.asarray(pipeline(jnp.asarray(ids), *reversed(shown), params, rng, **options).images)


@pytest.mark.parametrize("name", ["StableDiffusionImg2Img", "StableDiffusionInpaint", "StableDiffusionXL"])
def test_pipelines_over_pictures_and_of_two_encoders_read_prompts_with_ours(parts, tmp_path, name):
  import diffusers
  import transformers

  made, params = parts
  options = {}
  if name == "StableDiffusionInpaint":
    options = {"in_channels": 9, "cross_attention_dim": 12}
  if name == "StableDiffusionXL":
    config = transformers.CLIPTextConfig(**TEXT, max_position_embeddings=7, eos_token_id=1, projection_dim=5)
    made["text_encoder_2"] = transformers.FlaxCLIPTextModelWithProjection(config, seed=2)
    made["tokenizer_2"] = made["tokenizer"]
    params["text_encoder_2"] = made["text_encoder_2"].params
    options = {"cross_attention_dim": 24, "addition_embed_type": "text_time", "addition_time_embed_dim": 4}
    options |= {"projection_class_embeddings_input_dim": 5 + 6 * 4}
    del made["safety_checker"], made["feature_extractor"]
  if options:
    made["unet"] = diffusers.FlaxUNet2DConditionModel(**UNET, **options)
    params["unet"] = made["unet"].init_weights(jax.random.PRNGKey(3))
  pipeline = getattr(diffusers, f"Flax{name}Pipeline")(**made)
  shown = {"StableDiffusionImg2Img": 1, "StableDiffusionInpaint": 2, "StableDiffusionXL": 0}[name]
  pipeline.save_pretrained(str(tmp_path / "saved"), params)
  again, loaded = type(pipeline).from_pretrained(str(tmp_path / "saved"))
  for part in (part for part in made if part.startswith("text_encoder")):
    assert type(getattr(again, part)) is type(made[part])
    jax.tree.map(np.testing.assert_array_equal, loaded[part], params[part])
  pipeline.safety_checker = None
  first, other = (_image(pipeline, params, prompt, shown) for prompt in ("abc", "hg f"))
  assert first.shape == (1, 8, 8, 3) and np.isfinite(first).all() and abs(first - other).max() > 0
