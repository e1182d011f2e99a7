import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from safetensors.flax import load_file

import zoo
from tests.filled import filled
from zoo.errors import UserError
from zoo.export.__main__ import main

GPT = zoo.build("gpt", vocab_size=23, max_length=19, dim=6, depth=2, num_heads=3)
MODELS = {
  "gpt": GPT,
  "scanned": zoo.build("gpt", vocab_size=23, max_length=19, dim=6, depth=2, num_heads=3, scan=True),
  "near and far": zoo.build(
    "gemma", vocab_size=23, dim=6, depth=2, num_heads=2, head_dim=4, mlp_dim=7, max_length=19, window=5,
    pattern=["local", "global"],
  ),
  "transformer_xl": zoo.build("transformer_xl", vocab_size=23, dim=6, depth=1, num_heads=2, memory_length=19),
  "t5": zoo.build("t5", vocab_size=23, dim=6, depth=1, num_heads=2, head_dim=3),
  "bert": zoo.build("bert", vocab_size=260, max_length=19, dim=6, depth=1, num_heads=2),
  "clip": zoo.build(
    "clip", image_size=6, patch_size=3, image_dim=8, image_depth=1, image_heads=2, text_dim=8, text_depth=1,
    text_heads=2, embed_dim=5, vocab_size=260, max_length=19,
  ),
}  # fmt: skip

# What README.md says, in a process that has neither the zoo nor Flax: greedy texts, or vectors.
ALONE = """
import json, os, sys

class Absent:
  def find_spec(self, name, path=None, target=None):
    if name.partition(".")[0] in ("zoo", "flax"):
      raise ImportError(f"{name} is not here")

sys.meta_path.insert(0, Absent())
os.chdir(sys.argv[1])
_, readme, _, example, _ = [block.removeprefix("python") for block in open("README.md").read().split("```")]
exec(example)
exec(readme)  # The README's own values.
given = dict(np.load("given.npz"))
globals().update(given)
if "steps" in given:
  steps, tokens_of = int(steps), []
  readme = readme.replace("for _ in range", "tokens_of.append(token)\\nfor _ in range").replace(
    "position + 1, ", "position + 1, tokens_of.append(out['logits'].argmax(-1)) or ")
exec(readme)
results = {"new": np.stack(tokens_of, 1)} if "steps" in given else {"vectors": np.asarray(vectors)}
np.savez("results.npz", **results)
assert "zoo" not in sys.modules and "flax" not in sys.modules
"""


def exported(family, folder, **options):
  model = MODELS[family]
  zoo.save(folder / "model", model, filled(model, *model.example(), seed=3))
  return zoo.export(folder / "model", folder / "out", **options)


def alone(folder, **arrays):
  np.savez(folder / "out" / "given.npz", **arrays)
  subprocess.run([sys.executable, "-c", ALONE, str(folder / "out")], check=True, cwd=folder)
  return dict(np.load(folder / "out" / "results.npz"))


def prompts(rows=3, length=7):
  rng = np.random.default_rng(0)
  valid = np.arange(length)[None] < np.array([[length], [2], [5]])[:rows]
  return rng.integers(1, 23, (rows, length)).astype(np.int32) * valid, valid


@pytest.mark.parametrize("family", ["gpt", "near and far", "t5"])
def test_a_text_is_written_without_the_zoo(tmp_path, family):
  signature = exported(family, tmp_path)
  assert signature == json.loads((tmp_path / "out" / "signature.json").read_text())
  assert signature["platforms"] == ["cpu", "tpu", "cuda"]
  tokens, valid = prompts()
  model, params = zoo.load(tmp_path / "model")
  wanted = zoo.generate(model, params, tokens, valid=valid, max_new_tokens=9)
  generated = alone(tmp_path, tokens=tokens, valid=valid, steps=8)["new"]
  np.testing.assert_array_equal(generated, np.asarray(wanted)[:, -9:])
  assert len(np.unique(generated)) > 3


