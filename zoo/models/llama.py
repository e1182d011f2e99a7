"""Llama: Open and Efficient Foundation Language Models (Touvron et al., 2023), with Llama 3, Mistral and Qwen.

https://arxiv.org/abs/2302.13971. Code: https://github.com/meta-llama/llama.
"""

from typing import Unpack

from zoo.layers import initial, masks, norms, rope_scaling, sizes
from zoo.layers.attention import Attention
from zoo.layers.blocks import PreNormBlock
from zoo.layers.compute import resolve
from zoo.layers.embeddings import PaddedEmbed
from zoo.layers.mlp import GatedMLP
from zoo.layers.positions import rotary
from zoo.layers.stack import stack
from zoo.models.decoder import HEADS, Decoder, DecoderOptions, with_head

PAPER = {
  "title": "Llama: Open and Efficient Foundation Language Models",
  "authors": "Touvron et al.",
  "year": 2023,
  "url": "https://arxiv.org/abs/2302.13971",
}
# Keyed by the prefix of a variant's name.
PAPERS = {
  "llama-2": {
    "title": "Llama 2: Open Foundation and Fine-Tuned Chat Models",
    "authors": "Touvron et al.",
    "year": 2023,
    "url": "https://arxiv.org/abs/2307.09288",
  },
  "llama-3": {
    "title": "The Llama 3 Herd of Models",
    "authors": "Grattafiori et al.",
    "year": 2024,
    "url": "https://arxiv.org/abs/2407.21783",
  },
  "mistral": {
    "title": "Mistral 7B",
    "authors": "Jiang et al.",
    "year": 2023,
    "url": "https://arxiv.org/abs/2310.06825",
  },
  "qwen2": {
    "title": "Qwen2 Technical Report",
    "authors": "Yang et al.",
    "year": 2024,
    "url": "https://arxiv.org/abs/2407.10671",
  },
  "qwen3": {
    "title": "Qwen3 Technical Report",
    "authors": "Yang et al.",
    "year": 2025,
    "url": "https://arxiv.org/abs/2505.09388",
  },
}


def llama(
  *,
  vocab_size: int,
  max_length: int,
  dim: int,
  depth: int,
  num_heads: int,
  mlp_dim: int,
  tied: bool = False,
  activation: str = "silu",
  epsilon: float = 1e-6,
  theta: float = 10_000.0,
  pattern: list | None = None,
  out_bias: bool | None = None,
  mlp_bias: bool = False,
  model_type: str | None = None,
  **options: Unpack[DecoderOptions],
) -> Decoder:
  """A Llama of these sizes; `options` as of `zoo.models.decoder.DecoderSizes` and `zoo.layers.compute.Compute`.

  tied: whether the output layer is tied to the token embedding.
  theta: of the rotary positions.
  pattern: "local" and "global" layers alternate in this order; all are local if there is a window, else global.
  out_bias, mlp_bias: of the attention's output, as attention_bias if None; of the feed-forward network.
  model_type: written by `zoo.save_hf`: "llama", "mistral", "qwen2", "qwen3"; inferred from the sizes if None.
  """
  common = resolve(DecoderOptions, options)
  head, dropout, dtype = common.head, common.dropout, common.dtype
  head_dim = sizes.head_dim(dim, num_heads) if common.head_dim is None else common.head_dim
  sizes.positive(vocab_size=vocab_size, max_length=max_length, dim=dim, depth=depth, num_heads=num_heads)
  sizes.positive(mlp_dim=mlp_dim, head_dim=head_dim, num_kv_heads=common.num_kv_heads)
  sizes.head_fits(head, HEADS, common.num_classes)
  rules = mask_pattern(common.window, pattern)
  init = initial.normal(0.02)
  norm = norms.rms_norm(epsilon, dtype)
  attention = Attention(
    num_heads,
    head_dim,
    num_kv_heads=common.num_kv_heads,
    rotary=rotary(theta, rope_scaling.scaling(common.rope)),
    qk_norm=norm.copy() if common.qk_norm else None,
    use_bias=common.attention_bias,
    out_bias=out_bias,
    dropout=dropout,
    dtype=dtype,
    kernel_init=init,
    out_init=init,
  )
  mlp = GatedMLP(mlp_dim, activation, use_bias=mlp_bias, dtype=dtype, kernel_init=init, down_init=init)
  blocks = tuple(PreNormBlock(attention.copy(mask=rule), mlp, norm, dropout=dropout) for rule in rules)
  return with_head(
    head,
    tied,
    common.num_classes,
    embed=PaddedEmbed(vocab_size, dim, pad=common.pad, dtype=dtype, embedding_init=init),
    stack=stack(blocks, depth, **common.stacking),
    norm=norm.copy(),
    max_length=max_length,
    pad=common.pad,
    dropout=dropout,
  )


def mask_pattern(window, pattern):
  """The mask rules of `pattern`: in local layers a token attends to itself and the window - 1 before it."""
  sizes.positive(window=window)
  pattern = ["global" if window is None else "local"] if pattern is None else pattern
  if not pattern or any(kind not in ("local", "global") for kind in pattern):
    raise ValueError(f"pattern is {pattern!r}. It must be a list of 'local' and 'global'.")
  if window is None and "local" in pattern:
    raise ValueError("pattern has local layers, but window is None. Set window.")
  local = None if window is None else masks.both(masks.causal, masks.window(window - 1))
  return [local if kind == "local" else masks.causal for kind in pattern]


