"""The source `audio:`, decoding of recordings, and the pipeline audio_text."""

import io
import json
import pickle

import numpy as np
import pytest
import soundfile
import soxr

import train
import zoo
from tests.data import toys
from tests.data.toys import everything
from zoo.data import sounds
from zoo.data.audio_text import audio_text
from zoo.data.bad_records import BadRecord
from zoo.data.pipeline import batches
from zoo.data.recordings import prompt_tokens
from zoo.data.sources import open_source
from zoo.data.tokenizers import tokenizer
from zoo.errors import UserError
from zoo.hub.log_mel import LogMel
from zoo.train.model_data import records_for

LOG_MEL = LogMel(bands=5, rate=16000, hop=160, window=400, seconds=1, silence=0.0)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
  monkeypatch.setenv("ZOO_CACHE", str(tmp_path_factory.mktemp("cache")))


def tone(seconds=0.5, rate=16000, channels=1, hertz=440.0):
  """float32 [samples, channels]"""
  wave = np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate) / 2
  return np.stack([wave / (1 + channel) for channel in range(channels)], axis=1).astype(np.float32)


def encoded(samples, rate=16000, kind="WAV", subtype=None):
  file = io.BytesIO()
  soundfile.write(file, samples, rate, format=kind, subtype=subtype)
  return file.getvalue()


def said(source):
  return sorted((record["path"].rpartition("/")[2], record["text"]) for record in everything(source))


# Decoding


@pytest.mark.parametrize(
  "kind, subtype, tolerance", [("WAV", "FLOAT", 0), ("WAV", "PCM_16", 1e-4), ("FLAC", None, 1e-4), ("OGG", None, 0.05)]
)
def test_samples_are_those_of_the_file(kind, subtype, tolerance):
  samples = tone()
  sound = sounds.decode(encoded(samples, kind=kind, subtype=subtype), 16000, "a")
  assert sound.samples.dtype == np.float32 and sound.samples.shape == (8000,) and sound.changes() is None
  np.testing.assert_allclose(sound.samples, samples[:, 0], atol=tolerance, rtol=0)


def test_channels_are_averaged_rates_converted_and_both_are_said():
  samples = tone(rate=44100, channels=2)
  sound = sounds.decode(encoded(samples, 44100, subtype="FLOAT"), 16000, "a")
  np.testing.assert_array_equal(sound.samples, soxr.resample(samples.mean(axis=1), 44100, 16000, quality="HQ"))
  assert len(sound.samples) == 8000
  assert sound.changes() == "2 channels averaged and resampled from 44,100 to 16,000 Hz"
  # Resampling keeps frequencies below half of both rates, and removes those above.
  np.testing.assert_allclose(sound.samples[500:-500], 0.75 * tone()[500:-500, 0], atol=1e-3, rtol=0)
  high = sounds.decode(encoded(tone(rate=44100, hertz=12000.0), 44100, subtype="FLOAT"), 16000, "a")
  assert np.abs(high.samples[500:-500]).max() < 1e-3


def test_a_recording_of_one_sample_is_one_and_a_table_of_many_channels_none():
  np.testing.assert_array_equal(sounds.from_array(np.full(1, 0.5, np.float32), 16_000, 16_000, "it"), [0.5])
  with pytest.raises(BadRecord, match=r"has the shape \(9, 9\)"):
    sounds.from_array(np.zeros((9, 9), np.float32), 16_000, 16_000, "it")


def test_a_part_is_the_part_of_the_whole():
  content = encoded(tone(), subtype="FLOAT")
  part = sounds.decode(content, 16000, "a", start=0.1, seconds=0.25)
  np.testing.assert_array_equal(part.samples, tone()[1600:5600, 0])
  assert len(sounds.decode(content, 16000, "a", start=0.4, seconds=1.0).samples) == 1600
  with pytest.raises(BadRecord, match="a: the recording has no samples"):
    sounds.decode(content, 16000, "a", start=0.5)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG"])
