#!/usr/bin/env bash
# transformers 4.57 takes entries out of the dict that a composite config is read from: after
# EncoderDecoderConfig.from_dict(d), VisionEncoderDecoderConfig.from_dict(d) or VisionTextDualEncoderConfig.from_dict(d)
# the nested sections of the caller's d have lost their "model_type", and d itself has got an entry
# "attn_implementation". The second from_dict of the same d raises KeyError: 'model_type'. transformers 5.23 leaves d
# as it was. CLIPConfig, which has sections too, changes only the top of d.
# Seen: 4.57.3 sections {} and KeyError; 5.23.0 equal to before, and read twice.
# Who reads config.json once and hands the dict to several readers (a converter, a check, then the model) gets an
# error that names a key which is in the file, or writes a config.json without model_type, which nothing loads.
# The way round: from_dict(copy.deepcopy(d)).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cat > "$folder/read.py" <<'PYTHON'
import copy
import sys

import transformers
from transformers import EncoderDecoderConfig, VisionEncoderDecoderConfig, VisionTextDualEncoderConfig

CASES = {
  EncoderDecoderConfig: {"encoder": {"model_type": "bert"}, "decoder": {"model_type": "bert"}},
  VisionEncoderDecoderConfig: {"encoder": {"model_type": "vit"}, "decoder": {"model_type": "bert"}},
  VisionTextDualEncoderConfig: {"vision_config": {"model_type": "vit"}, "text_config": {"model_type": "bert"}},
}
seen = set()
for kind, entries in CASES.items():
  read = copy.deepcopy(entries)
  kind.from_dict(read)
  sections = "kept" if all(read[name] == section for name, section in entries.items()) else "emptied"
  try:
    kind.from_dict(read)
    again = "read"
  except KeyError as error:
    again = f"KeyError: {error}"
  print(f"transformers {transformers.__version__} {kind.__name__}: sections {sections}, a second time: {again}")
  seen.add(f"{sections}, {again}")
sys.exit(seen != {sys.argv[1]})
PYTHON

check() { # check REQUIREMENT EXPECTED
  python3 -m venv "$folder/$1"
  "$folder/$1/bin/pip" install --quiet --disable-pip-version-check "$1"
  "$folder/$1/bin/python" -W ignore "$folder/read.py" "$2" 2> "$folder/log" || { cat "$folder/log"; return 1; }
}
check transformers==4.57.3 "emptied, KeyError: 'model_type'"
check transformers==5.23.0 "kept, read"