def by_name(names, **shared):
  """VARIANTS from rows: {name: (dim, depth, num_heads, num_kv_heads, head_dim, mlp_dim)} -> {name: sizes}."""
  keys = ("dim", "depth", "num_heads", "num_kv_heads", "head_dim", "mlp_dim")
  return {name: dict(zip(keys, row), **shared) for name, row in names.items()}


_LONGER = dict(name="llama3", low=1.0, high=4.0, trained_length=8192)
# Table 2 of the paper; table 1 of https://arxiv.org/abs/2307.09288; table 3 of https://arxiv.org/abs/2407.21783;
# table 1 of https://arxiv.org/abs/2310.06825 and its later versions' releases; table 1 of
# https://arxiv.org/abs/2407.10671; table 1 of https://arxiv.org/abs/2505.09388; lengths and thetas of their releases.
VARIANTS = {
  **by_name({"llama-7b": (4096, 32, 32, 32, 128, 11008)}, vocab_size=32000, max_length=2048),
  **by_name(
    {
      "llama-2-7b": (4096, 32, 32, 32, 128, 11008),
      "llama-2-13b": (5120, 40, 40, 40, 128, 13824),
      "llama-2-70b": (8192, 80, 64, 8, 128, 28672),
    },
    **dict(vocab_size=32000, max_length=4096, epsilon=1e-5),
  ),
  **by_name(
    {"llama-3-8b": (4096, 32, 32, 8, 128, 14336), "llama-3-70b": (8192, 80, 64, 8, 128, 28672)},
    **dict(vocab_size=128256, max_length=8192, epsilon=1e-5, theta=500_000.0),
  ),
  **by_name(
    {"llama-3.1-8b": (4096, 32, 32, 8, 128, 14336)},
    **dict(vocab_size=128256, max_length=131072, epsilon=1e-5, theta=500_000.0, rope=dict(**_LONGER, factor=8.0)),
  ),
  **by_name(
    {"llama-3.2-1b": (2048, 16, 32, 8, 64, 8192), "llama-3.2-3b": (3072, 28, 24, 8, 128, 8192)},
    **dict(vocab_size=128256, max_length=131072, epsilon=1e-5, theta=500_000.0, tied=True),
    rope=dict(**_LONGER, factor=32.0),
  ),
  **by_name(
    {"mistral-7b": (4096, 32, 32, 8, 128, 14336)},
    **dict(vocab_size=32000, max_length=32768, epsilon=1e-5, window=4096),
  ),
  **by_name(
    {"mistral-7b-v0.3": (4096, 32, 32, 8, 128, 14336)},
    **dict(vocab_size=32768, max_length=32768, epsilon=1e-5, theta=1_000_000.0, model_type="mistral"),
  ),
  **by_name(
    {"qwen2-0.5b": (896, 24, 14, 2, 64, 4864), "qwen2-1.5b": (1536, 28, 12, 2, 128, 8960)},
    **dict(vocab_size=151936, max_length=131072, theta=1_000_000.0, attention_bias=True, out_bias=False, tied=True),
  ),
  **by_name(
    {"qwen2-7b": (3584, 28, 28, 4, 128, 18944)},
    **dict(vocab_size=152064, max_length=131072, theta=1_000_000.0, attention_bias=True, out_bias=False),
  ),
  **by_name(
    {
      "qwen3-0.6b": (1024, 28, 16, 8, 128, 3072),
      "qwen3-1.7b": (2048, 28, 16, 8, 128, 6144),
      "qwen3-4b": (2560, 36, 32, 8, 128, 9728),
    },
    **dict(vocab_size=151936, max_length=40960, theta=1_000_000.0, qk_norm=True, tied=True),
  ),
  **by_name(
    {"qwen3-8b": (4096, 36, 32, 8, 128, 12288), "qwen3-32b": (5120, 64, 64, 8, 128, 25600)},
    **dict(vocab_size=151936, max_length=40960, theta=1_000_000.0, qk_norm=True),
  ),
}
# Parameter counts, printed by `list_models`.
PARAMETERS = {
  "llama-7b": 6_738_415_616,
  "llama-2-7b": 6_738_415_616,
  "llama-2-13b": 13_015_864_320,
  "llama-2-70b": 68_976_648_192,
  "llama-3-8b": 8_030_261_248,
  "llama-3-70b": 70_553_706_496,
  "llama-3.1-8b": 8_030_261_248,
  "llama-3.2-1b": 1_235_814_400,
  "llama-3.2-3b": 3_212_749_824,
  "mistral-7b": 7_241_732_096,
  "mistral-7b-v0.3": 7_248_023_552,
  "qwen2-0.5b": 494_032_768,
  "qwen2-1.5b": 1_543_714_304,
  "qwen2-7b": 7_615_616_512,
  "qwen3-0.6b": 596_049_920,
  "qwen3-1.7b": 1_720_574_976,
  "qwen3-4b": 4_022_468_096,
  "qwen3-8b": 8_190_735_360,
  "qwen3-32b": 32_762_123_264,
}
