#!/usr/bin/env bash
# transformers 5.23.0: ReformerModelWithLMHead and ReformerForMaskedLM load lm_head.bias, save it, train with it among their
# parameters, and never add it to the logits; its gradient is None. transformers 4.57.6 adds it.
# Seen of one folder of weights with a bias that is not nought: 4.57.6 gives logits that differ by the bias, 5.23.0 logits
# as if there were none, with no warning from either.
# Users care because published Reformers, which were trained with the bias, give other probabilities in 5 than in 4, and
# a model trained in 5 is read by 4, or by whom follows the names in the file, with a bias that was never fitted: zeros
# then, if it was made by 5, and the old one if it was fine-tuned from a file of 4.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cat > "$folder/reformer.py" <<'PYTHON'
import pathlib
import sys

import torch
import transformers

folder, added = pathlib.Path(sys.argv[1]), sys.argv[2] == "added"
for name, causal in (("ReformerModelWithLMHead", True), ("ReformerForMaskedLM", False)):
  kind = getattr(transformers, name)
  config = transformers.ReformerConfig(
    vocab_size=50, hidden_size=16, num_attention_heads=2, attention_head_size=8, feed_forward_size=32, is_decoder=causal,
    attn_layers=["local"], axial_pos_embds=False, max_position_embeddings=64, local_attn_chunk_length=8, num_buckets=2,
  )  # fmt: skip
  model = kind(config).eval()
  tokens = torch.arange(3, 11)[None]
  with torch.no_grad():
    without = model(tokens).logits
    model.lm_head.bias.copy_(torch.linspace(-5, 5, 50))
  model.save_pretrained(folder / name)
  loaded = kind.from_pretrained(folder / name).eval()
  bias = dict(loaded.named_parameters())["lm_head.bias"].detach()
  with torch.no_grad():
    moved = (loaded(tokens).logits - without).abs().max().item()
  print(f"transformers {transformers.__version__}, {name}: a bias of up to {bias.max().item()} moves logits by {moved:.1f}")
  assert abs(moved - 5 * added) < 1e-4
PYTHON

check() { # check VERSION added|left
  python3 -m venv "$folder/$1"
  "$folder/$1/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 "transformers==$1" numpy==2.2.6
  "$folder/$1/bin/python" "$folder/reformer.py" "$folder/$1" "$2" 2> /dev/null
}
check 4.57.6 added
check 5.23.0 left
