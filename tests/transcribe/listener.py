"""A tiny Whisper of random weights in a folder, as the hub has them: what torch transformers' pipeline loads too."""

import json

import numpy as np
import tokenizers

from tests.evaluate import hub
from tests.hub_folder import edit_config

LANGUAGES = ("en", "de", "fr")
TASKS = ("translate", "transcribe")
SPECIAL = ("<|endoftext|>", "<|startoftranscript|>", *(f"<|{code}|>" for code in LANGUAGES))
SPECIAL += (*(f"<|{task}|>" for task in TASKS), "<|startofprev|>", "<|notimestamps|>")
START = 257


def whisper_folder(folder, *, seconds, times=True, **entries):
  """Saves a Whisper that hears so many seconds; entries of its generation_config.json."""
  backend = hub.byte_tokenizer(SPECIAL)
  marks = [f"<|{0.02 * i:.2f}|>" for i in range(50 * seconds + 1)] if times else []
  backend.add_tokens([tokenizers.AddedToken(mark, special=False, normalized=False) for mark in marks])
  sizes = dict(source_length=50 * seconds, max_length=40, dim=12, depth=1, num_heads=3, mels=7, pad=256, eos=256)
  model = zoo_build(vocab_size=backend.get_vocab_size(), start_token=START, **sizes)
  hub.save(folder, model)
  backend.save(str(folder / "tokenizer.json"))
  config = {"tokenizer_class": "WhisperTokenizer", "additional_special_tokens": list(SPECIAL[1:])}
  config |= {f"{role}_token": "<|endoftext|>" for role in ("eos", "bos", "unk", "pad")}
  (folder / "tokenizer_config.json").write_text(json.dumps(config))
  extractor = {"feature_size": 7, "sampling_rate": 16000, "hop_length": 160, "n_fft": 400, "chunk_length": seconds}
  extractor |= {"feature_extractor_type": "WhisperFeatureExtractor", "processor_class": "WhisperProcessor"}
  (folder / "preprocessor_config.json").write_text(json.dumps(extractor))
  token = backend.token_to_id
  stated = {
    "bos_token_id": 256, "eos_token_id": 256, "pad_token_id": 256, "decoder_start_token_id": START,
    "max_length": 40, "is_multilingual": True, "no_timestamps_token_id": token("<|notimestamps|>"),
    "lang_to_id": {f"<|{code}|>": token(f"<|{code}|>") for code in LANGUAGES},
    "task_to_id": {task: token(f"<|{task}|>") for task in TASKS},
    "suppress_tokens": [5, *map(token, marks)], "begin_suppress_tokens": [6, 256], "return_timestamps": False,
  }  # fmt: skip
  (folder / "generation_config.json").write_text(json.dumps({**stated, **entries}))
  edit_config(folder, max_length=None)
  return folder


def zoo_build(**sizes):
  import zoo

  return zoo.build("whisper", **sizes)


def recording(seconds, seed=0, rate=16000):
  """float32 [samples]: tones that change every few tenths of a second."""
  rng = np.random.default_rng(seed)
  samples = round(seconds * rate)
  lengths = rng.integers(rate // 10, rate // 2, 2 + 10 * samples // rate)
  hertz = np.repeat(rng.uniform(100, 3000, len(lengths)), lengths)[:samples]
  loud = np.repeat(rng.uniform(0, 0.5, len(lengths)), lengths)[:samples]
  return (loud * np.sin(2 * np.pi * np.cumsum(hertz) / rate)).astype(np.float32)
