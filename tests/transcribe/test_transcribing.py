"""Recordings of any length to texts, as torch transformers' pipeline writes them with the same weights."""

import io
import json

import numpy as np
import pytest
import soundfile

import zoo
from tests.transcribe.listener import recording, whisper_folder
from zoo.errors import UserError
from zoo.transcribe import transcribing


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return whisper_folder(tmp_path_factory.mktemp("whisper"), seconds=4)


@pytest.fixture(scope="module")
def listener(folder):
  return zoo.transcriber(folder).told(max_new_tokens=9)


def encoded(samples, rate=16000, **options):
  file = io.BytesIO()
  soundfile.write(file, samples, rate, **({"format": "WAV", "subtype": "FLOAT"} | options))
  return file.getvalue()


@pytest.mark.parametrize("language, beams", [("german", 1), (None, 1), ("en", 3)])
def test_texts_are_those_of_the_pipeline(folder, listener, language, beams):
  transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
  torch.set_num_threads(1)
  pipeline = transformers.pipeline(
    "automatic-speech-recognition", model=str(folder), chunk_length_s=4, batch_size=3, ignore_warning=True
  )
  options = {"num_beams": beams, "max_new_tokens": 9} | ({} if language is None else {"language": language})
  sounds = [recording(seconds, seed=int(10 * seconds)) for seconds in (0.3, 4.0, 4.1, 10.0, 17.3)]
  wanted = [pipeline(sound.copy(), generate_kwargs=dict(options))["text"].strip() for sound in sounds]
  assert zoo.transcribe(listener, sounds, language=language, num_beams=beams, batch_size=3) == wanted
  assert len({*wanted}) > 3 and max(map(len, wanted)) > 9


def test_the_published_window_and_three_minutes_are_as_in_the_pipeline(tmp_path):
  transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
  torch.set_num_threads(1)
  whisper_folder(tmp_path, seconds=30)
  pipeline = transformers.pipeline(
    "automatic-speech-recognition", model=str(tmp_path), chunk_length_s=30, batch_size=9, ignore_warning=True
  )
  sound = recording(180)
  options = {"num_beams": 1, "max_new_tokens": 9, "language": "de", "task": "translate"}
  wanted = pipeline(sound.copy(), generate_kwargs=dict(options))["text"].strip()
  options.pop("num_beams")
  assert zoo.transcribe(tmp_path, sound, **options) == wanted and wanted


def test_batches_share_windows_of_all_recordings_and_change_no_text(listener):
  sounds = [recording(seconds, seed=3) for seconds in (5.0, 0.5, 9.0)]
  together = zoo.transcribe(listener, sounds, batch_size=4)
  assert together == [zoo.transcribe(listener, sound, batch_size=1) for sound in sounds]
  assert zoo.transcribe(listener, sounds[0], overlap=0) != zoo.transcribe(listener, sounds[0], overlap=1.5)


def test_recordings_are_heard_when_their_batch_is_due(listener, monkeypatch):
  """Memory does not grow with the recordings: of those that wait nothing is read."""
  calls, done = [], []

  def written(self, batch, options):
    done.append(len(calls))
    return [[70 + len(done)] for _ in batch]

  monkeypatch.setattr(transcribing.Transcriber, "_written", written)
  sounds = (calls.append(i) or np.zeros(16000, np.float32) for i in range(7))
  texts = list(listener.texts(sounds, batch_size=2))
  assert done == [2, 4, 6, 7] and len(texts) == 7 and texts[0] == texts[1] != texts[2]


def test_files_bytes_arrays_rates_and_channels_are_one_recording(listener, tmp_path):
  sound = recording(3.0)
  wanted = zoo.transcribe(listener, sound)
  (tmp_path / "a.wav").write_bytes(encoded(sound))
  both = np.stack([sound, sound])
  every = [tmp_path / "a.wav", str(tmp_path / "a.wav"), encoded(sound), both, both.T, sound.astype(np.float64)]
  assert zoo.transcribe(listener, every) == [wanted] * 6
  whole = (sound * 2**15).astype(np.int16)
  assert zoo.transcribe(listener, whole) == zoo.transcribe(listener, whole / np.float32(2**15))
  for rate in (8000, 48000):
    other = recording(3.0, rate=rate)
    assert zoo.transcribe(listener, other, rate=rate) == zoo.transcribe(listener, encoded(other, rate))
    assert isinstance(zoo.transcribe(listener, np.zeros(rate), rate=rate), str)


@pytest.mark.parametrize(
  "bad, message",
  [
    (np.zeros(0, np.float32), "recording 0: the recording has no samples"),
    (np.full(99, np.nan), "recording 0: the recording contains NaN or infinite samples"),
    (np.zeros((99, 9)), r"recording 0 has the shape \(99, 9\). It must be \[samples\], or have an axis of 1 to 8"),
    (np.zeros((2, 2)), r"recording 0 has the shape \(2, 2\)"),
    (np.zeros(9, np.uint8), r"It must be floats in \[-1, 1\], int16 or int32"),
    ("nowhere.wav", "nowhere.wav cannot be read: No such file"),
    (b"", "recording 0: the recording does not decode"),
    (b"text", "recording 0: the recording does not decode"),
    (None, "recording 0 is .*None.*. It must be floats"),
  ],
)
def test_what_is_no_recording_is_refused_in_one_line(listener, bad, message):
  with pytest.raises(UserError, match=message) as error:
    zoo.transcribe(listener, bad)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  "options, message",
  [
    ({"overlap": 2}, "Windows of 64000 samples overlap by 32000 at either end"),
    ({"overlap": -1}, "overlap is -1. It must be a number, at least 0"),
    ({"batch_size": 0}, "batch_size is 0"),
    ({"rate": 0}, "rate is 0. It must be samples a second"),
    ({"language": "klingon"}, "language is 'klingon', which is not in lang_to_id"),
    ({"task": "sing"}, "task is 'sing'. It must be one of translate, transcribe"),
    ({"max_new_tokens": 40}, "max_new_tokens is 40. It must be an int, at least 1 and at most 37"),
    ({"num_beams": 0}, "num_beams is 0"),
  ],
)
def test_options_out_of_range_are_refused_in_one_line(listener, options, message):
  with pytest.raises(UserError, match=message):
    zoo.transcribe(listener, np.zeros(99), **options)


def test_a_model_that_hears_nothing_is_refused(tmp_path):
  model = zoo.build("gpt", vocab_size=7, max_length=8, dim=8, depth=1, num_heads=2)
  import jax

  zoo.save(tmp_path, model, model.init(jax.random.key(0), *model.example())["params"])
  with pytest.raises(UserError, match="A gpt takes no audio. Transcribe with a whisper"):
    zoo.transcribe(tmp_path, np.zeros(9))


def test_a_model_of_the_zoo_begins_as_audio_text_taught_it(folder, tmp_path):
  model, params = zoo.load(folder)
  preprocessing = {**model.preprocessing, "tokenizer": str(folder)}
  zoo.save(tmp_path, model.clone(preprocessing_json=json.dumps(preprocessing)), params)
  transcriber = zoo.transcriber(tmp_path)
  assert transcriber.options()["start_token"] == [257, 264]
  assert transcriber.told(language="german", task="translate").options()["start_token"] == [257, 259, 261, 264]
  with pytest.raises(UserError, match="task is 'translate'. Say language, too"):
    transcriber.told(task="translate").options()
