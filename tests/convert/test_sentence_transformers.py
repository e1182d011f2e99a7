"""Vectors against sentence-transformers, for folders of its current and older versions."""

import json
import warnings

import pytest

import zoo
from tests.convert.parity import distance
from tests.hub_folder import published_bert
from zoo.data import package_data

with warnings.catch_warnings():
  warnings.simplefilter("ignore")
  library = pytest.importorskip("sentence_transformers", reason="pip install 'flax-zoo[parity]'")
  from sentence_transformers.sentence_transformer import modules

TEXTS = ["lovely", "The weather is LOVELY today, [MASK] and will be tomorrow.", "", "find it " * 20]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("encoder")
  published_bert(folder, vocab_size=30522, max_length=37, head=None, pad=0)
  (folder / "vocab.txt").write_text("\n".join(package_data.lines("vocab/bert.txt.xz")), encoding="utf-8")
  config = {"tokenizer_class": "BertTokenizer", "do_lower_case": False, "model_max_length": 30}
  (folder / "tokenizer_config.json").write_text(json.dumps(config))
  return modules.Transformer(str(folder))


def randomize(module):
  import torch

  torch.manual_seed(0)
  with torch.no_grad():
    for parameter in module.parameters():
      parameter.copy_(torch.randn_like(parameter))
  return module


def dense(*sizes, **options):
  import torch

  activation = getattr(torch.nn, options.pop("activation", "Tanh"))()
  return randomize(modules.Dense(*sizes, activation_function=activation, **options))


# Modules after the encoder, entries of config_sentence_transformers.json, of sentence_bert_config.json.
CASES = {
  "joined": (lambda: [modules.Pooling(6, ["mean", "cls", "mean_sqrt_len_tokens"])], {}, {}),
  "normed first": (lambda: [modules.Pooling(6), modules.Normalize(), dense(6, 5, activation="GELU")], {}, {}),
  "of tokens": (
    lambda: [dense(6, 5, module_input_name="token_embeddings", bias=False), modules.Pooling(5, "max")],
    {},
    {"max_seq_length": 9, "do_lower_case": True},
  ),
  "prompted": (
    lambda: [modules.Pooling(6, "weightedmean", include_prompt=False), randomize(modules.LayerNorm(6)), dense(6, 6)],
    {"prompts": {"query": "Find THIS: "}, "default_prompt_name": "query", "truncate_dim": 4},
    {"max_seq_length": None, "do_lower_case": True},
  ),
}


def test_static_embeddings_are_those_of_the_library(encoder, tmp_path):
  static = modules.StaticEmbedding(encoder.tokenizer, embedding_dim=5)
  model = library.SentenceTransformer(modules=[static, modules.Normalize()], device="cpu")
  model.save(str(tmp_path))
  assert distance(zoo.embed(tmp_path, TEXTS[:2], prompt="x "), model.encode(TEXTS[:2], prompt="x ")) < 1e-5


@pytest.mark.parametrize("case", CASES)
def test_vectors_are_those_of_the_library(case, encoder, tmp_path):
  after, prompts, options = CASES[case]
  library.SentenceTransformer(modules=[encoder, *after()]).save(str(tmp_path))
  for name, entries in (("config_sentence_transformers.json", prompts), ("sentence_bert_config.json", options)):
    content = json.loads((tmp_path / name).read_text()) if name.startswith("config") else {}
    if entries:
      (tmp_path / name).write_text(json.dumps(content | entries))
  want = library.SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS)
  assert distance(zoo.embed(tmp_path, TEXTS, batch_size=3), want) < 1e-5
