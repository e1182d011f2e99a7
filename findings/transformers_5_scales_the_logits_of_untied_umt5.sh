#!/usr/bin/env bash
# transformers 5.23.0: a UMT5 whose config.json says "tie_word_embeddings": false has its logits multiplied by
# d_model**-0.5, as if its output layer were the embedding. UMT5Config sets tie_word_embeddings to True whatever the file
# says, and the model takes that as the sign to scale. T5Config does the same and keeps what the file said in another
# entry, scale_decoder_outputs, so that an untied T5 is not scaled; UMT5 has no such entry.
# Seen, d_model 16, an output layer of its own: logits / (last hidden state @ lm_head.T) is 1.0 of T5 and 0.25 of UMT5.
# The weights themselves are loaded as they are in the file. Greedy tokens are the same; losses, sampling at a
# temperature, scores of beams and fine-tuning are not, by a factor of 27 before the softmax at d_model 768, and the
# config.json that save_pretrained writes says true. The way round: divide the logits, or compute them by the hidden
# states and lm_head.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 numpy==2.2.6
cat > "$folder/untied.py" <<'PYTHON'
import json
import pathlib
import sys

import torch
import transformers

ratios = {}
for name in ("T5", "UMT5"):
  config = getattr(transformers, f"{name}Config")(
    vocab_size=50, d_model=16, d_kv=4, d_ff=8, num_layers=1, num_heads=2, tie_word_embeddings=False
  )
  kind = getattr(transformers, f"{name}ForConditionalGeneration")
  torch.manual_seed(0)
  model = kind(config)
  model.lm_head.weight = torch.nn.Parameter(torch.randn(50, 16))
  folder = pathlib.Path(sys.argv[1]) / name
  model.save_pretrained(folder)
  entries = json.loads((folder / "config.json").read_text())
  (folder / "config.json").write_text(json.dumps(entries | {"tie_word_embeddings": False}))
  loaded = kind.from_pretrained(folder).eval()
  assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)
  tokens = torch.tensor([[5, 6, 7]])
  out = loaded(input_ids=tokens, decoder_input_ids=tokens, output_hidden_states=True)
  product = out.decoder_hidden_states[-1] @ loaded.lm_head.weight.T
  ratios[name] = round((out.logits / product).mean().item(), 3)
  print(f"{name}: logits / (hidden @ lm_head.T) = {ratios[name]}; saved as tied: {entries['tie_word_embeddings']}")
assert ratios == {"T5": 1.0, "UMT5": 0.25}
PYTHON
"$folder/venv/bin/python" "$folder/untied.py" "$folder" 2> /dev/null
