#!/usr/bin/env bash
# transformers 5.23.0: an encoder-decoder starts its answer with bos, and not with the decoder_start_token_id that its
# config.json states, as soon as there is a generation_config.json beside it that lacks decoder_start_token_id. Without
# that file it starts as config.json says.
# Seen of a BART with decoder_start_token_id 2 and bos 0: 2 without the file, 2 with a whole file, 0 with a file that
# lacks the entry; model.config still says 2.
# Users care who write a small generation_config.json by hand, say with max_length alone, or convert one: from then on
# every answer begins with a token that the model was not trained to begin with, without a word. The way round: write
# decoder_start_token_id into both files, or pass it to generate.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 numpy==2.2.6
cat > "$folder/start.py" <<'PYTHON'
import json
import pathlib
import sys

import torch
import transformers

config = transformers.BartConfig(
  vocab_size=50, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
  encoder_ffn_dim=8, decoder_ffn_dim=8, decoder_start_token_id=2, bos_token_id=0, eos_token_id=2, pad_token_id=1,
  forced_eos_token_id=None,
)
folder = pathlib.Path(sys.argv[1]) / "bart"
transformers.BartForConditionalGeneration(config).save_pretrained(folder)
file = folder / "generation_config.json"
whole = json.loads(file.read_text())


def start():
  model = transformers.BartForConditionalGeneration.from_pretrained(folder).eval()
  assert model.config.decoder_start_token_id == 2
  return model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=2, do_sample=False)[0, 0].item()


starts = {"whole": start()}
file.write_text(json.dumps({name: value for name, value in whole.items() if name != "decoder_start_token_id"}))
starts["without the entry"] = start()
file.unlink()
starts["no file"] = start()
print("The answer starts with:", starts)
assert starts == {"whole": 2, "without the entry": 0, "no file": 2}
PYTHON
"$folder/venv/bin/python" "$folder/start.py" "$folder" 2> /dev/null
