import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from zoo import saving
from zoo.build import build
from zoo.errors import UserError
from zoo.hub.writing import save_hf
from zoo.layers.stack import stack_layers
from zoo.saving import load, save

SIZES = dict(vocab_size=13, max_length=8, dim=6, depth=3, num_heads=2)


def gpt(**changes):
  return build("gpt", **{**SIZES, **changes})


def params_of(model, seed=0):
  """Parameters of the right shapes; nothing needs to be compiled for them."""
  rng = np.random.default_rng(seed)
  shapes = jax.eval_shape(lambda rng: model.init(rng, *model.example()), jax.random.key(0))["params"]
  return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), shapes)


def equal(left, right):
  same = jax.tree.map(lambda a, b: a.dtype == b.dtype and np.array_equal(np.asarray(a), np.asarray(b)), left, right)
  return jax.tree.structure(left) == jax.tree.structure(right) and jax.tree.all(same)


def files(folder):
  return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("scan", [False, True])
def test_what_is_saved_is_loaded(tmp_path, scan):
  model = gpt(scan=scan)
  params = params_of(model)
  save(tmp_path / "run", model, params)
  loaded, restored = load(tmp_path / "run")
  assert loaded == model and loaded.spec == model.spec
  assert equal(restored, params)


@pytest.mark.parametrize("dtype", ["int8", "bf16", "float8", "float8_e4m3fn", "bool", "float64", 7])
def test_parameters_are_floating(tmp_path, dtype):
  with pytest.raises(UserError, match="dtype is .*float32"):
    load(tmp_path, dtype=dtype)
  with pytest.raises(UserError, match="ignore is 'foo'. It must be a list of names"):
    load(tmp_path, ignore="foo")


def test_whoever_may_read_a_new_file_may_read_what_is_saved(tmp_path):
  save(tmp_path / "model", gpt(), params_of(gpt()))
  (tmp_path / "new").touch()
  modes = {path.stat().st_mode for path in (tmp_path / "new", *(tmp_path / "model").iterdir())}
  assert len(modes) == 1


def test_a_scanned_model_and_a_loop_write_the_same_file(tmp_path):
  params = params_of(gpt(scan=False))
  save(tmp_path / "loop", gpt(scan=False), params)
  save(tmp_path / "scan", gpt(scan=True), stack_layers(params))
  assert files(tmp_path / "loop")["params.safetensors"] == files(tmp_path / "scan")["params.safetensors"]
  with safe_open(tmp_path / "scan" / "params.safetensors", "np") as file:
    assert "stack/layer_2/self_attention/query/kernel" in file.keys()


@pytest.mark.parametrize("family", ["bert", "vit", "clip"])
def test_other_families_are_saved_too(tmp_path, family):
  tower = dict(dim=6, depth=2, num_heads=3)
  towers = dict(image_dim=6, image_depth=2, image_heads=3, text_dim=4, text_depth=1, text_heads=2)
  image, text = dict(image_size=8, patch_size=4), dict(vocab_size=11, max_length=5)
  sizes = {
    "bert": {**tower, **text},
    "vit": {**tower, **image, "num_classes": 7},
    "clip": {**towers, **image, **text, "embed_dim": 5},
  }[family]
  model = build(family, **sizes)
  params = params_of(model)
  save(tmp_path, model, params)
  loaded, restored = load(tmp_path)
  assert loaded == model and equal(restored, params)


def test_keeps_dtypes_and_numbers_that_are_not_finite(tmp_path):
  params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params_of(gpt()))
  params["norm"]["scale"] = jnp.array([jnp.nan, jnp.inf, -jnp.inf, -0.0, 1, 2], jnp.float16)
  save(tmp_path, gpt(), params)
  with pytest.warns(UserWarning, match="params.safetensors: values of 'norm/scale' are not finite"):
    restored = load(tmp_path)[1]
  assert all(
    np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in zip(*map(jax.tree.leaves, (restored, params)))
  )
  assert restored["norm"]["scale"].dtype == jnp.float16


