import json
import time

import numpy as np
import pytest

from benchmarks import (
  attention_kernels,
  attention_memory,
  contrastive_memory,
  data,
  generate,
  generate_file,
  logits_memory,
  long_context,
  long_sides,
  sides,
  train_step,
  transcribe,
)
from zoo.build import sizes_of
from zoo.data.sources import open_source

TINY = dict(vocab_size=23, max_length=40, dim=6, depth=2, num_heads=3)
TEXTS = {"gpt": TINY, "bert": dict(TINY, head="mlm"), "t5": dict(vocab_size=23, dim=6, depth=2, num_heads=3)}


def here(run):
  """A side in this process, as `sides.Side` is one in another."""
  return lambda **case: sides.measured(run, case, time.process_time)


def test_tokens_are_counted_and_compared(tmp_path):
  sides.writer(tmp_path, "gpt", TINY, sharp=3.0)()
  part = here(generate.ours(tmp_path))
  options = dict(batches=[1, 2], new_tokens=3, repeats=1)
  rows = generate.rows({"ours": part, "theirs": part}, **options)
  assert [(row["batch"], row["until"]) for row in rows] == [
    (batch, until) for batch in (1, 2) for until in ("3 tokens", "the first token")
  ]
  assert rows[0]["same_tokens"] == 1 and "same_tokens" not in rows[1]
  assert rows[2]["ours_per_second"] == pytest.approx(2 * 3 / rows[2]["ours_seconds"])
  alone = generate.rows({"ours": part}, **options)
  assert not any("theirs" in name or name == "ratio" for row in alone for name in row)
  sides.report("generate", rows, "a CPU", 1, tmp_path / "rows.json")
  assert json.loads((tmp_path / "rows.json").read_text())["rows"] == rows


def test_a_file_of_prompts_is_written_and_compared(tmp_path):
  sides.writer(tmp_path, "gpt", TINY, sharp=3.0)()
  prompts = generate_file.prompts_of(7, 13, 23)
  cases = {"whole": [], "ended": generate_file.ends_of(17, 23)}
  part, taken = here(generate_file.ours(tmp_path)), []

  def other(batch, **case):
    """The same by one prompt at a time, slower with every batch."""
    taken.append(batch)
    return len(taken), part(batch=1, **case)[1]

  options = dict(new_tokens=11, batch=4, batches=[2, 3])
  whole, ended = generate_file.rows({"ours": part, "theirs": other}, prompts, cases, **options)
  assert whole["tokens"] == 7 * 11 > ended["tokens"] >= 7
  assert whole["same_texts"] == ended["same_texts"] == whole["tokens_before_a_difference"] == 1
  assert taken == [2, 3, 2, 3] and whole["their_batch"] == ended["their_batch"] == 2
  assert generate_file.same([[1, 2, 3], [4]], [[1, 5, 3], [4]]) == {
    "same_texts": 0.5, "tokens_before_a_difference": 2 / 4
  }  # fmt: skip


@pytest.mark.parametrize("family", TEXTS)
def test_a_scan_and_a_loop_train_alike(tmp_path, capsys, family):
  sides.writer(tmp_path, family, TEXTS[family])()
  batch = train_step.batch_of(family, dict(TEXTS[family]), rows=2, length=8)
  parts = {
    form: here(train_step.ours(tmp_path, batch, family, scan=form == "scan", dtype=None)) for form in ("scan", "loop")
  }
  rows = train_step.rows(family, parts, steps=1, repeats=1)
  assert [row["ours"] for row in rows] == ["scan", "loop"] and all(row["ours_seconds"] > 0 for row in rows)
  assert "not the same" not in capsys.readouterr().out
  scan, loop = (part(steps=2)[1]["losses"] for part in parts.values())
  np.testing.assert_allclose(scan, loop, rtol=1e-3)
  assert loop[1] != loop[0]


def test_utilisation_is_told_where_the_peak_is_known():
  row = {"ours_seconds": 0.5, "theirs_seconds": 1.0}
  assert train_step.utilisation(row, 1e12, 4e12) == {"ours_utilisation": 0.5, "theirs_utilisation": 0.25}
  assert train_step.utilisation({"ours_seconds": 0.5}, 1e12, 4e12) == {"ours_utilisation": 0.5}
  assert train_step.utilisation(row, 1e12, None) == {}


def test_medians_and_spread_are_of_pairs():
  rounds = [{"ours": (mine, {}), "theirs": (other, {})} for mine, other in ((1.0, 2.0), (3.0, 3.0), (2.0, 8.0))]
  row = sides.compared(rounds, "ours", "theirs")
  assert row == {"ours_seconds": 2.0, "theirs_seconds": 3.0, "ratio": 0.5, "lowest": 0.25, "highest": 1.0}
  assert sides.table([{"a": 1, "b": 0.12345}, {"a": 2}]).splitlines()[2:] == ["| 1 | 0.123 |", "| 2 |  |"]


def test_both_take_their_turn_and_neither_is_always_second():
  order = []

  def side(name):
    return lambda **case: order.append(name) or (1.0, case)

  rounds = list(sides.alternate({name: side(name) for name in "ab"}, 3, {"x": 1}))
  assert order == list("abbaab") and rounds[1] == {"a": (1.0, {"x": 1}), "b": (1.0, {"x": 1})}


def test_published_sizes_have_batches():
  import zoo

  for family, size, rows, length in train_step.MODELS["published"].values():
    batch = train_step.batch_of(family, sizes_of(zoo.build(family, **size)), min(rows, 2), length)
    assert all(len(array) == 2 for array in batch.values())


