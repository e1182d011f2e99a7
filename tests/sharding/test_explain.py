import jax
import jax.numpy as jnp
import pytest

from zoo.errors import UserError
from zoo.sharding import make_mesh
from zoo.sharding.explain import explain, size

STATE = {
  "params": {
    "embed": {"embedding": jax.ShapeDtypeStruct((512, 1024), jnp.float32)},
    "layer_0": {"up": {"kernel": jax.ShapeDtypeStruct((16, 64), jnp.bfloat16)}},
    "head": {"bias": jax.ShapeDtypeStruct((3,), jnp.float32)},
  },
  "step": jax.ShapeDtypeStruct((), jnp.int32),
}


def test_every_parameter_has_its_place_its_rule_and_its_bytes():
  lines = explain(STATE, "fsdp+tensor", make_mesh({"data": 4, "model": 2})).splitlines()
  words = {line.split()[0]: line.split() for line in lines if line.strip()}
  wanted = "embed/embedding 512 x 1024 float32 model, data fsdp+tensor: embed/embedding 256.0 KiB"
  assert words["embed/embedding"] == wanted.split()
  assert words["layer_0/up/kernel"][-2:] == ["256", "B"] and "bfloat16" in words["layer_0/up/kernel"]
  assert words["head/bias"][-2:] == ["12", "B"] and "-" in words["head/bias"]
  # 512 * 1024 * 4 + 16 * 64 * 2 + 3 * 4 bytes; the split ones are in eight parts.
  assert words["params"][1:] == ["2.0", "MiB", "256.3", "KiB"]
  assert words["step"][1:] == ["4", "B", "4", "B"]


def test_says_which_patterns_found_nothing_and_what_is_large_and_whole():
  text = explain(STATE, [["embed/embedding", []], "tensor"], make_mesh({"data": 4, "model": 2}))
  assert "Patterns of 'tensor' that no parameter has: (query|key|value)/kernel, " in text
  assert "up|gate)/kernel" not in text.splitlines()[-3]
  assert text.endswith("Whole on each of the 8 devices, and large: embed/embedding (2.0 MiB)")
  alone = explain(STATE, "replicated", make_mesh({"data": 1}, jax.devices()[:1]))
  assert "Whole" not in alone and "Patterns" not in alone


def test_a_pattern_of_ones_own_that_finds_nothing_is_refused():
  with pytest.raises(UserError, match="nowhere"):
    explain(STATE, [["nowhere", ["data"]]], make_mesh({"data": 8}))


@pytest.mark.parametrize("count, text", [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 * 2**40, "3.0 TiB")])
def test_bytes_for_people(count, text):
  assert size(count) == text