def test_what_is_cut_off_or_no_recording_is_a_bad_record(kind):
  whole = encoded(tone(), kind=kind)
  for size in (len(whole) // 2, len(whole) - 9, 60, 3, 0):
    with pytest.raises(BadRecord, match="a: the recording (is cut off|does not decode|has no samples)"):
      sounds.decode(whole[:size], 16000, "a")
  for content, message in ((b"text", "does not decode"), ("a.wav", "is 'a.wav', not the bytes of a file")):
    with pytest.raises(BadRecord, match=message):
      sounds.decode(content, 16000, "a")
  with pytest.raises(BadRecord, match="contains NaN or infinite samples"):
    sounds.decode(encoded(np.full((9, 1), np.nan, np.float32), subtype="FLOAT"), 16000, "a")


# The source


def test_manifests_of_every_kind_name_the_files(tmp_path):
  for i in range(3):
    toys.write(tmp_path, {f"{folder}{i}.wav": encoded(tone(0.01)) for folder in ("", "cv/clips/", "lj/wavs/")})
  rows = [{"file_name": f"{i}.wav", "text": f"text {i}"} for i in range(3)]
  toys.write_csv(tmp_path / "metadata.csv", rows)
  toys.write_jsonl(
    tmp_path / "m.json", [{"audio_filepath": str(tmp_path / f"{i}.wav"), "text": f"text {i}"} for i in range(3)]
  )
  toys.write(tmp_path, {"cv/train.tsv": "client\tpath\ttext\n" + "".join(f"x\t{i}.wav\ttext {i}\n" for i in range(3))})
  toys.write(tmp_path, {"lj/metadata.csv": "".join(f"{i}|raw {i}|text {i}\n" for i in range(3))})
  wanted = [(f"{i}.wav", f"text {i}") for i in range(3)]
  for where in ("", "/m.json", "/cv/{split}.tsv", "/lj/metadata.csv?delimiter=|&columns=file,raw,text"):
    source = open_source(f"audio:{tmp_path}{where}")
    assert said(source) == wanted
    assert everything(pickle.loads(pickle.dumps(source))) == everything(source)
    assert source[0]["audio"].startswith(b"RIFF")
  assert open_source(f"audio:{tmp_path}/m.json").where(0).startswith(f"{tmp_path}/m.json line ")
  parts = [said(open_source(f"audio:{tmp_path}", split)) for split in ("train[:1]", "train[1:]")]
  assert sorted(sum(parts, [])) == wanted


def test_texts_lie_beside_recordings_or_in_tables_of_librispeech_or_folders_are_classes(tmp_path):
  wav = encoded(tone(0.01))
  toys.write(tmp_path / "beside", {"a.wav": wav, "a.txt": "text a", "in/b.wav": wav, "in/b.txt": "text b"})
  assert said(open_source(f"audio:{tmp_path}/beside")) == [("a.wav", "text a"), ("b.wav", "text b")]
  toys.write(tmp_path / "libri/1/2", {"1-2-0.flac": wav, "1-2-1.flac": wav, "1-2.trans.txt": "1-2-0 GO ON\n1-2-1 NO\n"})
  assert said(open_source(f"audio:{tmp_path}/libri")) == [("1-2-0.flac", "GO ON"), ("1-2-1.flac", "NO")]
  toys.write(tmp_path / "words", {"train/no/0.wav": wav, "train/turn_left/0.wav": wav, "test/go/0.wav": wav})
  train, test = (open_source(f"audio:{tmp_path}/words", split) for split in ("train", "test"))
  assert train.class_names == test.class_names == {"label": ["go", "no", "turn_left"]}
  assert sorted((row["label"], row["text"]) for row in everything(train)) == [(1, "no"), (2, "turn left")]
  assert test[0]["label"] == 0


def test_what_a_manifest_cannot_mean_is_told(tmp_path):
  wav = encoded(tone(0.01))
  toys.write(tmp_path, {"a.wav": wav, "out.csv": "file,text\n../b.wav,x\n", "gone.csv": "file,text\nb.wav,x\n"})
  toys.write(tmp_path, {"none.csv": "a,text\n1,x\n", "half/a.wav": wav, "half/a.txt": "a", "half/b.wav": wav})
  for where, message in {
    "out.csv": r"out.csv line 2: '../b.wav' lies outside",
    "gone.csv": r"b.wav cannot be read: No such file",
    "half": r"b.txt cannot be read: No such file",
  }.items():
    with pytest.raises(BadRecord, match=message):
      everything(open_source(f"audio:{tmp_path}/{where}"))
  for where, message in {
    "none.csv": "names no files: none of its columns is one of file, file_name, .* It has: a, text",
    "*.wav": "holds recordings without texts: no metadata.csv",
    "*.png": "No file matches",
  }.items():
    with pytest.raises(UserError, match=message):
      open_source(f"audio:{tmp_path}/{where}")


def test_recordings_in_tars_and_tables_have_the_same_field(tmp_path):
  wav = encoded(tone(0.01))
  toys.write_tar(tmp_path / "a.tar", {"0.wav": wav, "0.txt": "text"})
  record = open_source(f"webdataset:{tmp_path}/a.tar")[0]
  assert (record["audio"], record["text"]) == (wav, "text")


# The pipeline


@pytest.fixture
def data(tmp_path):
  rows = [{"file": f"{i}.wav", "sentence": f"text {i}"} for i in range(7)]
  for i in range(7):
    toys.write(tmp_path, {f"data/{i}.wav": encoded(tone(0.1 + i / 10, hertz=300.0 + 50 * i), subtype="FLOAT")})
  toys.write_csv(tmp_path / "data" / "metadata.csv", rows)
  return tmp_path / "data"


def test_examples_are_features_and_the_framed_text(data):
  records = audio_text(f"audio:{data}", processor=LOG_MEL, target_length=11)
  example, encoder = records[3], tokenizer("bytes")
  sound, text = records.sound(3).samples, records.text(3)
  np.testing.assert_array_equal(example["tokens"], LOG_MEL(sound)["features"][0])
  assert example["tokens"].shape == (100, 5) and example["tokens"].dtype == np.float32
  ids = [*encoder.encode(text), encoder.eos]
  assert example["target_tokens"][example["target_valid"]].tolist() == ids and len(ids) == 7
  stream = batches(records, 4, seed=1)
  halves = [batches(records, 4, seed=1, process_index=i, process_count=2)[5] for i in range(2)]
  for name, array in stream[5].items():
    np.testing.assert_array_equal(np.concatenate([half[name] for half in halves]), array)


def test_what_is_done_to_recordings_is_said_once_and_nothing_where_nothing_is_done(data, capsys):
  audio_text(f"audio:{data}", processor=LOG_MEL)
  assert capsys.readouterr().err == ""
  for i in range(7):
    toys.write(data, {f"{i}.wav": encoded(tone(0.2, rate=22050, channels=2), 22050)})
  audio_text(f"audio:{data}", processor=LOG_MEL)
  said = capsys.readouterr().err
  assert said.count("\n") == 1 and "of the first, 2 channels averaged and resampled from 22,050 to 16,000 Hz." in said


def test_recordings_and_texts_that_are_too_long_are_bad_records(data):
  toys.write(data, {"2.wav": encoded(tone(1.25))})
  with pytest.raises(BadRecord, match=r"line 4 lasts 1.2 s, the model hears 1 s. Cut it into parts"):
    everything(audio_text(f"audio:{data}", processor=LOG_MEL))
  records = audio_text(f"audio:{data}", processor=LOG_MEL, bad_records={"action": "skip", "most": 0.2})
  assert len(everything(batches(records, 7, seed=0)[0]["target_tokens"])) == 7
  with pytest.raises(BadRecord, match="the text has 7 tokens, target_length is 6. Raise it"):
    audio_text(f"audio:{data}", processor=LOG_MEL, target_length=6)[0]
  with pytest.raises(UserError, match="audio_text needs an audio model"):
    audio_text(f"audio:{data}")


def test_offsets_of_a_manifest_take_parts_of_one_file(data):
  rows = [{"audio_filepath": "6.wav", "offset": i / 10, "duration": 0.1, "text": f"part {i}"} for i in range(3)]
  toys.write_jsonl(data / "parts.jsonl", rows)
  records = audio_text(f"audio:{data}/parts.jsonl", processor=LOG_MEL)
  whole = sounds.decode((data / "6.wav").read_bytes(), 16000, "").samples
  for index in range(3):
    start = 1600 * int(records.text(index)[-1])
    np.testing.assert_array_equal(records.sound(index).samples, whole[start : start + 1600])


def test_a_whispers_text_begins_with_language_task_and_no_times(tmp_path):
  names = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
  added = [
    {
      "id": 3 + i,
      "content": name,
      "special": True,
      "single_word": False,
      "lstrip": False,
      "rstrip": False,
      "normalized": False,
    }
    for i, name in enumerate(names)
  ]
  model = {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2}, "merges": []}
  toys.write(tmp_path, {"tokenizer.json": json.dumps({"version": "1.0", "added_tokens": added, "model": model})})
  encoder = tokenizer(str(tmp_path))
  assert prompt_tokens(encoder, "en") == [5, 6, 7] and prompt_tokens(encoder, None) == [7]
  with pytest.raises(UserError, match=r"has no token '<\|de\|>'"):
    prompt_tokens(encoder, "de")


