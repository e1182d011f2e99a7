import jax
import jax.numpy as jnp
import pytest

import zoo
from tests.convert.parity import Case, check, reference, to_torch
from zoo.errors import UserError

SMALL = dict(
  image_size=12, patch_size=4, hidden_size=12, num_hidden_layers=3, num_attention_heads=3, mlp_ratio=2, num_labels=5,
)  # fmt: skip
ODD = dict(
  image_size=23, patch_size=5, num_channels=2, hidden_size=20, num_hidden_layers=2, num_attention_heads=5,
  hidden_act="relu", layer_norm_eps=0.02, qkv_bias=False, use_mask_token=False, layerscale_value=0.3,
)  # fmt: skip
REGISTERS = dict(
  image_size=15, patch_size=3, hidden_size=14, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=3, num_labels=3,
  num_register_tokens=3, use_swiglu_ffn=True,
)  # fmt: skip
HIDDEN = {
  "hidden": (lambda out: out["hidden"], lambda out: out.last_hidden_state),
  "pooled": (lambda out: out["pooled"], lambda out: out.pooler_output),
}
LOGITS = {"logits": (lambda out: out["logits"], lambda out: out.logits)}


def case(name, cls, config, height, width, mask=False):
  p, config_cls = config["patch_size"], f"Dinov2{'WithRegisters' if 'Registers' in cls else ''}Config"

  def inputs(rng):
    image = rng.normal(size=(2, height, width, config.get("num_channels", 3)))
    return image, rng.random((2, (height // p) * (width // p))) < 0.4

  def ours(rng):
    image, masked = inputs(rng)
    return (jnp.asarray(image, jnp.float32),), {"masked": jnp.asarray(masked)} if mask else {}

  def theirs(rng):
    import torch

    image, masked = inputs(rng)
    pixels = {"pixel_values": to_torch(image.transpose(0, 3, 1, 2))}
    return {**pixels, "bool_masked_pos": torch.from_numpy(masked)} if mask else pixels

  outputs = LOGITS if "Classification" in cls else HIDDEN
  return Case(f"{cls}-{name}", cls, config_cls, config, ours, theirs, outputs)


CASES = [
  case("masked", "Dinov2Model", SMALL, 12, 12, mask=True),
  case("larger and wide", "Dinov2ForImageClassification", SMALL, 21, 30),
  case("smaller", "Dinov2Model", ODD, 12, 17),
  case("swiglu", "Dinov2ForImageClassification", {**ODD, "use_swiglu_ffn": True, "qkv_bias": True}, 23, 23),
  case("larger", "Dinov2WithRegistersForImageClassification", REGISTERS, 18, 22),
  case("smaller", "Dinov2WithRegistersModel", REGISTERS, 8, 9, mask=True),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_reference(case, tmp_path):
  check(case, tmp_path)


def test_a_width_that_the_hub_has_no_ratio_for_is_not_written(tmp_path):
  model = zoo.build("dinov2", image_size=6, patch_size=3, dim=6, depth=1, num_heads=3, mlp_dim=13)
  params = jax.jit(model.init)(jax.random.key(0), *model.example())["params"]
  with pytest.raises(UserError, match="dim 6 with mlp_dim 13 is not one of the hub's"):
    zoo.save_hf(tmp_path, model, params)


@pytest.mark.parametrize(
  "option, message", [({"image_size": [12, 12]}, "image_size is"), ({"hidden_act": "mish"}, "mish")]
)
def test_what_is_not_there_is_refused_by_name(option, message, tmp_path):
  reference(case("x", "Dinov2Model", {**SMALL, **option}, 12, 12)).save_pretrained(tmp_path)
  with pytest.raises(UserError, match=message):
    zoo.load(tmp_path)
