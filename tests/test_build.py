import json
import subprocess
import sys

import jax
import numpy as np
import pytest

import zoo
from tests.evaluate.toys import Toy
from zoo.build import check_fits, check_tokens, count_parameters, unused_classes
from zoo.errors import UserError
from zoo.evaluate.perplexity import perplexity
from zoo.hub.static_embedding import StaticEmbedding
from zoo.models.marian import marian

SIZES = dict(vocab_size=23, max_length=11, dim=6, depth=2, num_heads=3)

MISTAKES = {
  "gpt.depth is 1000000000. It must be at most 10000.": lambda: zoo.build("gpt", "gpt2", depth=10**9),
  "gpt.vocab_size is 10000000000. It must be at most 2147483647.": lambda: zoo.build("gpt", "gpt2", vocab_size=10**10),
  "gpt has no variant \"['gpt2']\"": lambda: zoo.build("gpt", ["gpt2"]),
  "zoo/models has no 'gtp'. Did you mean 'gpt'? It has: ": lambda: zoo.build("gtp"),
  "zoo/models has no '7'. It has: ": lambda: zoo.build(7),
  "gpt has no variant 'gpt3'. Did you mean 'gpt2'? It has: gpt2, ": lambda: zoo.build("gpt", "gpt3"),
  "gpt takes no 'heads'. ": lambda: zoo.build("gpt", "gpt2", heads=3),
  "gpt takes no 'dept'. Did you mean 'depth'? It takes: ": lambda: zoo.build("gpt", "gpt2", dept=3),
  "gpt needs 'dim', 'depth', 'num_heads'. ": lambda: zoo.build("gpt", vocab_size=23, max_length=11),
  "gpt.depth is '2' (str). It must be an int.": lambda: zoo.build("gpt", **{**SIZES, "depth": "2"}),
  "gpt.depth is 2.0 (float). It must be an int.": lambda: zoo.build("gpt", **{**SIZES, "depth": 2.0}),
  "gpt.scan is 1 (int). It must be a bool or none.": lambda: zoo.build("gpt", **SIZES, scan=1),
  "gpt: depth is 0. It must be at least 1.": lambda: zoo.build("gpt", **{**SIZES, "depth": 0}),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_a_mistake_ends_in_one_line_that_helps(message):
  with pytest.raises(UserError) as error:
    MISTAKES[message]()
  assert str(error.value).startswith(message) and "\n" not in str(error.value)


@pytest.mark.parametrize(
  "family, sizes, message",
  [
    ("gpt", {"epsilon": float("nan")}, "gpt.epsilon is nan. Write a number"),
    ("gpt", {"epsilon": -1e-5}, "gpt.epsilon is -1e-05. It must be at least 0"),
    ("llama", {"theta": 0.0}, "llama.theta is 0.0. It must be above 0"),
    ("gemma", {"local_theta": float("inf")}, "gemma.local_theta is inf. It must be a finite number"),
    ("gemma", {"cap": float("nan")}, "gemma.cap is nan. Write a number"),
    ("llama", {"rope": {"name": "linear", "factor": float("nan")}}, "llama.rope.factor is nan. It must be a finite"),
    ("llama", {"rope": {"name": "linear", "factor": 0}}, "rope linear has the factor 0. It must be a number above 0"),
    ("llama", {"rope": {"name": "linear", "factor": "x"}}, "rope linear has the factor 'x'. It must be a number above"),
    ("llama", {"rope": {"name": "llama3", "factor": 8.0, "trained_length": 8, "low": 4.0}}, "high must be above low"),
    ("dinov2", {"layer_scale": float("nan")}, "dinov2.layer_scale is nan. Write a number"),
  ],
)  # fmt: skip
def test_numbers_that_make_nan_of_everything_are_refused(family, sizes, message):
  needs = {"image_size": 6, "patch_size": 3} if family == "dinov2" else {"vocab_size": 23, "max_length": 11}
  needs |= {} if family in ("gpt", "dinov2") else {"num_kv_heads": 1, "head_dim": 4, "mlp_dim": 7}
  with pytest.raises(UserError, match=message):
    zoo.build(family, **{**needs, "dim": 6, "depth": 1, "num_heads": 3, **sizes})


def test_a_start_that_is_no_token_is_refused_where_it_is_used():
  model = zoo.build("transformer", vocab_size=23, max_length=11, dim=6, depth=1, num_heads=2, start_token=23)
  with pytest.raises(ValueError, match="start_token is 23, and the model's tokens are 0 to 22"):
    jax.eval_shape(lambda rng: model.init(rng, model.example()[0]), jax.random.key(0))


def test_own_sizes_go_before_the_published():
  model = zoo.build("gpt", "gpt2", dim=12, num_heads=3, depth=2)
  params = jax.eval_shape(lambda rng: model.init(rng, *model.example()), jax.random.key(0))["params"]
  assert params["embed"]["embedding"].shape == (50257, 12)
  assert set(params["stack"]) == {"layer_0", "layer_1"}


def test_a_model_can_be_built_again_from_its_spec():
  model = zoo.build("gpt", "gpt2", dim=12, num_heads=3, dtype="bfloat16")
  assert model.spec == {"family": "gpt", "variant": "gpt2", "dim": 12, "num_heads": 3, "dtype": "bfloat16"}
  again = zoo.build(**json.loads(json.dumps(model.spec)))
  assert again == model and again.spec == model.spec
  assert model.clone().spec == model.spec


def test_models_of_equal_parts_are_equal_however_they_were_asked_for():
  published = dict(vocab_size=50257, max_length=1024, dim=768, depth=12, num_heads=12)
  one, other = zoo.build("gpt", "gpt2"), zoo.build("gpt", **published)
  assert one == other and hash(one) == hash(other) and one.spec != other.spec


def test_a_factory_called_directly_makes_a_model_without_a_spec():
  from zoo.models.gpt import gpt

  assert gpt(**SIZES).spec == {}


def test_parameters_are_counted_without_being_made():
  # 23 * 6 + 11 * 6, and per layer 4 * (6 * 6 + 6) + 6 * 24 + 24 + 24 * 6 + 6 + 4 * 6, and 2 * 6
  assert count_parameters(zoo.build("gpt", **SIZES)) == 23 * 6 + 11 * 6 + 2 * (4 * 42 + 168 + 150 + 24) + 12


def test_models_are_listed_by_pattern():
  assert [row.variant for row in zoo.list_models("bert")] == ["base", "large"]
  assert [row.variant for row in zoo.list_models("gpt2-[ml]*")] == ["gpt2-medium", "gpt2-large"]
  assert [row.variant for row in zoo.list_models("VIT/b/*")] == ["B/32", "B/16"]
  assert zoo.list_models("nothing") == []
  (mistral,) = zoo.list_models("mistral-7b")
  assert "Mistral 7B (Jiang et al., 2023)" in mistral.paper


def test_the_list_reads_as_a_table():
  head, row = str(zoo.list_models("bert/base")).splitlines()
  assert head.split() == ["family", "variant", "parameters", "paper"]
  assert (
    row.startswith("bert    base     110,106,428  BERT: Pre-training") and "https://arxiv.org/abs/1810.04805" in row
  )


def test_a_pattern_that_nothing_matches_is_told():
  assert repr(zoo.list_models("zzz")) == "No variant matches 'zzz'. zoo.list_models() shows all."
  assert str(zoo.list_models("gtp2")) == "No variant matches 'gtp2'. Did you mean 'gpt2'? zoo.list_models() shows all."


def test_data_of_more_classes_are_refused_with_their_names():
  model = zoo.build("vit", image_size=4, patch_size=2, dim=4, depth=1, num_heads=2, num_classes=2)
  message = "model.num_classes is 2, the data have 3 classes: 'a, b, c'. Set model.num_classes to 3 or more, or correct"
  with pytest.raises(UserError, match=message):
    check_fits(model, {"num_classes": 3, "class_names": ["a", "b", "c"]})


def test_more_classes_than_the_data_have_are_a_line():
  model = zoo.build("vit", image_size=4, patch_size=2, dim=4, depth=1, num_heads=2, num_classes=10)
  (line,) = unused_classes(model, {"num_classes": 4})
  assert line == "model.num_classes is 10, the data have 4: 6 classes are never trained."
  assert unused_classes(model, {"num_classes": 10}) == unused_classes(model, {}) == []
  assert unused_classes(zoo.build("gpt", **SIZES), {"num_classes": 4}) == []


def in_a_fresh_python(code):
  return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_importing_the_zoo_imports_nothing_else():
  heavy = "[name for name in ('jax', 'flax', 'numpy', 'orbax') if name in sys.modules]"
  assert in_a_fresh_python(f"import sys, zoo; print({heavy})") == "[]"


def test_the_public_names_stay_functions_when_their_modules_are_imported():
  code = """
import zoo.build, zoo.generate, sys
from zoo.generate import generate
from zoo.build import build
assert zoo.build is build and zoo.generate is generate and callable(zoo.generate)
assert sys.modules["zoo.generate"].generate is generate
from zoo import generate as again, list_models
assert again is generate and callable(list_models)
print(sorted(set(zoo.__all__) - set(dir(zoo))), zoo.layers.__name__ if "zoo.layers" in sys.modules else "")
"""
  assert in_a_fresh_python(code) == "[] zoo.layers"


def test_an_unknown_name_is_an_attribute_error():
  with pytest.raises(AttributeError, match="module 'zoo' has no attribute 'biuld'"):
    zoo.biuld  # noqa: B018


def test_an_objective_is_found_by_its_name_and_its_options_are_checked():
  model = zoo.build("gpt", **SIZES)
  batch = {"tokens": np.zeros((2, 5), np.int32)}
  objective = zoo.build_objective("causal_lm", model, chunk=2)
  loss, _ = objective.loss(objective.init(jax.random.key(0), batch), batch)
  assert loss.shape == () and np.isfinite(loss)
  for options, message in (
    ({"name": "casual_lm"}, "Did you mean 'causal_lm'"),
    ({"name": "causal_lm", "chunks": 2}, "takes no 'chunks'"),
  ):
    with pytest.raises(UserError, match=message):
      zoo.build_objective(**options, model=model)


@pytest.mark.parametrize("token", [-1, 7])
def test_tokens_outside_of_the_vocabulary_are_refused_before_they_make_nan(token):
  model = zoo.build("gpt", **SIZES)
  tokens = np.array([[1, 2], [3, model.vocab_size if token == 7 else token]], np.int32)
  message = f"rows: tokens have {tokens[1, 1]}, the model's are 0 to {model.vocab_size - 1}"
  with pytest.raises(UserError, match=message):
    check_tokens(model, {"tokens": tokens}, "rows")
  records = Toy(tokens=tokens, valid=np.ones_like(tokens, bool), info={"bytes": 4, "source": "rows"})
  with pytest.raises(UserError, match=message):
    perplexity(model, data=records)(None)
  check_tokens(model, {"tokens": tokens % model.vocab_size, "label": tokens}, "rows")


TABLE = StaticEmbedding(5)
READS_MORE = dict(vocab_size=7, decoder_vocab_size=5, max_length=8, dim=6, depth=1, num_heads=3)


@pytest.mark.parametrize(
  "model, name, size",
  [
    (TABLE, "tokens", 5),
    (zoo.build("clip_text", "ViT-B", vocab_size=7), "tokens", 7),
    (zoo.build("marian", **READS_MORE), "tokens", 7),
    (zoo.build("marian", **READS_MORE), "target_tokens", 5),
    (marian(**READS_MORE), "tokens", 7),
    (marian(**READS_MORE), "target_tokens", 5),
  ],
)
def test_every_table_that_tokens_are_looked_up_in_has_its_own_size(model, name, size):
  tokens = np.arange(size, dtype=np.int32)[None]
  check_tokens(model, {name: tokens, "label": tokens + 99}, "rows")
  for wrong in (tokens + 1, tokens - 1):
    with pytest.raises(UserError, match=f"rows: {name} have (-1|{size}), the model's are 0 to {size - 1}"):
      check_tokens(model, {name: wrong}, "rows")
