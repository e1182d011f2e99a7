"""Writes tests/convert/transformer_xl.npz, what the reference computes: it left transformers with version 5.

    PYTHONPATH=FOLDER python -m scripts.transformer_xl_reference

FOLDER holds transformers 4.57.6, and what it needs in other versions than are installed.
"""

import json
import pathlib

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
FILE = ROOT / "tests" / "convert" / "transformer_xl.npz"
SMALL = dict(
  vocab_size=23, cutoffs=[5, 11], d_model=12, d_embed=8, n_head=3, d_head=5, d_inner=14, n_layer=2, mem_len=6,
  clamp_len=7, same_length=True, div_val=2,
)  # fmt: skip
CASES = {
  "same_length": SMALL,
  "own_projections": {**SMALL, "proj_share_all_but_first": False, "same_length": False, "clamp_len": -1},
  "one_table": {**SMALL, "div_val": 1, "d_embed": 12},
  "one_cluster": {**SMALL, "cutoffs": [], "div_val": 1, "mem_len": 3},
}


def computed(config: dict) -> dict[str, np.ndarray]:
  """Weights of a model of this config, its outputs for a segment and the next, and gradients of a sum of the latter."""
  import torch
  from transformers.models.deprecated.transfo_xl import configuration_transfo_xl, modeling_transfo_xl

  plain = torch.Tensor.type_as
  # The last version calls it by a keyword that it does not have.
  torch.Tensor.type_as = lambda self, other=None, dtype=None: self.to(dtype) if other is None else plain(self, other)
  model = modeling_transfo_xl.TransfoXLLMHeadModel(configuration_transfo_xl.TransfoXLConfig(**config)).eval()
  rng = np.random.default_rng(0)
  with torch.no_grad():
    for name, parameter in model.named_parameters():
      mean = 1.0 if name.endswith("layer_norm.weight") else 0.0
      parameter.copy_(torch.tensor(mean + 0.4 * rng.standard_normal(parameter.shape)))
  model.tie_weights()
  tokens = rng.integers(0, config["vocab_size"], (2, 9))
  first = model(input_ids=torch.tensor(tokens[:, :5]))
  second = model(input_ids=torch.tensor(tokens[:, 5:]), mems=first.mems)
  slopes = rng.standard_normal(second.prediction_scores.shape)
  (second.prediction_scores * torch.tensor(slopes)).sum().backward()
  weights = {f"weights/{name}": array.detach().numpy() for name, array in model.named_parameters()}
  grads = {f"gradients/{name}": array.grad.numpy() for name, array in model.named_parameters()}
  outputs = {name: out.prediction_scores.detach().numpy() for name, out in (("first", first), ("second", second))}
  said = {"config": np.array(json.dumps(model.config.to_diff_dict() | {"architectures": ["TransfoXLLMHeadModel"]}))}
  return {**said, "tokens": tokens, "slopes": slopes.astype(np.float32), **outputs, **weights, **grads}


def main() -> None:
  """Writes the file."""
  arrays = {f"{case}/{name}": array for case, config in CASES.items() for name, array in computed(config).items()}
  np.savez_compressed(FILE, **arrays)


if __name__ == "__main__":
  main()
