import numpy as np
import pytest
from tokenizers import processors

from tests.evaluate import hub
from zoo.data.framed_pairs import framed_pairs
from zoo.errors import UserError


@pytest.fixture
def tokenizer(tmp_path):
  """Over bytes, with <s> and </s> around every text."""
  backend = hub.byte_tokenizer(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
  signs = [(sign, backend.token_to_id(sign)) for sign in ("<s>", "</s>")]
  backend.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=signs)
  folder = tmp_path / "tokenizer"
  folder.mkdir()
  backend.save(str(folder / "tokenizer.json"))
  hub.tokenizer_config(folder, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
  return folder, backend


def test_both_texts_are_framed_as_the_tokenizer_does(tokenizer, tmp_path):
  folder, backend = tokenizer
  source = hub.table(tmp_path / "x.jsonl", {"en": [{"a": "a red house"}, {"a": "dogs"}], "de": ["rot", "viele Hunde"]})
  options = {"tokenizer": str(folder), "source_field": "en.a", "target_field": "de", "prefix": "to German: "}
  records = framed_pairs(source, max_length=29, target_length=11, **options)
  for row, texts in enumerate([("a red house", "rot"), ("dogs", "viele Hunde")]):
    example = records.example(row)
    assert records.texts(row) == texts
    for text, name, length in ((f"to German: {texts[0]}", "", 29), (texts[1], "target_", 11)):
      ids = backend.encode(text).ids
      ids = [*ids[: length - 1], ids[-1]] if len(ids) > length else ids
      tokens, valid = example[f"{name}tokens"], example[f"{name}valid"]
      assert tokens.shape == valid.shape == (length,)
      np.testing.assert_array_equal(tokens[valid], ids)
      assert valid.sum() == len(ids)


def test_a_missing_target_is_refused(tokenizer, tmp_path):
  source = hub.table(tmp_path / "x.jsonl", {"source": ["a"]})
  with pytest.raises(UserError, match="has no field 'target'"):
    framed_pairs(source, tokenizer=str(tokenizer[0]))
