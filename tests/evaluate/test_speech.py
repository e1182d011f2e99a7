"""Error rates of transcripts: jiwer's on the same texts, of recordings of any length."""

import json

import numpy as np
import pytest
import soundfile

import zoo
from tests.transcribe.listener import recording, whisper_folder
from zoo.data.bad_records import BadRecord
from zoo.errors import UserError
from zoo.evaluate.speech_scores import SpeechScores, normaliser

jiwer = pytest.importorskip("jiwer")
pytest.importorskip("whisper_normalizer")

PAIRS = [
  ("a cat on mat", "a cat on a mat"),
  ("", "Mr. Smith's colour, twenty-one (laughs)"),
  ("two dogs", ""),
  ("", ""),
]


@pytest.mark.parametrize("name", ["english", "basic", "none"])
def test_rates_of_parts_are_those_of_jiwer_for_the_whole(name):
  change, parts = normaliser(name), SpeechScores(normaliser(name))
  texts, references = zip(*PAIRS)
  for start in range(0, 4, 3):
    parts.add(texts[start : start + 3], references[start : start + 3])
  texts, references = [*map(change, texts)], [*map(change, references)]
  metrics = parts.metrics()
  assert metrics["wer"] == pytest.approx(jiwer.wer(references, texts), abs=1e-12)
  assert metrics["cer"] == pytest.approx(jiwer.cer(references, texts), abs=1e-12)
  assert metrics["words"] == sum(len(reference.split()) for reference in references)
  alone = SpeechScores()
  alone.add(["x y"], [""])
  assert alone.metrics()["wer"] == jiwer.wer([""], ["x y"]) == 2


def test_texts_are_normalised_as_the_reference_does():
  english = pytest.importorskip("transformers.models.whisper.english_normalizer")
  from importlib import resources

  spellings = json.loads((resources.files("whisper_normalizer") / "normalizers" / "english.json").read_text())
  pairs = {"english": english.EnglishTextNormalizer(spellings), "basic": english.BasicTextNormalizer()}
  words = "Mr. Smith's colour won't $20 million 3.5% twenty-one oh [noise] (so) double café ß they'd 1,000 1/2".split()
  rng = np.random.default_rng(0)
  for _ in range(50):
    text = " ".join(rng.choice(words, rng.integers(0, 9)))
    for name, theirs in pairs.items():
      assert normaliser(name)(text) == theirs(text)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  """A folder with a Whisper and one with recordings of several lengths and rates."""
  place = tmp_path_factory.mktemp("speech")
  (place / "model").mkdir()
  (place / "data").mkdir()
  whisper_folder(place / "model", seconds=4, max_length=12)
  rows = []
  for number, (seconds, rate) in enumerate([(1.0, 16000), (9.0, 16000), (2.0, 8000)]):
    soundfile.write(place / "data" / f"{number}.wav", recording(seconds, number, rate), rate, subtype="FLOAT")
    rows.append({"file_name": f"{number}.wav", "text": f"Some words, No. {number}"})
  (place / "data" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
  return place


def test_a_folder_and_recordings_give_rates_in_one_line(place, tmp_path):
  options = {"task": "speech", "data": f"audio:{place / 'data'}"}
  metrics = zoo.evaluate_model(place / "model", **options, language="german", folder=tmp_path)
  texts = zoo.transcribe(place / "model", [place / "data" / f"{i}.wav" for i in range(3)], language="de")
  change, references = normaliser("basic"), [f"Some words, No. {i}" for i in range(3)]
  assert metrics["wer"] == pytest.approx(jiwer.wer([*map(change, references)], [*map(change, texts)]))
  assert metrics["cer"] == pytest.approx(jiwer.cer([*map(change, references)], [*map(change, texts)]))
  assert metrics["seconds"] == pytest.approx(12.0, abs=0.01) and metrics["words"] == 12
  written = (tmp_path / "speech.txt").read_text()
  assert "normalise: basic" in written and f"reference  Some words, No. 2\nmodel      {texts[2]}" in written
  with pytest.raises(UserError, match="normalise is 'no'. It must be one of: english, basic, none"):
    zoo.evaluate_model(place / "model", **options, normalise="no")


def test_a_damaged_recording_is_named_or_left_out(place, tmp_path):
  for file in (place / "data").iterdir():
    (tmp_path / file.name).write_bytes(file.read_bytes())
  (tmp_path / "1.wav").write_bytes(b"")
  options = {"task": "speech", "data": f"audio:{tmp_path}", "language": "de"}
  with pytest.raises(BadRecord, match="1.wav is empty"):
    zoo.evaluate_model(place / "model", **options)
  skip = {"action": "skip", "most": 0.5}
  metrics = zoo.evaluate_model(place / "model", **options, bad_records=skip)
  assert metrics["bad_records"] == 1 and metrics["words"] == 8