def test_sharded_parameters_are_saved_whole(tmp_path):
  mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])
  params = params_of(gpt())
  place = lambda leaf: NamedSharding(mesh, P("data") if leaf.shape[0] % 2 == 0 else P())
  save(tmp_path, gpt(), jax.device_put(params, jax.tree.map(place, params)))
  restored = load(tmp_path)[1]
  assert equal(restored, params)
  assert all(leaf.devices() == {jax.devices()[0]} for leaf in jax.tree.leaves(restored))


@pytest.mark.parametrize("strided", [np.asfortranarray, lambda x: np.flip(np.flip(x).copy())])
def test_parameters_that_do_not_lie_row_by_row_in_memory_are_saved_as_they_are(tmp_path, strided):
  params = jax.tree.map(np.asarray, params_of(gpt()))
  odd = jax.tree.map(strided, params)
  assert not all(array.flags.c_contiguous for array in jax.tree.leaves(odd))
  save(tmp_path / "ours", gpt(), odd)
  assert equal(load(tmp_path / "ours")[1], params)
  save_hf(tmp_path / "published", gpt(), odd)
  assert equal(load(tmp_path / "published")[1], params)


def test_another_model_is_not_overwritten_unless_told(tmp_path):
  small, other = gpt(), gpt(depth=2)
  save(tmp_path, small, params_of(small))
  before = files(tmp_path)
  with pytest.raises(
    UserError, match="holds another model: depth: 3 -> 2. Choose another folder, or save with overwrite"
  ):
    save(tmp_path, other, params_of(other))
  assert files(tmp_path) == before
  save(tmp_path, other, params_of(other), overwrite=True)
  assert load(tmp_path)[0] == other


def test_the_same_model_is_saved_over_itself_however_it_computes(tmp_path):
  save(tmp_path, gpt(), params_of(gpt()))
  again = gpt(scan=True, remat="full", dtype="bfloat16", dropout=0.1)
  save(tmp_path, again, params_of(again, seed=1))
  assert equal(load(tmp_path)[1], params_of(again, seed=1))


def test_a_run_of_another_model_is_not_written_to(tmp_path):
  (tmp_path / "config.json").write_text(json.dumps({"model": {"family": "gpt", **SIZES, "dim": 4}}))
  with pytest.raises(UserError, match="holds another model: dim: 4 -> 6"):
    save(tmp_path, gpt(), params_of(gpt()))
  assert list(files(tmp_path)) == ["config.json"]


@pytest.mark.parametrize("moment", range(4))
def test_whenever_saving_dies_the_folder_holds_one_model_or_none(tmp_path, monkeypatch, moment):
  old, new = gpt(), gpt(dim=4)
  old_params, new_params = params_of(old), params_of(new, seed=1)
  save(tmp_path, old, old_params)
  left, died = [moment], OSError(28, "No space left on device")

  def dying(act):
    def acts_or_dies(*arguments, **keywords):
      left[0] -= 1
      if left[0] < 0:
        raise died
      return act(*arguments, **keywords)

    return acts_or_dies

  monkeypatch.setattr(os, "fsync", dying(os.fsync))
  monkeypatch.setattr(os, "replace", dying(os.replace))
  with pytest.raises(UserError, match="cannot be written: No space left on device"):
    save(tmp_path, new, new_params, overwrite=True)
  monkeypatch.undo()

  assert not list(tmp_path.glob(".*"))
  if (tmp_path / "model.json").exists():
    assert equal(load(tmp_path)[1], old_params)
  else:
    with pytest.raises(UserError, match="has no model"):
      load(tmp_path)


def test_parameters_of_another_model_are_not_saved(tmp_path):
  with pytest.raises(
    UserError, match=r"do not fit this model: 16 extra \(stack/layer_2/attention_norm/bias, .*, \.\.\.\)\."
  ):
    save(tmp_path / "run", gpt(depth=2), params_of(gpt()))
  with pytest.raises(UserError, match=r"52 missing \(embed/embedding, .*52 extra \(weights/embed/embedding, "):
    save(tmp_path / "run", gpt(), {"weights": params_of(gpt())})
  assert not (tmp_path / "run").exists()


