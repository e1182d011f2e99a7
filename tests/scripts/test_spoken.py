import json
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))  # As when the script runs.

import spoken  # noqa: E402


def test_no_sentence_of_test_is_trained_on():
  train, test = spoken.sentences("train"), spoken.sentences("test")
  assert not {*train} & {*test} and len(train) + len(test) == 5**5 and len(test) > 250


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_recordings_are_of_16_khz_beside_their_texts(tmp_path):
  soundfile = pytest.importorskip("soundfile")
  spoken.main([f"--out={tmp_path}", "--count=8"])
  for split, count in (("train", 8), ("test", 1)):
    rows = [json.loads(line) for line in (tmp_path / split / "metadata.jsonl").read_text().splitlines()]
    assert len(rows) == count and {row["text"] for row in rows} <= {*spoken.sentences(split)}
    for row in rows:
      samples, rate = soundfile.read(tmp_path / split / row["file_name"])
      assert rate == 16000 and len(samples) / rate == pytest.approx(row["seconds"], abs=0.01) and samples.any()


def test_without_the_synthesiser_one_line_says_how_to_get_it(tmp_path, monkeypatch):
  monkeypatch.setattr(shutil, "which", lambda name: None)
  with pytest.raises(SystemExit, match="espeak-ng is not installed. Install it with: apt install espeak-ng"):
    spoken.main([f"--out={tmp_path}"])
