"""Heads that decoders gain by fine-tuning, from a folder that torch wrote to one that it reads."""

import pytest

from tests.data.toys import write_jsonl
from tests.evaluate import hub
from tests.finetune.test_finetune import flags, of_texts, reference, reviews, tuned
from zoo.config.loading import load
from zoo.errors import UserError
from zoo.finetune.filling import with_task

pytest.importorskip("transformers")


@pytest.fixture
def folder(tmp_path):
  """A tiny GPT-2 over bytes that torch wrote, with a token of padding."""
  entries = dict(vocab_size=258, n_positions=40, n_embd=12, n_layer=2, n_head=3, pad_token_id=257)
  entries |= dict(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=256, eos_token_id=256)
  path = reference(tmp_path / "gpt2", "GPT2LMHeadModel", "GPT2Config", **entries)
  hub.byte_tokenizer(["<|endoftext|>", "<pad>"]).save(str(path / "tokenizer.json"))
  hub.tokenizer_config(path, eos_token="<|endoftext|>", pad_token="<pad>")
  return path


def test_a_gpt2_classifies_texts_by_their_last_token(folder, tmp_path):
  source = reviews(tmp_path / "my.csv")
  arguments = flags(folder, "classification", source, tmp_path / "run", "--config.data.label_field=verdict")
  theirs, _, config, said = tuned(arguments, "GPT2ForSequenceClassification", of_texts, tmp_path)
  assert theirs.config.id2label == {0: "bad", 1: "fine", 2: "good"} and theirs.config.pad_token_id == 257
  assert config.model.head == "classify" and "head: new, 3 classes: bad, fine, good." in said


def test_a_task_whose_head_the_family_lacks_is_refused(folder, tmp_path):
  write_jsonl(tmp_path / "x.jsonl", [{"question": "a", "choices": ["b", "c"], "label": 0}] * 8)
  with pytest.raises(UserError, match="the zoo's has no head 'multiple_choice'"):
    with_task(load(flags(folder, "multiple_choice", f"jsonl:{tmp_path}/x.jsonl", tmp_path / "run"))[0])
