#!/usr/bin/env bash
# libsndfile 1.2.2, by soundfile 0.13.1 and 0.14.0, takes a WAV of which half is missing for a whole one that is
# shorter: the header says 16,000 frames, the file holds fewer, and info().frames, len() and read() agree on what is
# there, with no error or warning. The standard library's wave module reports the header's number. A FLAC that is cut
# in the same way reports the header's number and raises LibsndfileError, or gives fewer frames, when read.
# Seen: WAV of 16,000 frames cut in the middle: info 7,989 frames, read 7,989; wave.getnframes() 16,000.
# Speech data sets whose copy was cut off train on recordings that stop in the middle of a sentence whose transcript
# goes on. What tells: compare with wave.getnframes(), or with the durations of a manifest.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cat > "$folder/cut.py" <<'PYTHON'
import sys
import tempfile
import wave
from pathlib import Path

import numpy as np
import soundfile

path = Path(tempfile.mkdtemp()) / "tone.wav"
soundfile.write(path, np.sin(np.arange(16000) / 20).astype(np.float32), 16000, subtype="PCM_16")
whole = path.read_bytes()
path.write_bytes(whole[: len(whole) // 2])
said, frames = soundfile.info(str(path)).frames, len(soundfile.read(path)[0])
with wave.open(str(path)) as file:
  header = file.getnframes()
print(f"soundfile {soundfile.__version__}, {soundfile.__libsndfile_version__}: info {said}, read {frames}, wave {header}")
sys.exit(not (said == frames < 8001 and header == 16000))
PYTHON

for version in 0.13.1 0.14.0; do
  python3 -m venv "$folder/$version"
  "$folder/$version/bin/pip" install --quiet --disable-pip-version-check "soundfile==$version" "numpy==2.1.3" 2> /dev/null
  "$folder/$version/bin/python" "$folder/cut.py"
done
