"""SigLIP's tokenizers: case, punctuation and the side of padding, as by the reference."""

import json

import pytest

import zoo

TEXTS = ["a A. a", "b  C!", "", "cab"]
CASES = {
  "of a SigLIP 2 whatever is named": ("siglip2", {"tokenizer_class": "GemmaTokenizer"}),
  "of a SigLIP 2 by its class": ("siglip", {"tokenizer_class": "Siglip2Tokenizer"}),
  "padding where it says": ("siglip2", {"padding_side": "right"}),
  "of a Gemma": ("siglip", {"tokenizer_class": "GemmaTokenizer"}),
  "of no class": ("siglip", {"tokenizer_class": "PreTrainedTokenizerFast"}),
}


def folder_with(path, model_type, **entries):
  """A tokenizer of letters that says nothing of case."""
  import tokenizers

  letters = {letter: i + 5 for i, letter in enumerate("abcABC.!▁")}
  vocab = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3, "<mask>": 4, **letters}
  backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, [], unk_token="<unk>", fuse_unk=True))
  backend.normalizer = tokenizers.normalizers.Replace(" ", "▁")
  backend.post_processor = tokenizers.processors.TemplateProcessing("$A <eos>", special_tokens=[("<eos>", 1)])
  backend.save(str(path / "tokenizer.json"))
  named = {f"{role}_token": f"<{role}>" for role in ("eos", "pad", "bos", "unk")}
  (path / "tokenizer_config.json").write_text(json.dumps({**named, "model_max_length": 9, **entries}))
  (path / "config.json").write_text(json.dumps({"model_type": model_type}))
  return path


@pytest.mark.parametrize("case", CASES)
def test_texts_become_the_tokens_of_the_reference(case, tmp_path):
  import transformers

  model_type, entries = CASES[case]
  folder = folder_with(tmp_path, model_type, **entries)
  theirs = transformers.AutoTokenizer.from_pretrained(folder)
  want = theirs(TEXTS, padding="max_length", truncation=True, return_tensors="np")["input_ids"]
  assert zoo.load_tokenizer(folder)(TEXTS, length=9)["tokens"].tolist() == want.tolist()


def test_the_first_siglip_reads_neither_case_nor_punctuation(tmp_path):
  # transformers' own class, which needs sentencepiece: text.lower(), no punctuation, single blanks.
  tokenizer = zoo.load_tokenizer(folder_with(tmp_path, "siglip", tokenizer_class="SiglipTokenizer"))
  for text, same in {"A.b": "ab", "  c!  A ": "c a", "!": ""}.items():
    assert tokenizer.encode(text) == tokenizer.encode(same)
  cased = folder_with(tmp_path, "siglip", tokenizer_class="SiglipTokenizer", do_lower_case=False)
  assert zoo.load_tokenizer(cased).encode("A.b") == zoo.load_tokenizer(cased).encode("Ab") != tokenizer.encode("ab")
