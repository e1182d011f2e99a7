#!/usr/bin/env bash
# transformers 5.23.0: a BigBird with block-sparse attention has its random blocks in train() alone. In eval() each of them
# is block 0, which the query sees already as a global one, so that its keys are counted 1 + num_random_blocks times in the
# softmax. The same weights give other outputs in the two modes, without any dropout.
# Seen of one layer of 2 heads, 32 blocks, num_random_blocks 3: a query in the middle sees 10 blocks in train() (3 of its
# window, the first, the last and 5 drawn ones, 3 a head) and 5 in eval(); outputs differ by up to .01.
# Users care because it is the pattern of pretraining that they do not get when they evaluate, embed or export; who compares
# another implementation with outputs in eval() needs the repeated keys, not the paper's set of blocks; and a
# fine-tuned model is measured with another attention than it was trained with.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 numpy==2.2.6
cat > "$folder/blocks.py" <<'PYTHON'
import torch
import transformers

SIZE, COUNT, RANDOM = 4, 32, 3
config = transformers.BigBirdConfig(
  vocab_size=70, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
  max_position_embeddings=SIZE * COUNT, block_size=SIZE, num_random_blocks=RANDOM, attention_type="block_sparse",
  hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
)  # fmt: skip
torch.manual_seed(0)
model = transformers.BigBirdModel(config, add_pooling_layer=False)
embeddings = torch.randn(1, SIZE * COUNT, 32)
seen, outputs = {}, {}
for mode in ("train", "eval"):
  getattr(model, mode)()
  array = embeddings.clone().requires_grad_()
  outputs[mode] = model(inputs_embeds=array).last_hidden_state
  (outputs[mode][0, SIZE * COUNT // 2] * torch.arange(32.0)).sum().backward()
  seen[mode] = [block for block, part in enumerate(array.grad[0].split(SIZE)) if part.abs().max() > 0]
  print(f"{mode + '():':8} a query of block {COUNT // 2} sees {len(seen[mode])} blocks: {seen[mode]}")
apart = (outputs["train"] - outputs["eval"]).abs().max().item()
print(f"outputs differ by up to {apart:.3f}")
middle = COUNT // 2
assert seen["eval"] == [0, middle - 1, middle, middle + 1, COUNT - 1]
assert set(seen["eval"]) < set(seen["train"]) and apart > 1e-3
PYTHON
"$folder/venv/bin/python" "$folder/blocks.py" 2> /dev/null
