import jax.numpy as jnp
import pytest

from tests.convert.parity import Case, check, to_torch

SMALL = dict(
  image_size=12, patch_size=4, num_channels=3, hidden_size=12, num_hidden_layers=3, num_attention_heads=3,
  intermediate_size=30, num_labels=5,
)  # fmt: skip
ODD = dict(
  image_size=14, patch_size=7, num_channels=2, hidden_size=20, num_hidden_layers=2, num_attention_heads=5,
  intermediate_size=17, hidden_act="relu", layer_norm_eps=0.02,
)  # fmt: skip


def case(cls, name, config, outputs):
  shape = (2, config["image_size"], config["image_size"], config["num_channels"])
  return Case(
    f"{cls}-{name}", cls, "ViTConfig", config,
    ours=lambda rng: ((jnp.asarray(rng.normal(size=shape), jnp.float32),), {}),
    theirs=lambda rng: {"pixel_values": to_torch(rng.normal(size=shape).transpose(0, 3, 1, 2))},
    outputs=outputs,
  )  # fmt: skip


LOGITS = {"logits": (lambda out: out["logits"], lambda out: out.logits)}
HIDDEN = {
  "hidden": (lambda out: out["hidden"], lambda out: out.last_hidden_state),
  "pooled": (lambda out: out["pooled"], lambda out: out.pooler_output),
}
CASES = [
  case("ViTForImageClassification", "small", SMALL, LOGITS),
  case("ViTForImageClassification", "odd", ODD, LOGITS),
  case("ViTModel", "odd", ODD, HIDDEN),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_reference(case, tmp_path):
  check(case, tmp_path)