def test_a_model_that_cannot_be_built_again_is_not_saved(tmp_path):
  from zoo.models.gpt import gpt as factory

  model = factory(**SIZES)
  with pytest.raises(UserError, match=r"LanguageModel does not record how it was built. Build models to be"):
    save(tmp_path, model, params_of(model))


def test_a_folder_without_a_model_is_told(tmp_path):
  with pytest.raises(UserError, match=r"away does not exist\."):
    load(tmp_path / "away")
  with pytest.raises(UserError, match="has no model of the zoo. .* it holds nothing."):
    load(tmp_path)
  (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
  with pytest.raises(
    UserError, match=r"it holds pytorch_model.bin. Pickled weights \(.bin, .pt, .pkl\) are never read"
  ):
    load(tmp_path)
  with pytest.raises(UserError, match="is a file, not a folder"):
    load(tmp_path / "pytorch_model.bin")
  with pytest.raises(UserError, match="is a file, not a folder. Name a folder to save the model in"):
    save(tmp_path / "pytorch_model.bin", gpt(), params_of(gpt()))


@pytest.mark.parametrize("length", [0, 5, 100, -1])
def test_a_truncated_file_of_parameters_is_told(tmp_path, length):
  save(tmp_path, gpt(), params_of(gpt()))
  path = tmp_path / "params.safetensors"
  path.write_bytes(path.read_bytes()[:length])
  with pytest.raises(UserError, match="params.safetensors cannot be read: .* truncated or damaged; take another copy"):
    load(tmp_path)


def test_tensors_that_do_not_fit_are_listed(tmp_path):
  save(tmp_path, gpt(), params_of(gpt()))
  path = tmp_path / "params.safetensors"
  tensors = load_file(path)
  del tensors["norm/bias"]
  tensors["norm/scale"] = tensors["norm/scale"][:5]
  tensors["../../etc/passwd"] = np.zeros(2)
  save_file(tensors, path)
  with pytest.raises(UserError) as error:
    load(tmp_path)
  assert str(error.value).endswith(
    "params.safetensors does not fit: 1 missing (norm/bias); 1 extra (../../etc/passwd); "
    "1 different (norm/scale (5,) instead of (6,))."
  )


@pytest.mark.parametrize(
  "content, says",
  [
    ("{", "model.json cannot be read as JSON: Expecting property name"),
    ("[]", "model.json holds a list, not an object"),
    ("[" * 100_000, "model.json cannot be read as JSON: its lists and objects are nested more than 200 deep"),
    ("{}", "model.json does not name its model: it needs an entry 'model' with a 'family'"),
    ('{"format": 1, "model": {"dim": 3}}', "needs an entry 'model' with a 'family'"),
    ('{"format": 2, "model": {"family": "gpt"}}', "is of format 2; this zoo reads 1. Update the zoo"),
    ('{"format": 1, "model": {"family": "gtp"}}', "cannot be built. zoo/models has no 'gtp'. Did you mean 'gpt'?"),
    (
      '{"format": 1, "model": {"family": "gpt", "dpth": 3}}',
      "cannot be built. gpt takes no 'dpth'. Did you mean 'depth'?",
    ),
  ],
)
def test_a_broken_model_json_is_told(tmp_path, content, says):
  (tmp_path / "model.json").write_text(content)
  with pytest.raises(UserError) as error:
    load(tmp_path)
  assert says in str(error.value) and str(tmp_path) in str(error.value)


def test_missing_parameters_are_told(tmp_path):
  save(tmp_path, gpt(), params_of(gpt()))
  (tmp_path / "params.safetensors").unlink()
  with pytest.raises(UserError, match="params.safetensors is missing"):
    load(tmp_path)


def test_only_the_first_process_writes(tmp_path, monkeypatch):
  monkeypatch.setattr(saving.jax, "process_index", lambda: 1)
  save(tmp_path / "run", gpt(), params_of(gpt()))
  assert not (tmp_path / "run").exists()
