"""Ten minutes of sound to text: `zoo.transcribe` and torch transformers' pipeline, the same weights and windows.

python -m benchmarks.transcribe                     a Whisper-tiny of random weights, 10 minutes, greedy
python -m benchmarks.transcribe --num-beams=5       beam search: the pipeline's own default
python -m benchmarks.transcribe --minutes=1         less of it

Both read 30 s windows that overlap by 5 s at either end, and write --new-tokens of each, about as many as half a minute
of speech has: random weights never end. The pipeline runs with each of --batches, ours with 16 windows at a time. Texts
are compared. Without torch and transformers (extra `parity`) ours runs alone.
"""

import json
import os
import pathlib
import sys
from collections.abc import Callable

import numpy as np

from benchmarks import sides

RATE = 16000
SIZES = {
  "small": dict(dim=384, depth=4, num_heads=6, source_length=1500, max_length=448, mels=80, vocab_size=51865),
  "published": dict(dim=768, depth=12, num_heads=12, source_length=1500, max_length=448, mels=80, vocab_size=51865),
}
SPECIAL = ("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|translate|>", "<|transcribe|>", "<|notimestamps|>")
BATCH = 16  # Windows at a time, of ours.


def sound(minutes: float) -> np.ndarray:
  """float32 [samples]: tones that change a few times a second, and silence between."""
  rng, samples = np.random.default_rng(0), round(minutes * 60 * RATE)
  lengths = rng.integers(RATE // 10, RATE // 2, samples // (RATE // 10) + 1)
  hertz = np.repeat(rng.uniform(100, 3000, len(lengths)), lengths)[:samples]
  loud = np.repeat(rng.uniform(0, 0.5, len(lengths)) * (rng.random(len(lengths)) > 0.2), lengths)[:samples]
  return (loud * np.sin(2 * np.pi * np.cumsum(hertz) / RATE)).astype(np.float32)


def writer(folder: str, **size: int) -> Callable:
  """-> run(), which writes a Whisper of random weights with all files that a pipeline needs."""
  import tokenizers
  from tokenizers import decoders, models, pre_tokenizers

  count = size["vocab_size"] - len(SPECIAL)
  letters = sorted(pre_tokenizers.ByteLevel.alphabet())
  words = [*letters, *(f"Ġw{number}" for number in range(count - len(letters)))]
  backend = tokenizers.Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, []))
  backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
  backend.add_special_tokens(list(SPECIAL))
  eos, start, english, translate, transcribe, untimed = range(count, count + len(SPECIAL))
  write = sides.writer(folder, "whisper", dict(size, pad=eos, eos=eos, start_token=start), sharp=2.0)
  extractor = {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": size["mels"], "chunk_length": 30}
  signs = {f"{role}_token": SPECIAL[0] for role in ("eos", "bos", "unk", "pad")}
  files = {
    "preprocessor_config.json": {**extractor, "sampling_rate": RATE, "hop_length": 160, "n_fft": 400},
    "tokenizer_config.json": {"tokenizer_class": "WhisperTokenizer", "additional_special_tokens": SPECIAL[1:], **signs},
    "generation_config.json": {
      "eos_token_id": eos, "bos_token_id": eos, "pad_token_id": eos, "decoder_start_token_id": start,
      "is_multilingual": True, "lang_to_id": {"<|en|>": english}, "no_timestamps_token_id": untimed, "max_length": 448,
      "task_to_id": {"translate": translate, "transcribe": transcribe},
      "suppress_tokens": [*range(eos, untimed + 1)], "begin_suppress_tokens": [220],
    },
  }  # fmt: skip

  def run() -> dict:
    sizes = write()
    backend.save(str(pathlib.Path(folder) / "tokenizer.json"))
    for name, entries in files.items():
      (pathlib.Path(folder) / name).write_text(json.dumps(entries))
    return sizes

  return run


def ours(folder: str):
  """-> run(...): ours, from a folder in the hub's layout."""
  import zoo

  listener = zoo.transcriber(folder)

  def run(minutes: float, new_tokens: int, num_beams: int, batch: int) -> dict:
    options = {"language": "en", "max_new_tokens": new_tokens, "num_beams": num_beams}
    return {"text": zoo.transcribe(listener, sound(minutes), batch_size=BATCH, **options)}

  return run


def theirs(folder: str):
  """-> run(...): the pipeline, from the same folder."""
  import torch
  import transformers

  transformers.logging.set_verbosity_error()
  device = 0 if torch.cuda.is_available() else -1
  pipeline = transformers.pipeline(
    "automatic-speech-recognition", model=folder, chunk_length_s=30, ignore_warning=True, device=device
  )

  def run(minutes: float, new_tokens: int, num_beams: int, batch: int) -> dict:
    options = {"language": "en", "max_new_tokens": new_tokens, "num_beams": num_beams}
    return {"text": pipeline(sound(minutes), batch_size=batch, generate_kwargs=options)["text"].strip()}

  return run


def rows(
  parts: dict, *, minutes: float, new_tokens: int, num_beams: int, batches: list[int], repeats: int
) -> list[dict]:
  """The table's: a row for each number of windows that the pipeline takes at a time."""
  other, found = "theirs" if "theirs" in parts else None, []
  for name, run in parts.items():  # Ours compiles for a full batch; torch has nothing to compile.
    warm_up = min(minutes, (20 * BATCH + 10) / 60) if name == "ours" else 0.1
    run(minutes=warm_up, new_tokens=new_tokens, num_beams=num_beams, batch=1)
  for batch in batches if other else batches[:1]:
    case = {"minutes": minutes, "new_tokens": new_tokens, "num_beams": num_beams, "batch": batch}
    rounds = list(sides.alternate(parts, repeats, case))
    row: dict = {"minutes": minutes, "beams": num_beams, **({"pipeline's batch": batch} if other else {})}
    row |= sides.compared(rounds, "ours", other)
    if other:
      row["same text"] = all(one["ours"][1]["text"] == one["theirs"][1]["text"] for one in rounds)
    found.append(row)
  return found


def main(argv: list[str]) -> int:
  """Runs the benchmark; returns 0 on success."""
  parser = sides.parser(__doc__)
  parser.add_argument("--minutes", type=float, default=10.0, help="of sound (10)")
  parser.add_argument("--new-tokens", type=int, default=100, help="written for each window (100)")
  parser.add_argument("--num-beams", type=int, default=1, help="above 1: beam search (1)")
  parser.add_argument("--batches", type=int, nargs="+", default=[1, 8], help="windows at a time, of the pipeline (1 8)")
  parser.add_argument("--repeats", type=int, default=1, help="how often each runs (1)")
  flags = parser.parse_args(argv)
  device, on_cpu = sides.devices()
  threads = flags.threads if on_cpu else None
  size = flags.size or ("small" if on_cpu else "published")
  with sides.of_one_folder(writer, ours, theirs, threads, **SIZES[size]) as parts:
    options = dict(minutes=flags.minutes, new_tokens=flags.new_tokens, num_beams=flags.num_beams)
    found = rows(parts, **options, batches=flags.batches, repeats=flags.repeats)
  sides.report(f"transcribe, {size}", found, device, threads, flags.out)
  return 0


if __name__ == "__main__":
  os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
  sys.exit(main(sys.argv[1:]))
