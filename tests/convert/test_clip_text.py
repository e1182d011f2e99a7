import numpy as np
import pytest

from tests.convert.parity import Case, check, to_torch
from tests.convert.test_clip import ODD, SMALL


def case(cls, name, config):
  text = {**config["text_config"], "projection_dim": 7}
  ids = lambda rng: rng.integers(6, text["vocab_size"], (3, 8)).astype(np.int32)
  outputs = {"hidden": (lambda out: out["hidden"], lambda out: out.last_hidden_state)}
  if cls == "CLIPTextModel":
    outputs["pooled"] = (lambda out: out["pooled"], lambda out: out.pooler_output)
  else:
    outputs["embedded"] = (lambda out: out["embedded"], lambda out: out.text_embeds)
  return Case(
    f"{cls}-{name}", cls, "CLIPTextConfig", text,
    ours=lambda rng: ((ids(rng),), {}),
    theirs=lambda rng: {"input_ids": to_torch(ids(rng))},
    outputs=outputs,
    hidden=(("text/stack/layer_(\\d+)", "hidden_states"),),
    weights=(("text/stack/layer_(\\d+)/self_attention", "attentions"),),
  )  # fmt: skip


CASES = [case("CLIPTextModel", "small", SMALL), case("CLIPTextModelWithProjection", "odd", ODD)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_reference(case, tmp_path):
  check(case, tmp_path)
