import json
import shutil

import jax
import numpy as np
import pytest
from flax import serialization, traverse_util
from safetensors.numpy import load_file

import zoo
from tests.hub_folder import published_bert
from zoo.convert.rules.layouts import LINEAR, Rule
from zoo.errors import UserError
from zoo.hub.msgpack import flax_rules, open_flax


def old_flax_tree(tensors):
  """A BERT as transformers 4 saved it in Flax: nested names, kernels [in, out]."""
  flat = {}
  for name, tensor in tensors.items():
    *front, last = name.split(".")
    if last == "weight" and "embeddings" in front[-1]:
      last = "embedding"
    elif last == "weight":
      last, tensor = ("scale", tensor) if tensor.ndim == 1 else ("kernel", tensor.T)
    flat[(*front, last)] = np.ascontiguousarray(tensor)
  return traverse_util.unflatten_dict(flat)


@pytest.fixture
def folder(tmp_path):
  published_bert(tmp_path / "bert", head="pretraining")
  return tmp_path / "bert"


def test_an_old_flax_file_is_the_same_model(folder, tmp_path):
  want = zoo.load(folder)
  old = shutil.copytree(folder, tmp_path / "old")
  tree = old_flax_tree(load_file(old / "model.safetensors"))
  (old / "model.safetensors").unlink()
  (old / "flax_model.msgpack").write_bytes(serialization.msgpack_serialize(tree))
  model, params = zoo.load(old)
  assert model == want[0]
  jax.tree.map(np.testing.assert_array_equal, params, want[1])


def test_arrays_in_pieces_and_bfloat16_are_read(tmp_path, monkeypatch):
  monkeypatch.setattr(serialization, "MAX_CHUNK_SIZE", 40)
  array = np.arange(35, dtype=np.float32).reshape(5, 7)
  tree = {"a": {"kernel": array}, "b": {"scale": array[0].astype(jax.numpy.bfloat16)}}
  (tmp_path / "x.msgpack").write_bytes(serialization.msgpack_serialize(tree))
  tensors = open_flax(tmp_path / "x.msgpack")
  np.testing.assert_array_equal(tensors["a.weight"], array.T)
  assert tensors["b.weight"].dtype == jax.numpy.bfloat16 and tensors.shapes == {"a.weight": (7, 5), "b.weight": (7,)}


def test_a_part_of_an_old_array_lies_along_the_axis_that_flax_had():
  linear, conv_1d = flax_rules(
    [
      Rule("query/kernel", "qkv.weight", LINEAR, stretch=(0, 3, 9)),
      Rule("up/kernel", "fused.weight", stretch=(1, 5, 7)),
    ]
  )
  assert linear.shape((4, 3)) == (4, 9) and linear.stretch == (1, 3, 9)
  assert conv_1d.shape((4, 2)) == (7, 4) and conv_1d.stretch == (0, 5, 7)


def test_what_is_made_of_several_arrays_has_no_old_name():
  with pytest.raises(UserError, match="expert.weight is made of several arrays"):
    flax_rules([Rule("experts/kernel", "expert.weight", LINEAR, index=1)])


BROKEN = {
  "truncated": lambda data: data[:-7],
  "no array": lambda data: serialization.msgpack_serialize({"a": "text"}),
  "not msgpack": lambda data: json.dumps({"a": 1}).encode(),
  "empty": lambda data: b"",
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_damaged_file_ends_in_one_line(tmp_path, how):
  data = serialization.msgpack_serialize({"a": {"kernel": np.ones((3, 5), np.float32)}})
  (tmp_path / "flax_model.msgpack").write_bytes(BROKEN[how](data))
  with pytest.raises(UserError, match="is not a valid flax_model.msgpack"):
    open_flax(tmp_path / "flax_model.msgpack")
