"""Tiny published models with tokenizers, in folders as the hub has them: what torch transformers loads too."""

import json

import jax
import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors

import zoo
from tests.data.toys import write_jsonl
from tests.filled import numbers
from tests.hub_folder import edit_config

WORDS = "good bad film a the very not ##ly quick is was Paris Rome river who where in of lies . ,".split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SIZES = {"max_length": 24, "dim": 12, "depth": 2, "num_heads": 3}


def save(folder, model):
  """Writes the model with random parameters in the hub's layout."""
  shapes = jax.eval_shape(lambda rng: model.init(rng, *model.example()), jax.random.key(0))["params"]
  zoo.save_hf(folder, model, numbers(shapes))


def vocabulary(folder):
  """Writes the files of a tokenizer of WORDS."""
  vocab = [*SPECIAL, *(word.lower() for word in WORDS)]
  (folder / "vocab.txt").write_text("\n".join(vocab), encoding="utf-8")
  signs = {f"{sign[1:-1].lower()}_token": sign for sign in SPECIAL}
  (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", **signs}))


def bert_folder(folder, head, *, id2label=None, **sizes):
  """A BERT with that head over words of WORDS."""
  model = zoo.build("bert", vocab_size=len(SPECIAL) + len(WORDS), head=head, **{**SIZES, **sizes})
  save(folder, model)
  vocabulary(folder)
  if id2label is not None:
    names = {str(number): name for number, name in enumerate(id2label)}
    edit_config(folder, id2label=names, label2id={name: number for number, name in enumerate(id2label)})
  return folder


def byte_tokenizer(special):
  """A backend over bytes, with `special` tokens behind them."""
  letters = sorted(pre_tokenizers.ByteLevel.alphabet())
  backend = tokenizers.Tokenizer(models.BPE({letter: number for number, letter in enumerate(letters)}, []))
  backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
  backend.add_special_tokens(list(special))
  return backend


def bytes_folder(folder, family, *, special=("<|endoftext|>",), template=None, **sizes):
  """A model of that family over bytes: with `special` tokens behind them, and a tokenizer.json."""
  backend = byte_tokenizer(special)
  if template is not None:
    places = [(sign, backend.token_to_id(sign)) for sign in special]
    backend.post_processor = processors.TemplateProcessing(single=template, special_tokens=places)
  sizes = {name: size for name, size in {**SIZES, **sizes}.items() if size is not None}
  model = zoo.build(family, vocab_size=backend.get_vocab_size(), **sizes)
  save(folder, model)
  backend.save(str(folder / "tokenizer.json"))
  return folder


def tokenizer_config(folder, **entries):
  """Writes tokenizer_config.json."""
  (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **entries}))


def sentence(rng, most=17):
  """Random words of WORDS, at least one."""
  return " ".join(rng.choice([word for word in WORDS if "#" not in word], rng.integers(1, most)))


def table(path, columns):
  """Writes columns as a .jsonl and returns its source."""
  write_jsonl(path, [dict(zip(columns, row)) for row in zip(*columns.values(), strict=True)])
  return f"jsonl:{path}"


def rows_of(source, split="train"):
  """The records of a source, in its order."""
  records = zoo.load_data(source, split)
  return [records[index] for index in range(len(records))]


def generator(seed=0):
  return np.random.default_rng(seed)
