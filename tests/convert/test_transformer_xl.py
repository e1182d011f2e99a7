"""Against values of the reference, which scripts/transformer_xl_reference.py keeps: it is not in transformers 5."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import zoo
from tests.convert.parity import GRADIENTS, SEEN, VALUES
from zoo.errors import UserError
from zoo.hub.writing import hub_tensors

ARRAYS = np.load(pathlib.Path(__file__).with_name("transformer_xl.npz"))
SAVED = sorted({name.partition("/")[0] for name in ARRAYS.files})


def arrays(case, part=""):
  front = f"{case}/{part}"
  return {name.removeprefix(front): ARRAYS[name] for name in ARRAYS.files if name.startswith(front)}


def folder_of(case, path, **changes):
  config = json.loads(str(ARRAYS[f"{case}/config"])) | changes
  (path / "config.json").write_text(json.dumps(config))
  save_file(arrays(case, "weights/"), path / "model.safetensors", metadata={"format": "pt"})
  return path


def blank_memory(model, tokens):
  """The reference begins with a memory of zeros, to which tokens attend."""
  shapes = jax.eval_shape(model.init, jax.random.key(0), tokens)["memory"]
  return jax.tree.map(lambda x: jnp.ones(x.shape, bool) if x.dtype == bool else jnp.zeros(x.shape), shapes)


@pytest.mark.parametrize("kept", SAVED)
def test_two_segments_and_their_gradients_are_the_references(kept, tmp_path):
  model, params = zoo.load(folder_of(kept, tmp_path))
  tokens, slopes = (ARRAYS[f"{kept}/{name}"] for name in ("tokens", "slopes"))

  def run(params):
    memory = {"memory": blank_memory(model, tokens[:, :5])}
    first, memory = model.apply({"params": params, **memory}, tokens[:, :5], mutable=["memory"])
    second = model.apply({"params": params, **memory}, tokens[:, 5:])
    return (second * slopes).sum(), (first, second)

  grads, (first, second) = jax.jit(jax.grad(run, has_aux=True))(params)
  differences = []
  for name, logits in (("first", first), ("second", second)):
    expected = ARRAYS[f"{kept}/{name}"]
    differences.append(apart(logits, expected))
  expected = arrays(kept, "gradients/")
  ours = hub_tensors(model, grads)
  assert expected.keys() == ours.keys()
  slopes_apart = {name: apart(ours[name], gradient) for name, gradient in expected.items()}
  assert max(differences) < VALUES and max(slopes_apart.values()) < GRADIENTS, (differences, slopes_apart)
  SEEN.append(["transformer_xl", "TransfoXLLMHeadModel", max(differences), max(slopes_apart.values())])


def apart(ours, theirs):
  """The largest difference, relative to the largest entry."""
  return float(abs(np.asarray(ours) - theirs).max() / abs(theirs).max())


@pytest.mark.parametrize("kept", SAVED)
def test_what_is_written_is_what_was_read(kept, tmp_path):
  theirs, ours = tmp_path / "theirs", tmp_path / "ours"
  theirs.mkdir()
  zoo.save_hf(ours, *zoo.load(folder_of(kept, theirs)))
  written, weights = load_file(ours / "model.safetensors"), arrays(kept, "weights/")
  assert written.keys() == weights.keys()
  for name, array in weights.items():
    np.testing.assert_array_equal(written[name], array)
  before, after = (json.loads((folder / "config.json").read_text()) for folder in (theirs, ours))
  assert {name: after[name] for name in before.keys() & after.keys() - {"transformers_version"}} == {
    name: before[name] for name in before.keys() & after.keys() - {"transformers_version"}
  }


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"pre_lnorm": True}, "pre_lnorm is True, which the zoo does not have"),
    ({"untie_r": False}, "untie_r is False, which the zoo does not have"),
    ({"attn_type": 2}, "attn_type is 2, which the zoo does not have"),
    ({"cutoffs": [11, 5]}, r"cutoffs are \[11, 5\] of 23 tokens. They must rise, between them."),
    ({"div_val": 1, "d_embed": 8}, "d_embed is 8, which the zoo does not have"),
  ],
)
def test_options_that_the_zoo_lacks_are_refused_by_name(changes, message, tmp_path):
  with pytest.raises(UserError, match=message):
    zoo.load(folder_of("same_length", tmp_path, **changes))
