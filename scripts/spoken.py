"""Makes recordings of short sentences with espeak-ng, a speech synthesiser (`apt install espeak-ng`).

    python scripts/spoken.py --out=data/spoken                            # British, 1,200 sentences
    python scripts/spoken.py --out=data/spoken_scottish --voice=en-gb-scotland --count=400 --seed=1

OUT/train and OUT/test get wav files of 16 kHz and a metadata.jsonl of names and texts, as the source audio: reads them.
No sentence of test is in train, and none of another seed's test. Speed and pitch differ from sentence to sentence.
"""

import argparse
import io
import itertools
import json
import pathlib
import shutil
import subprocess
import sys
import zlib

import numpy as np

NAMES = ("anna", "bill", "carol", "david", "emma")
VERBS = ("sees", "buys", "finds", "paints", "wants")
NUMBERS = ("two", "three", "four", "six", "nine")
COLOURS = ("red", "blue", "green", "black", "white")
THINGS = ("boats", "cats", "apples", "houses", "stones")
RATE = 16000


def sentences(split: str) -> list[str]:
  """All sentences of a split, a tenth of them in test: "anna sees two red boats"."""
  every = map(" ".join, itertools.product(NAMES, VERBS, NUMBERS, COLOURS, THINGS))
  return [text for text in every if (zlib.crc32(text.encode()) % 10 == 0) == (split == "test")]


def spoken(text: str, voice: str, speed: int, pitch: int) -> np.ndarray:
  """float32 [samples] at 16 kHz."""
  import soundfile
  import soxr

  command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout", text]
  made = subprocess.run(command, capture_output=True)
  if made.returncode:
    sys.exit(f"espeak-ng: {made.stderr.decode().strip()}")
  samples, rate = soundfile.read(io.BytesIO(made.stdout), dtype="float32")
  return soxr.resample(samples, rate, RATE)


def main(argv: list[str]) -> None:
  """Writes the recordings."""
  flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
  flags.add_argument("--out", type=pathlib.Path, default=pathlib.Path("data/spoken"), help="folder (data/spoken)")
  flags.add_argument("--voice", default="en-gb", help="of espeak-ng (en-gb); espeak-ng --voices lists them")
  flags.add_argument("--count", type=int, default=1200, help="sentences of train; test has an eighth (1200)")
  flags.add_argument("--seed", type=int, default=0, help="of which sentences are spoken, and how (0)")
  said = flags.parse_args(argv)
  if shutil.which("espeak-ng") is None:
    sys.exit("espeak-ng is not installed. Install it with: apt install espeak-ng.")
  import soundfile

  rng = np.random.default_rng(said.seed)
  for split, count in (("train", said.count), ("test", said.count // 8)):
    folder = said.out / split
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, text in enumerate(rng.choice(sentences(split), count, replace=False).tolist()):
      name = f"{number:04}.wav"
      samples = spoken(text, said.voice, int(rng.integers(190, 230)), int(rng.integers(30, 70)))
      soundfile.write(folder / name, samples, RATE, subtype="PCM_16")
      rows.append({"file_name": name, "text": text, "seconds": round(len(samples) / RATE, 2)})
    (folder / "metadata.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    print(f"{folder}: {count} recordings of {sum(row['seconds'] for row in rows) / 60:.1f} minutes")


if __name__ == "__main__":
  main(sys.argv[1:])
