"""Tokenizers as transformers reads the same folder: ids, padding, truncation, pairs, what is decoded."""

import json
import shutil

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

import zoo
from zoo.data import package_data
from zoo.data.tokenizers import tokenizer

TEXTS = [
  "Hello, my dog is cute",
  "",
  " ",
  "\n\t  two  blanks \r\n",
  "don't they're I'LL we'd",
  "naïve CAFÉ Ångström e\u0301",
  "日本語とEnglish混在",
  "😀👩\u200d👩\u200d👧\u200d👦!!! 1234567890",
  "[MASK] of France",
  "Paris is the <mask> of",
  "x<mask>y  [MASK]z",
  "<s></s><pad>",
  "<|endoftext|>a<|startoftext|>",
  "a" * 120,
  "unconstitutionality " * 9,
  "\u200b\u00a0\u2028zero\x00width\ufeff",
  "‘quoted’ “text” … — end.",
  "مرحبا بالعالم",
  "A sentence . With spaced , signs !",
  "##ing [UNK] Ġthe ▁the </w>",
]
CORPUS = [text for text in TEXTS if "<" not in text and "[" not in text] * 4


def bert(folder, **config):
  """Word pieces of the shipped vocabulary."""
  pieces = package_data.lines("vocab/bert.txt.xz")
  (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8")
  write(folder, "BertTokenizer", model_max_length=512, **config)


def mpnet(folder, **config):
  """The same word pieces behind RoBERTa's special tokens."""
  pieces = ["<s>", "<pad>", "</s>", "<unk>", *package_data.lines("vocab/bert.txt.xz"), "<mask>"]
  (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8")
  write(folder, "MPNetTokenizer", model_max_length=512, **config)


def byte_pairs(folder, cls, special, **config):
  """Byte pairs learnt from the texts above."""
  backend = tokenizers.Tokenizer(models.BPE())
  backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  learn(backend, folder, special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
  write(folder, cls, **config)


def clip(folder, **config):
  """The shipped vocabulary as CLIP's files have it."""
  backend = tokenizer("clip").backend
  folder_of_model = folder / "model"
  folder_of_model.mkdir()
  backend.model.save(str(folder_of_model))
  vocab = json.loads((folder_of_model / "vocab.json").read_text(encoding="utf-8")) | {
    "<|startoftext|>": 49406,
    "<|endoftext|>": 49407,
  }
  (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
  shutil.copy(folder_of_model / "merges.txt", folder)
  write(folder, "CLIPTokenizer", model_max_length=77, **config)


def unigram(folder, **config):
  """Sentence pieces with T5's special tokens, as a tokenizer.json."""
  backend = tokenizers.Tokenizer(models.Unigram())
  backend.normalizer = normalizers.NFKC()
  backend.pre_tokenizer = pre_tokenizers.Metaspace()
  backend.decoder = decoders.Metaspace()
  special = ["<pad>", "</s>", "<unk>", "<extra_id_0>"]
  trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token="<unk>", show_progress=False)
  backend.train_from_iterator(CORPUS, trainer)
  ids = [("</s>", 1)]
  backend.post_processor = processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", ids)
  backend.save(str(folder / "tokenizer.json"))
  named = dict(eos_token="</s>", pad_token="<pad>", unk_token="<unk>")
  write(folder, "PreTrainedTokenizerFast", **named, model_max_length=40, **config)


def learn(backend, folder, special, **options):
  trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False, **options)
  backend.train_from_iterator(CORPUS, trainer)
  backend.model.save(str(folder))


def write(folder, cls, **config):
  (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": cls, **config}), encoding="utf-8")


def added(**tokens):
  flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
  return {str(number): {"content": content, **flags, **more} for number, (content, more) in tokens.items()}


ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
FOLDERS = {
  "bert": bert,
  "cased bert": lambda folder: bert(folder, do_lower_case=False, strip_accents=False),
  "bert without chinese": lambda folder: bert(folder, tokenize_chinese_chars=False, strip_accents=False),
  "tidy bert": lambda folder: bert(folder, clean_up_tokenization_spaces=True, padding_side="left"),
  "mpnet": mpnet,
  "gpt2": lambda folder: byte_pairs(folder, "GPT2Tokenizer", ["<|endoftext|>"], pad_token="<|endoftext|>"),
  "gpt2 with bos": lambda folder: byte_pairs(
    folder, "GPT2Tokenizer", ["<|endoftext|>"], pad_token="<|endoftext|>", add_bos_token=True, add_prefix_space=True
  ),
  "gpt2 with a new pad": lambda folder: byte_pairs(
    folder, "GPT2Tokenizer", ["<|endoftext|>"], pad_token="[PAD]", padding_side="left", truncation_side="left"
  ),
  "roberta": lambda folder: byte_pairs(folder, "RobertaTokenizer", ROBERTA),
  "roberta with a mask that takes the blank": lambda folder: byte_pairs(
    folder,
    "RobertaTokenizer",
    ROBERTA,
    mask_token={
      "content": "<mask>",
      "lstrip": True,
      "rstrip": False,
      "single_word": False,
      "normalized": False,
      "__type": "AddedToken",
    },
    additional_special_tokens=["<one>", "<two>"],
  ),  # fmt: skip
  "clip": clip,
  "unigram": unigram,
  "unigram with more": lambda folder: unigram(folder, extra_special_tokens=["<mask>"], truncation_side="left"),
}
HAVE_FAST_ONLY = ("unigram", "unigram with more")


def compare(folder):
  """Everything that the two give for the texts, one by one, in batches, in pairs, cut and decoded."""
  import transformers

  theirs, ours = transformers.AutoTokenizer.from_pretrained(folder), zoo.load_tokenizer(folder)
  seconds = TEXTS[3:] + TEXTS[:3]
  for length in (None, 7, 23):
    for pairs in (None, seconds):
      want = theirs(
        TEXTS, pairs, padding="max_length" if length else True, truncation=True, max_length=length,
        return_tensors="np", return_token_type_ids=True,
      )  # fmt: skip
      got = ours(TEXTS, pairs, length=length)
      np.testing.assert_array_equal(got["valid"], want["attention_mask"])
      np.testing.assert_array_equal(got["tokens"] * got["valid"], want["input_ids"] * want["attention_mask"])
      if ours.pad is not None:
        np.testing.assert_array_equal(got["tokens"], want["input_ids"])
      if pairs:
        np.testing.assert_array_equal(got["segments"], want["token_type_ids"] * want["attention_mask"])
  for text in TEXTS:
    plain = theirs(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert ours.encode(text) == plain
    ids = theirs(text)["input_ids"]
    assert ours.decode(ids) == theirs.decode(ids)
  roles = {role: getattr(theirs, f"{role}_token_id") for role in ("pad", "eos", "bos", "cls", "sep", "mask")}
  assert {role: getattr(ours, role) for role in roles} == roles
  assert ours.max_length == (theirs.model_max_length if theirs.model_max_length < 10**9 else None)
  return theirs


@pytest.mark.parametrize("name", FOLDERS)
def test_reads_a_folder_as_the_reference_does(name, tmp_path):
  (tmp_path / "first").mkdir()
  FOLDERS[name](tmp_path / "first")
  theirs = compare(tmp_path / "first")
  theirs.save_pretrained(tmp_path / "saved")
  assert (tmp_path / "saved" / "tokenizer.json").exists()
  compare(tmp_path / "saved")


@pytest.mark.parametrize("cls", ["PreTrainedTokenizerFast", "BertTokenizer"])
def test_the_class_says_which_settings_change_a_tokenizer_json(cls, tmp_path):
  import transformers

  special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
  backend = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
  backend.normalizer, backend.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
  backend.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=150, special_tokens=special))
  backend.save(str(tmp_path / "tokenizer.json"))
  write(tmp_path, cls, do_lower_case=False, split_special_tokens=True, pad_token="[PAD]")
  theirs, ours = transformers.AutoTokenizer.from_pretrained(tmp_path), zoo.load_tokenizer(tmp_path)
  for text in TEXTS:
    assert ours([text])["tokens"][0].tolist() == theirs(text)["input_ids"]


def test_the_dropout_of_byte_pairs_is_for_training_them(tmp_path):
  backend = tokenizers.Tokenizer(models.BPE())
  backend.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=200, show_progress=False))
  wanted = backend.encode(CORPUS[0]).ids
  backend.model.dropout = 0.9
  backend.save(str(tmp_path / "tokenizer.json"))
  assert zoo.load_tokenizer(tmp_path).encode(CORPUS[0]) == wanted
