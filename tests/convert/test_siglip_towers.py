import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import zoo
from tests.convert import test_siglip, test_siglip2
from tests.convert.parity import Case, check, reference, to_torch
from zoo.errors import UserError

PICKED = {
  "hidden": (lambda out: out["hidden"], lambda out: out.last_hidden_state),
  "pooled": (lambda out: out["pooled"], lambda out: out.pooler_output),
}


def text_case(cls, name, config):
  tokens = lambda rng: rng.integers(0, config["vocab_size"], (3, 8)).astype(np.int32)

  def ours(rng):
    ids, valid = tokens(rng), rng.random((3, 8)) < 0.7
    return (jnp.asarray(ids),), {"valid": jnp.asarray(valid)}

  def theirs(rng):
    ids, valid = tokens(rng), rng.random((3, 8)) < 0.7
    return {"input_ids": to_torch(ids), "attention_mask": to_torch(valid)}

  return Case(
    f"{cls}-{name}", cls, cls.replace("Model", "Config"), config, ours, theirs,
    outputs={"hidden": PICKED["hidden"], "embedded": (lambda out: out["embedded"], lambda out: out.pooler_output)},
    hidden=(("text/stack/layer_(\\d+)", "hidden_states"),),
    weights=(("text/stack/layer_(\\d+)/self_attention", "attentions"),),
  )  # fmt: skip


def vision_case(name, config):
  draw = lambda rng: rng.normal(size=test_siglip.images({"vision_config": config})).astype(np.float32)
  return Case(
    f"SiglipVisionModel-{name}", "SiglipVisionModel", "SiglipVisionConfig", config,
    ours=lambda rng: ((jnp.asarray(draw(rng)),), {}),
    theirs=lambda rng: {"pixel_values": to_torch(draw(rng).transpose(0, 3, 1, 2))},
    outputs=PICKED if config.get("vision_use_head", True) else {"hidden": PICKED["hidden"]},
    hidden=(("image/stack/layer_(\\d+)", "hidden_states"),),
    weights=(("image/stack/layer_(\\d+)/self_attention", "attentions"),),
  )  # fmt: skip


def flex_case(name, config, grids):
  picture = lambda rng: test_siglip2.picture(rng, {"vision_config": config}, grids)
  return Case(
    f"Siglip2VisionModel-{name}", "Siglip2VisionModel", "Siglip2VisionConfig", config,
    ours=lambda rng: ((picture(rng),), {}),
    theirs=lambda rng: test_siglip2.as_theirs(picture(rng)),
    outputs=PICKED if config.get("vision_use_head", True) else {"hidden": PICKED["hidden"]},
    hidden=(("image/stack/layer_(\\d+)", "hidden_states"),),
    weights=(("image/stack/layer_(\\d+)/self_attention", "attentions"),),
  )  # fmt: skip