def test_a_contrast_in_chunks_is_listed_with_less_memory_than_the_whole():
  found = contrastive_memory.rows([512], embed=16, chunk=64, timed=64)
  assert len(found) == 2 * (2 + 5)
  sigmoid = {row["pairs"]: row for row in found if row["loss"] == "sigmoid_contrastive" and row["devices"] == 1}
  chunked, whole = (sigmoid[form]["512 pairs, MiB"] for form in ("all_gather, chunk 64", "whole"))
  assert chunked < whole == pytest.approx(6 * 512 * 512 * 4 / 2**20, abs=1)
  assert all(row["64 pairs, seconds"] > 0 for row in found)


def test_a_language_model_in_chunks_is_listed_with_less_memory_than_with_all_logits():
  whole, chunked = logits_memory.rows({**TINY, "vocab_size": 9000}, 4, 32, 16, dict(TINY, max_length=256))
  assert whole["4 x 32 tokens, MiB"] > 2 * chunked["4 x 32 tokens, MiB"] > 0
  assert chunked["chunk"] == "16 tokens"
  assert all(row["2 x 256 tokens, in quarters, seconds"] > 0 for row in (whole, chunked))


def test_attention_around_a_ring_is_listed_with_less_memory_than_dense_attention():
  dense, ring = attention_memory.rows(dict(vocab_size=23, dim=8, depth=1, num_heads=2), [8], 2048)
  assert (dense["attention"], ring["attention"]) == ("dense", "ring")
  assert dense["8 devices, MiB"] > 2 * ring["8 devices, MiB"]


def test_long_sequences_are_listed_beside_dense_attention_and_a_reference():
  parts = {name: here(long_sides.attention(name, 512, 32, 1)) for name in ("sparse", "dense")}
  row = long_context.measure("window", parts, "sparse", "dense", 1)
  assert row["ratio, MiB"] < 0.5 and row["ratio"] > 0
  size = dict(vocab_size=23, dim=6, num_heads=3, head=None, depth=1, max_length=16, window=4)
  part = here(long_sides.states("longformer", 16, size))
  assert {"ours_seconds", "theirs_seconds", "ratio"} <= set(
    long_context.measure("model", {"ours": part, "theirs": part}, "ours", "theirs", 1)
  )
  other = lambda **case: (1.0, {"loss": 2 * part()[1]["loss"]})
  with pytest.raises(ValueError, match="not the same model"):
    long_context.measure("model", {"ours": part, "theirs": other}, "ours", "theirs", 1)


def test_temporaries_of_reversible_layers_are_listed_beside_plain_ones():
  reversible, plain = long_sides.temporaries(128)()["rows"]
  assert reversible["ratio"] < 1.05 and plain["ratio"] > 5


def test_a_memory_is_listed_beside_a_window_that_slides():
  memory, window = long_sides.remembered(16, steps=2, count=16)()["rows"]
  assert 0 < memory["ratio"] < 1 / 8 < window["ratio"] == 1
  assert memory["bits per byte"] == pytest.approx(window["bits per byte"], rel=0.1)


@pytest.mark.parametrize("case", ["causal, padding", "grouped heads"])
def test_attention_kernels_are_compared_with_float32(case):
  sizes = dict(batch=2, length=13, heads=4, head_dim=5)
  row = attention_kernels.compare(case, "xla", "float32", 1, **sizes)
  assert row["off"] < 1e-5 and row["ratio"] > 0
  assert 1e-4 < attention_kernels.compare(case, "xla", "bfloat16", 1, **sizes)["dense off"] < 0.05


def test_a_case_that_a_kernel_leaves_to_dense_attention_says_why():
  row = attention_kernels.compare("causal", "cudnn", "float32", 1, batch=2, length=13, heads=4, head_dim=5)
  assert "compute capability" in row["left to dense attention"] and "ratio" not in row


def test_transcripts_of_both_sides_are_compared(tmp_path):
  pytest.importorskip("soundfile")
  size = dict(dim=6, depth=1, num_heads=3, source_length=1500, max_length=40, mels=5, vocab_size=290)
  transcribe.writer(tmp_path, **size)()
  part = here(transcribe.ours(tmp_path))
  options = dict(minutes=0.6, new_tokens=3, num_beams=1, batches=[1, 2], repeats=1)
  rows = transcribe.rows({"ours": part, "theirs": part}, **options)
  assert [row["pipeline's batch"] for row in rows] == [1, 2] and all(row["same text"] for row in rows)
  assert part(minutes=0.6, new_tokens=3, num_beams=1, batch=1)[1]["text"]
  assert len(transcribe.rows({"ours": part}, **options)) == 1


def test_photographs_are_read_to_the_same_records_from_every_format(tmp_path):
  contents = data.photographs(6, 40, 30)
  data.write(tmp_path, contents, ["a text", "another"])
  tars, table = (open_source(f"{kind}:{tmp_path}") for kind in ("webdataset", "parquet"))
  assert sorted(row["image"] for row in tars) == sorted(row["image"] for row in table) == sorted(contents)
  assert [row["text"] for row in sorted(open_source(f"jsonl:{tmp_path}"), key=lambda row: len(row["text"]))] == [
    "a text",
    "another",
  ]
  assert data.random_crop(contents[0], np.random.default_rng(0)).size == (data.SIZE, data.SIZE)


def test_steps_of_a_reformer_are_compared_if_they_begin_alike():
  part = lambda seconds, loss: lambda steps: (seconds * steps, {"losses": [loss]})
  parts = {"ours": part(1, 2.0), "theirs": part(4, 2.01)}
  row = long_context.step("a step", parts, repeats=2)
  assert (row["ours_seconds"], row["theirs_seconds"], row["ratio"]) == (1, 4, 0.25)
  parts["theirs"] = part(4, 3.0)
  with pytest.raises(ValueError, match="^The sides start at the losses .* They are not the same model.$"):
    long_context.step("a step", parts, repeats=2)
