import contextlib
import json
import pickle
import tracemalloc

import numpy as np
import pytest

from tests.data import toys
from zoo.data import corpus
from zoo.data.blocks import block_sums
from zoo.data.cache import SUMS, cache_folder
from zoo.data.language import language
from zoo.data.pipeline import eval_batches
from zoo.data.sources import open_source
from zoo.data.tokenizers import tokenizer
from zoo.errors import UserError
from zoo.storage import write_checksums

BYTES = tokenizer("bytes")
DOCUMENTS = ["one", "two words", "dréi", "a fourth, longer one"]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
  monkeypatch.setenv("ZOO_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def folder(tmp_path):
  toys.write_jsonl(tmp_path / "texts.jsonl", [{"text": text, "id": i} for i, text in enumerate(DOCUMENTS)])
  return tmp_path


def open_text(folder, **options):
  return language("jsonl:.", data_dir=str(folder), **{"tokenizer": "bytes", "max_length": 7, **options})


def stream(records):
  """The target tokens in order, without the first token of the stream."""
  examples = [records[i] for i in range(len(records))]
  return examples[0]["tokens"][:1].tolist() + [t for e in examples for t in e["tokens"][1:][e["valid"][1:]].tolist()]


@pytest.mark.parametrize("length", [2, 3, 7, 10, 100])
def test_every_token_is_predicted_once_with_an_end_around_each_document(folder, length):
  documents = BYTES.decode(stream(open_text(folder, max_length=length))).split("<|end|>")
  assert documents[0] == documents[-1] == ""
  assert sorted(documents[1:-1]) == sorted(DOCUMENTS)


def test_a_chunk_begins_where_the_one_before_it_ends(folder):
  records = open_text(folder)
  for index in range(1, len(records)):
    assert records[index]["tokens"][0] == records[index - 1]["tokens"][-1]
  last = records[len(records) - 1]
  assert not last["valid"].all() and (last["tokens"][~last["valid"]] == BYTES.pad).all()
  assert last["tokens"].dtype == np.int32 and last["tokens"].shape == last["valid"].shape == (7,)
  with pytest.raises(IndexError):
    records[len(records)]


def test_bits_per_byte_can_be_computed_exactly(folder):
  records = open_text(folder)
  num_bytes = len("".join(DOCUMENTS).encode())
  assert records.info["bytes"] == num_bytes
  assert records.info["tokens"] == len(stream(records)) - 1 == num_bytes + len(DOCUMENTS)
  predicted = sum((batch["valid"][:, 1:] * batch["weight"][:, None]).sum() for batch in eval_batches(records, 4))
  assert predicted == records.info["tokens"]
  assert records.info["documents"] == len(DOCUMENTS)


def test_documents_of_splits_do_not_mix(folder):
  train, rest = (open_text(folder, split=split) for split in ("train[:50%]", "train[50%:]"))
  texts = [set(BYTES.decode(stream(records)).split("<|end|>")) - {""} for records in (train, rest)]
  assert not texts[0] & texts[1] and texts[0] | texts[1] == set(DOCUMENTS)


def test_large_texts_are_read_in_parts(folder, monkeypatch):
  whole = stream(open_text(folder))
  monkeypatch.setattr(corpus, "_BATCH_CHARACTERS", 5)
  assert stream(open_text(folder, cache=False)) == whole


def test_tokens_are_kept_and_made_anew_when_anything_changed(folder, monkeypatch):
  kept = lambda: {path.name for path in (cache_folder() / "tokens").iterdir() if path.is_dir()}
  before = stream(open_text(folder))
  assert len(kept()) == 1
  with monkeypatch.context() as patch:
    patch.setattr(type(BYTES), "encode_batch", None)
    assert stream(open_text(folder)) == before
    assert stream(open_text(folder, max_length=9)) == before
  open_text(folder, split="train[:2]")
  open_text(folder, tokenizer="gpt2")
  assert len(kept()) == 3
  toys.write_jsonl(folder / "texts.jsonl", [{"text": "changed"}])
  assert BYTES.decode(stream(open_text(folder))) == "<|end|>changed<|end|>"
  assert len(kept()) == 4


def test_without_the_cache_nothing_is_written(folder):
  assert stream(open_text(folder, cache=False)) == stream(open_text(folder))
  for path in sorted(cache_folder().glob("**/*"), reverse=True):
    path.rmdir() if path.is_dir() else path.unlink()
  open_text(folder, cache=False)
  assert not list(cache_folder().iterdir())


def test_a_cache_that_was_not_finished_is_not_used(folder, monkeypatch):
  def broken(self, texts):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(type(BYTES), "encode_batch", broken)
    with pytest.raises(KeyboardInterrupt):
      open_text(folder)
  assert not [path for path in (cache_folder() / "tokens").iterdir() if path.is_dir()]
  assert len(open_text(folder)) > 0


def test_a_damaged_cache_gives_no_other_tokens(folder, capsys):
  whole = [chunk["tokens"].tolist() for chunk in map(open_text(folder).__getitem__, range(3))]
  (path,) = cache_folder().glob("tokens/*/tokens.bin")
  path.write_bytes(path.read_bytes()[::-1])
  assert [chunk["tokens"].tolist() for chunk in map(open_text(folder).__getitem__, range(3))] == whole
  assert "tokens.bin have changed since they were written). It is rebuilt." in capsys.readouterr().err


def test_a_large_cache_is_verified_as_it_is_read(folder, monkeypatch, capsys):
  records = open_text(folder)
  whole = stream(records)
  monkeypatch.setattr("zoo.data.cache.CHEAP", 8)
  monkeypatch.setattr("zoo.data.blocks.BLOCK", 16)  # Bytes: eight tokens.
  (path,) = cache_folder().glob("tokens/*/tokens.bin")
  np.save(path.with_name("blocks.npy"), block_sums(path))
  (path.parent / SUMS).unlink()
  write_checksums(path.parent, path.parent / SUMS)
  opened = open_text(folder)
  assert stream(opened) == whole and stream(pickle.loads(pickle.dumps(opened))) == whole
  content = path.read_bytes()
  path.write_bytes(content[:40] + bytes([content[40] ^ 1]) + content[41:])
  opened = open_text(folder)
  assert opened[0]["tokens"].tolist() == records[0]["tokens"].tolist() and not capsys.readouterr().err
  with pytest.raises(
    UserError, match="tokens.bin is damaged: its bytes from .* on have changed .* the file is rebuilt"
  ):
    stream(opened)
  assert stream(open_text(folder)) == whole
  assert "It is rebuilt." in capsys.readouterr().err


def test_half_a_character_in_a_document_is_refused_with_its_record(tmp_path):
  (tmp_path / "train.jsonl").write_text('{"text": "whole"}\n{"text": "a cut \\ud83d"}\n')
  with pytest.raises(UserError, match=r"train\.jsonl line 2 holds '\\ud83d', a lone surrogate\."):
    language(f"jsonl:{tmp_path}", tokenizer="bytes", max_length=2)


def test_a_cache_without_room_is_told(folder, monkeypatch):
  def full(*args, **kwargs):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(np, "savez", full)
  with pytest.raises(UserError, match="Cannot write to the cache .*: No space left on device. Set ZOO_CACHE"):
    open_text(folder)
  assert not [path for path in (cache_folder() / "tokens").iterdir() if path.is_dir()]


@pytest.mark.parametrize(
  "options, message",
  [
    ({"max_length": 1}, "max_length is 1. It must be at least 2:"),
    ({"text_field": "texts"}, r"has no field 'texts'. Did you mean 'text'\? It has: text, id"),
    ({"text_field": "id"}, "id is [0-3], not a str"),
    ({"tokenizer": "gtp2"}, r"no tokenizer 'gtp2'. Did you mean 'gpt2'\?"),
  ],
)
def test_wrong_options_are_told(folder, options, message):
  with pytest.raises(UserError, match=message):
    open_text(folder, **options)


def test_a_broken_document_is_named(folder):
  toys.write(folder, {"texts.jsonl": "".join(json.dumps({"text": "a"}) + "\n" for _ in range(3)) + "{\n"})
  with pytest.raises(UserError, match=r"texts\.jsonl line 4 is not JSON"):
    open_text(folder)
  toys.write(folder, {"texts.jsonl": '{"text": "a"}\n{"text": "a"}\n{"other": "b"}\n'})
  with pytest.raises(UserError, match=r"has no field 'text'"):
    open_text(folder)
  toys.write(folder, {"texts.jsonl": '{"text": " "}\n'})
  with pytest.raises(UserError, match=r"has no text in field 'text'\."):
    open_text(folder)


def test_rows_that_no_memory_holds_are_refused():
  with pytest.raises(UserError, match=r"^max_length is 1000000000000. One row of so many tokens needs 4,656 GiB"):
    language("text:none", tokenizer="bytes", max_length=10**12)
  with pytest.raises(UserError, match=r"^length is 1000000000000. One row"):
    tokenizer("bytes")(["a"], length=10**12)


def test_tokenising_reports_and_holds_a_batch_of_documents_not_the_text(tmp_path, monkeypatch):
  monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
  monkeypatch.setattr(corpus, "_BATCH_CHARACTERS", 40_000)
  with open(tmp_path / "a.txt", "w") as file:
    file.writelines(f"{'words of a long line ' * 19}{number}\n" for number in range(12_007))
  size = (tmp_path / "a.txt").stat().st_size
  reports = []
  monkeypatch.setattr(
    corpus, "progress", lambda *about: (reports.append(about), contextlib.nullcontext(reports.append))[1]
  )
  source = open_source(f"lines:{tmp_path}/a.txt")
  tracemalloc.start()
  corpus._encode(source, BYTES, "text", None, lambda ids: None)
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert size > 4_500_000 and peak < size / 2
  assert reports[0] == (f"tokenising {source.name}", 12_007, "documents") and sum(reports[1:]) == 12_007
