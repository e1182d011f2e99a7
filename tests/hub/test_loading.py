import json
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import zoo
from tests.hub_folder import edit_config, published_bert
from zoo.errors import UserError
from zoo.hub import tables
from zoo.hub.files import open_tensors
from zoo.hub.loading import read_params
from zoo.layers.stack import stack_layers
from zoo.sharding import make_mesh, shardings


@pytest.fixture(scope="module")
def original(tmp_path_factory):
  folder = tmp_path_factory.mktemp("bert")
  return folder, *published_bert(folder)


@pytest.fixture
def folder(original, tmp_path):
  return shutil.copytree(original[0], tmp_path / "bert")


def equal(a, b):
  return all(jax.tree.leaves(jax.tree.map(lambda x, y: x.dtype == y.dtype and bool((x == y).all()), a, b)))


def rewrite(folder, change):
  tensors = load_file(folder / "model.safetensors")
  save_file(change(tensors) or tensors, folder / "model.safetensors")


def extend_config(folder, entries):
  path = folder / "config.json"
  path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def test_what_was_saved_is_loaded_and_saved_again_byte_for_byte(original, tmp_path):
  folder, model, params = original
  again, loaded = zoo.load(folder)
  assert again == model and equal(loaded, params)
  zoo.save_hf(tmp_path, again, loaded)
  for name in ("config.json", "model.safetensors"):
    assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_a_scanned_model_has_the_same_layout_on_disk(original, tmp_path):
  folder, model, params = original
  scanned = zoo.build(**{**model.spec, "scan": True})
  zoo.save_hf(tmp_path, scanned, stack_layers(params))
  assert (tmp_path / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
  mesh = make_mesh({"data": -1})
  table = tables.of_family("bert")
  for where in ({}, {"mesh": mesh, "strategy": "fsdp"}):
    assert equal(read_params(open_tensors(folder), table, scanned, "here", **where), stack_layers(params))


def test_several_files_with_an_index_are_one_model(folder, original):
  tensors = load_file(folder / "model.safetensors")
  (folder / "model.safetensors").unlink()
  weight_map = {}
  for number in range(3):
    part = {name: tensors[name] for name in sorted(tensors)[number::3]}
    save_file(part, folder / f"model-{number}.safetensors")
    weight_map |= dict.fromkeys(part, f"model-{number}.safetensors")
  (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
  assert equal(zoo.load(folder)[1], original[2])


def test_an_index_that_names_what_no_file_can_be_called_is_refused(folder):
  (folder / "model.safetensors").unlink()
  weight_map = {"embeddings": f"{'x' * 300}.safetensors"}
  (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
  with pytest.raises(UserError, match="not a valid safetensors file: .*File name too long"):
    zoo.load(folder)


@pytest.mark.parametrize("strategy", ["replicated", "fsdp", "tensor", "fsdp+tensor"])
def test_arrays_are_born_on_their_shards(original, strategy):
  folder, model, params = original
  mesh = make_mesh({"data": 8, "model": 1})
  loaded = zoo.load(folder, mesh=mesh, strategy=strategy)[1]
  assert equal(loaded, params)
  wanted = shardings(params, strategy, mesh)
  assert all(jax.tree.leaves(jax.tree.map(lambda x, s: x.sharding.is_equivalent_to(s, x.ndim), loaded, wanted)))


def test_parameters_take_the_dtype_that_is_asked_for(original):
  folder, _, params = original
  loaded = zoo.load(folder, dtype="bfloat16")[1]
  assert equal(loaded, jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), params))


def test_weights_of_another_type_become_float32(folder, original):
  rewrite(folder, lambda tensors: {name: tensor.astype(np.float16) for name, tensor in tensors.items()})
  want = jax.tree.map(lambda x: x.astype(np.float16).astype(np.float32), original[2])
  assert equal(zoo.load(folder)[1], want)


def test_old_spellings_and_missing_prefixes_are_read(folder, original):
  def old(tensors):
    rename = lambda name: name.removeprefix("bert.").replace("LayerNorm.weight", "LayerNorm.gamma")
    return {rename(name).replace("LayerNorm.bias", "LayerNorm.beta"): tensor for name, tensor in tensors.items()}

  rewrite(folder, old)
  assert equal(zoo.load(folder)[1], original[2])


def test_another_head_of_the_same_weights(original):
  folder, _, params = original
  with pytest.warns(UserWarning, match="has no pooler/bias, pooler/kernel: initialised at random"):
    model, bare = zoo.load(folder, head="none")
  assert model.spec["head"] is None and equal(bare["stack"], params["stack"]) and "mlm" not in bare
  with pytest.warns(UserWarning, match="classify/kernel"):
    model, classifier = zoo.load(folder, head="classify")
  assert classifier["classify"]["kernel"].shape == (6, 2) and equal(classifier["embed"], params["embed"])


def test_a_repeated_tensor_must_be_equal(folder):
  name, decoder = "bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"
  rewrite(folder, lambda tensors: {**tensors, decoder: tensors[name].copy()})
  zoo.load(folder)
  rewrite(folder, lambda tensors: {**tensors, decoder: tensors[name] + 1})
  with pytest.raises(UserError, match="'cls.predictions.decoder.weight' differs from 'bert.embeddings.word"):
    zoo.load(folder)


def test_a_tensor_with_and_without_its_prefix_must_be_equal(folder):
  name = "bert.embeddings.LayerNorm.weight"
  bare = name.removeprefix("bert.")
  rewrite(folder, lambda tensors: {**tensors, bare: tensors[name].copy()})
  zoo.load(folder)
  rewrite(folder, lambda tensors: {**tensors, bare: tensors[name] + 1})
  with pytest.raises(UserError, match=f"has '{name}' and '{bare}' with different values, two of one parameter"):
    zoo.load(folder)


def test_a_head_that_no_architectures_ask_for_is_named(original, tmp_path, recwarn):
  zoo.save_hf(tmp_path, *zoo.load(original[0], head="classify"))
  extend_config(tmp_path, {"architectures": None})
  with pytest.warns(UserWarning, match="names no architectures: classifier.bias, .* Load with head='classify'"):
    model, _ = zoo.load(tmp_path)
  assert model.spec["head"] is None
  recwarn.clear()
  zoo.load(tmp_path, head="classify")
  assert not recwarn.list


MISTAKES = {
  "missing": (
    lambda t: {k: v for k, v in t.items() if "layer.1.output.dense.bias" not in k},
    "1 missing .*layer.1.output",
  ),
  "extra": (lambda t: {**t, "bert.encoder.layer.2.x": t["cls.predictions.bias"]}, "1 extra .bert.encoder.layer.2.x"),
  "misshapen": (lambda t: {**t, "cls.predictions.bias": np.zeros(22)}, "predictions.bias .22,. instead of .23,."),
  "twice": (
    lambda t: {**t, "bert.embeddings.LayerNorm.gamma": t["bert.embeddings.LayerNorm.weight"].copy()},
    "are the same tensor twice",
  ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_tensors_that_do_not_fit_are_named(folder, mistake):
  change, message = MISTAKES[mistake]
  rewrite(folder, change)
  with pytest.raises(UserError, match=message):
    zoo.load(folder)


def test_weights_that_are_not_finite_are_named(folder):
  def damaged(tensors):
    tensors["cls.predictions.bias"][3] = np.nan

  rewrite(folder, damaged)
  with pytest.warns(UserWarning, match="values of 'cls.predictions.bias' are not finite"):
    zoo.load(folder)


def test_weights_that_git_lfs_left_out_or_that_may_not_be_read_are_named(folder, monkeypatch):
  (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n")
  with pytest.raises(UserError, match="model.safetensors is a pointer of Git LFS, not the weights"):
    zoo.load(folder)
  monkeypatch.setattr("os.access", lambda path, mode: False)
  with pytest.raises(UserError, match="model.safetensors: permission denied"):
    zoo.load(folder)


OPTIONS = {
  "is_causal": (
    {"is_causal": False},
    "1 unknown option.s., .* is_causal=False.*ignore=.'is_causal',.",
  ),
  "relative positions": (
    {"position_embedding_type": "relative_key"},
    "position_embedding_type is 'relative_key', which the zoo does not have. It has: 'absolute'",
  ),
  "activation": ({"hidden_act": "mish"}, "hidden_act is 'mish', which the zoo does not have. It has: 'gelu'"),
  "type": ({"hidden_size": "6"}, "hidden_size is '6'. It must be an int"),
  "indivisible": ({"num_attention_heads": 4}, "dim 6 does not divide into num_heads 4"),
  "model type": ({"model_type": "berd"}, "no model_type 'berd'. Did you mean 'bert'?"),
  "architecture": ({"architectures": ["BertForRanking"]}, "does not have 'BertForRanking'"),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_options_that_cannot_be_honoured_are_refused_by_name(folder, option):
  entries, message = OPTIONS[option]
  edit_config(folder, **entries)
  with pytest.raises(UserError, match=message):
    zoo.load(folder)


def test_what_old_configs_say_in_full_is_known_where_it_says_nothing(folder):
  edit_config(folder, pruned_heads={}, add_cross_attention=False)
  zoo.load(folder)
  edit_config(folder, pruned_heads={"0": [1]})
  with pytest.raises(UserError, match="unknown option.s., which may change the model: pruned_heads"):
    zoo.load(folder)


@pytest.mark.parametrize("entry", [{"is_llama_config": True}, {"quantization_config": None}, {"is_causal": True}])
def test_what_changes_nothing_in_the_reference_is_passed_over_with_a_warning(folder, original, entry):
  extend_config(folder, entry)
  with pytest.warns(UserWarning, match=f"config.json has {next(iter(entry))}=.*: ignored") as told:
    model, params = zoo.load(folder)
  assert len(told) == 1 and model == original[1] and equal(params, original[2])


def test_what_is_ignored_counts_as_if_it_were_not_there(folder, original):
  extend_config(folder, {"is_causal": False, "position_embedding_type": "relative_key"})
  model, _ = zoo.load(folder, ignore=("is_causal", "position_embedding_type"))
  assert model == original[1]
  with pytest.raises(UserError, match="ignore names 'is_casual', which is not in .*Did you mean 'is_causal'"):
    zoo.load(folder, ignore=("is_casual",))


def test_pickles_are_refused_with_the_way_out(folder):
  (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
  with pytest.raises(UserError, match="only as pytorch_model.bin, and pickles are never read.*save_pretrained"):
    zoo.load(folder)


def test_a_folder_or_id_that_is_not_there(tmp_path, monkeypatch):
  monkeypatch.setenv("HF_HUB_OFFLINE", "1")
  with pytest.raises(UserError, match="does not exist"):
    zoo.load(tmp_path / "nowhere")


def test_unknown_heads_are_refused(original):
  with pytest.raises(UserError, match="bert has no head 'clasify'. It has: none, pretraining, mlm"):
    zoo.load(original[0], head="clasify")


def test_more_layers_than_tensors_are_refused_at_once(folder):
  edit_config(folder, num_hidden_layers=10**9)
  with pytest.raises(UserError, match="num_hidden_layers is 1000000000, but the files hold only 42 tensors"):
    zoo.load(folder)


def test_neither_torch_nor_transformers_is_needed(original, tmp_path):
  """In a process that cannot import torch, transformers, TensorFlow or huggingface_hub."""
  folder, _, _ = original
  program = f"""
import sys
sys.modules.update(dict.fromkeys(["torch", "transformers", "tensorflow", "huggingface_hub", "sentence_transformers"]))
import zoo
model, params = zoo.load({str(folder)!r})
zoo.save_hf({str(tmp_path / "out")!r}, model, params)
"""
  subprocess.run([sys.executable, "-c", program], check=True)
  assert (tmp_path / "out" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
