import jax.numpy as jnp
import pytest

from tests.convert.parity import Case, check, to_torch
from tests.convert.test_clip import ODD, SMALL


def case(cls, name, config):
  vision = {**config["vision_config"], "projection_dim": 5}
  shape = (3, vision["image_size"], vision["image_size"], 3)
  outputs = {"hidden": (lambda out: out["hidden"], lambda out: out.last_hidden_state)}
  if cls == "CLIPVisionModel":
    outputs["pooled"] = (lambda out: out["pooled"], lambda out: out.pooler_output)
  else:
    outputs["embedded"] = (lambda out: out["embedded"], lambda out: out.image_embeds)
  return Case(
    f"{cls}-{name}", cls, "CLIPVisionConfig", vision,
    ours=lambda rng: ((jnp.asarray(rng.normal(size=shape), jnp.float32),), {}),
    theirs=lambda rng: {"pixel_values": to_torch(rng.normal(size=shape).transpose(0, 3, 1, 2))},
    outputs=outputs,
    hidden=(("image/stack/layer_(\\d+)", "hidden_states"),),
    weights=(("image/stack/layer_(\\d+)/self_attention", "attentions"),),
  )  # fmt: skip


CASES = [case("CLIPVisionModel", "odd", ODD), case("CLIPVisionModelWithProjection", "small", SMALL)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_reference(case, tmp_path):
  check(case, tmp_path)