SMALL, ODD, FLEX = test_siglip.SMALL, test_siglip.ODD, test_siglip2
BARE = {**SMALL["vision_config"], "vision_use_head": False, "hidden_act": "quick_gelu"}
CASES = [
  text_case("SiglipTextModel", "small", SMALL["text_config"]),
  text_case("Siglip2TextModel", "odd", ODD["text_config"]),
  vision_case("odd", ODD["vision_config"]),
  vision_case("bare", BARE),
  flex_case("small", FLEX.SMALL["vision_config"], FLEX.GRIDS),
  flex_case("odd bare", {**FLEX.ODD["vision_config"], "vision_use_head": False}, FLEX.ODD_GRIDS),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_reference(case, tmp_path):
  check(case, tmp_path)


@pytest.mark.parametrize(
  "case, prefix", [(CASES[0], "text_model."), *((case, "vision_model.") for case in CASES[2::2])], ids=str
)
def test_names_may_have_a_prefix_or_lack_it(case, prefix, tmp_path):
  from safetensors.numpy import load_file, save_file

  reference(case).save_pretrained(tmp_path / "one")
  shutil.copytree(tmp_path / "one", tmp_path / "other")
  tensors = load_file(tmp_path / "one/model.safetensors")
  bare = {name.removeprefix(prefix): array for name, array in tensors.items()}
  save_file(bare, tmp_path / "one/model.safetensors")
  save_file({prefix + name: array for name, array in bare.items()}, tmp_path / "other/model.safetensors")
  (model, one), (_, other) = (zoo.load(tmp_path / name) for name in ("one", "other"))
  args = case.ours(np.random.default_rng(0))[0]
  run = jax.jit(lambda params: model.apply({"params": params}, *args))
  want, got = run(one), run(other)
  for name, array in want.items():
    np.testing.assert_array_equal(array, got[name])


def test_vectors_of_images_are_those_of_the_reference(tmp_path):
  import torch
  import transformers

  rng = np.random.default_rng(0)
  images = [rng.integers(0, 256, (*shape, 3)).astype(np.uint8) for shape in ((9, 14), (31, 7), (5, 5))]
  plain = transformers.SiglipImageProcessorPil(size={"height": 12, "width": 12})
  flex = transformers.Siglip2ImageProcessorPil(patch_size=2, max_num_patches=20)
  for case, theirs in ((vision_case("small", SMALL["vision_config"]), plain), (CASES[4], flex)):
    there = reference(case)
    there.save_pretrained(tmp_path / case.cls)
    theirs.save_pretrained(tmp_path / case.cls)
    inputs = theirs([Image.fromarray(image) for image in images], return_tensors="np")
    with torch.no_grad():
      want = there(**{name: to_torch(array) for name, array in inputs.items()}).pooler_output.numpy()
    vectors = zoo.embed(tmp_path / case.cls, images, batch_size=2)
    np.testing.assert_allclose(vectors, want, atol=1e-5 * abs(want).max())
    vectors = zoo.embed(tmp_path / case.cls, images, unit=True)
    np.testing.assert_allclose(vectors, want / np.linalg.norm(want, axis=1, keepdims=True), atol=1e-5)


def test_vectors_of_texts_are_padded_to_the_full_length(tmp_path):
  import torch
  from tokenizers import Tokenizer, models, pre_tokenizers

  there = reference(CASES[0])
  there.save_pretrained(tmp_path)
  backend = Tokenizer(models.WordLevel({"<pad>": 0, "<unk>": 1, "a": 2, "cat": 3, "dog": 4}, unk_token="<unk>"))
  backend.pre_tokenizer = pre_tokenizers.Whitespace()
  backend.save(str(tmp_path / "tokenizer.json"))
  roles = {"pad_token": "<pad>", "unk_token": "<unk>", "model_max_length": 13}
  (tmp_path / "tokenizer_config.json").write_text(json.dumps(roles))
  ids = torch.tensor([[2, 3, *[0] * 11], [2, 4, 4, 1, *[0] * 9]])
  with torch.no_grad():
    want = there(input_ids=ids).pooler_output.numpy()
  np.testing.assert_allclose(zoo.embed(tmp_path, ["a cat", "a dog dog bird"]), want, atol=1e-5 * abs(want).max())


@pytest.mark.parametrize(
  "case, entries, message",
  [
    (CASES[0], {"hidden_act": "tanh"}, "hidden_act is 'tanh'"),
    (CASES[2], {"patch_size": [3, 3]}, "patch_size is"),
    (CASES[4], {"num_patches": 12}, "num_patches is 12, .* It has: 'a square, as 256'"),
  ],
  ids=str,
)
def test_what_is_not_there_is_refused_by_name(case, entries, message, tmp_path):
  reference(case).save_pretrained(tmp_path)
  config = json.loads((tmp_path / "config.json").read_text())
  (tmp_path / "config.json").write_text(json.dumps({**config, **entries}))
  with pytest.raises(UserError, match=message):
    zoo.load(tmp_path)