def test_programs_take_any_batch_and_any_length_that_fits(tmp_path):
  signature = exported("scanned", tmp_path, platforms=["cpu"])
  assert signature["max_length"] == 19
  assert signature["programs"]["decode"]["results"]["logits"] == {"dtype": "float32", "shape": ["batch", 23]}
  weights = load_file(tmp_path / "out" / "weights.safetensors")
  prefill = jax.export.deserialize(bytearray((tmp_path / "out" / "prefill.jax").read_bytes()))
  model, params = zoo.load(tmp_path / "model")
  for rows, length in ((1, 1), (2, 19), (3, 7)):
    tokens = prompts(rows, length)[0] if length == 7 else np.full((rows, length), 4, np.int32)
    logits = prefill.call(weights, tokens, np.ones(tokens.shape, bool))["logits"]
    np.testing.assert_allclose(logits, model.apply({"params": params}, tokens)[:, -1], rtol=1e-5, atol=1e-5)
  with pytest.raises(ValueError, match="length|shapes"):  # Which of the two depends on jax.
    prefill.call(weights, np.ones((1, 20), np.int32), np.ones((1, 20), bool))


def test_logits_by_relative_positions_are_the_models_for_long_and_short_prompts(tmp_path):
  exported("transformer_xl", tmp_path, platforms=["cpu"], max_length=19)
  program = jax.export.deserialize(bytearray((tmp_path / "out" / "prefill.jax").read_bytes()))
  weights = load_file(tmp_path / "out" / "weights.safetensors")
  model, params = zoo.load(tmp_path / "model")
  for length in (2, 7):
    tokens = prompts(length=7)[0][:1, :length]
    logits = program.call(weights, tokens, np.ones(tokens.shape, bool))["logits"]
    np.testing.assert_allclose(logits, model.apply({"params": params}, tokens)[:, -1], rtol=1e-5, atol=1e-5)


def test_vectors_of_texts_are_those_of_embed(tmp_path):
  signature = exported("bert", tmp_path)
  assert signature["programs"]["embed"]["arguments"]["tokens"] == {"dtype": "int32", "shape": ["batch", "length"]}
  tokens, valid = prompts()
  make = zoo.embedder(tmp_path / "model")
  wanted = make.text_function()(make.params, {"tokens": tokens, "valid": valid, "prompt_length": np.int32(0)})
  np.testing.assert_allclose(alone(tmp_path, tokens=tokens, valid=valid)["vectors"], wanted, rtol=1e-5, atol=1e-5)


def test_two_towers_are_two_programs(tmp_path):
  signature = exported("clip", tmp_path, platforms=["cpu"])
  assert sorted(signature["programs"]) == ["embed_image", "embed_text"]
  assert signature["programs"]["embed_image"]["arguments"]["image"]["shape"] == ["batch", 6, 6, 3]
  weights = load_file(tmp_path / "out" / "weights.safetensors")
  image = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype(np.float32)
  program = jax.export.deserialize(bytearray((tmp_path / "out" / "embed_image.jax").read_bytes()))
  model, params = zoo.load(tmp_path / "model")
  wanted = model.apply({"params": params}, image, method="encode_image")
  np.testing.assert_allclose(program.call(weights, image)["vectors"], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
  "options, message",
  [
    (dict(platforms=["gpu"]), "platforms has 'gpu'.* Choose of: cpu, tpu, cuda"),
    (dict(platforms=[]), "platforms is empty"),
    (dict(max_length=20), "max_length is 20, the model takes 19 tokens. Lower it."),
    (dict(max_length=0), "max_length is 0. It must be an int, at least 1"),
    (dict(what="serve"), "what is 'serve'. It must be 'embed' or 'generate'"),
  ],
)
def test_options_that_do_not_fit_are_refused_before_anything_is_written(tmp_path, options, message):
  with pytest.raises(UserError, match=message):
    exported("gpt", tmp_path, **options)
  assert not (tmp_path / "out").exists()


def test_the_command_exports_and_refuses_in_one_line(tmp_path, capsys):
  zoo.save(tmp_path / "model", MODELS["bert"], filled(MODELS["bert"], *MODELS["bert"].example(), seed=3))
  model = f"--model={tmp_path / 'model'}"
  assert main([model, f"--out={tmp_path / 'out'}", "--platforms=cpu"]) == 0
  assert capsys.readouterr().out == f"{tmp_path / 'out'} has embed for cpu.\n"
  for wrong, message in (
    ([f"--out={tmp_path / 'new'}", "--what=generate"], "bert does not decode"),
    ([f"--out={tmp_path / 'model'}"], "is the model's own folder"),
  ):
    with pytest.raises(SystemExit) as error:
      main([model, *wrong])
    said = capsys.readouterr().err
    assert error.value.code == 2 and message in said and said.count("\n") == 1