CONFIG = """
import ml_collections

def get_config():
  return ml_collections.ConfigDict({{
    "model": {{"family": "whisper", "vocab_size": 300, "source_length": 50, "max_length": 32, "dim": 12, "depth": 1,
              "num_heads": 3, "mels": 5}},
    "objective": {{"name": "seq2seq"}},
    "data": {{"name": "audio_text", "source": "audio:{}", "target_length": 16, "cache": True}},
    "batch_size": 8, "steps": 30, "seed": 0, "workdir": "", "mesh": {{"data": -1}}, "sharding": "replicated",
    "optimizer": {{"name": "adamw", "learning_rate": 0.01}}, "eval": {{}},
  }})
"""


@pytest.mark.slow
def test_a_whisper_trains_on_a_folder_of_recordings(data, tmp_path):
  (tmp_path / "config.py").write_text(CONFIG.format(data))
  assert train.main([f"--config={tmp_path}/config.py", f"--config.workdir={tmp_path}/run", "--config.log.every=1"]) == 0
  losses = [json.loads(line)["loss"] for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
  assert losses[-1] < 0.7 * losses[0]
  model, _ = zoo.load(tmp_path / "run")
  records = records_for(model, {"name": "audio_text", "source": f"audio:{data}"})
  assert records[0]["tokens"].shape == (100, 5)
  uneven = zoo.build("whisper", vocab_size=300, source_length=7, max_length=9, dim=12, depth=1, num_heads=3)
  with pytest.raises(UserError, match="source_length is 7. Make it a multiple of 50"):
    records_for(uneven, {"name": "audio_text", "source": f"audio:{data}"})
