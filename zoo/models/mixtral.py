"""Mixtral of Experts (Jiang et al., 2024), and the mixtures of Qwen 3: decoders whose layers send each token to few of
many feed-forward networks.

https://arxiv.org/abs/2401.04088, https://arxiv.org/abs/2505.09388. Code: https://github.com/mistralai/mistral-inference.
"""

from typing import Any, Unpack

from zoo.layers import initial, norms, rope_scaling, sizes
from zoo.layers.attention import Attention
from zoo.layers.blocks import PreNormBlock
from zoo.layers.compute import resolve
from zoo.layers.embeddings import PaddedEmbed
from zoo.layers.experts import DISPATCH, Mixture
from zoo.layers.mlp import GatedMLP
from zoo.layers.positions import rotary
from zoo.layers.stack import stack
from zoo.models.decoder import HEADS, Decoder, DecoderOptions, with_head
from zoo.models.llama import by_name, mask_pattern

PAPER = {
  "title": "Mixtral of Experts",
  "authors": "Jiang et al.",
  "year": 2024,
  "url": "https://arxiv.org/abs/2401.04088",
}
# Keyed by the prefix of a variant's name.
PAPERS = {
  "qwen3": {
    "title": "Qwen3 Technical Report",
    "authors": "Yang et al.",
    "year": 2025,
    "url": "https://arxiv.org/abs/2505.09388",
  },
}


def mixtral(
  *,
  vocab_size: int,
  max_length: int,
  dim: int,
  depth: int,
  num_heads: int,
  mlp_dim: int,
  num_experts: int,
  top_k: int,
  dense_dim: int | None = None,
  pattern: list | None = None,
  tied: bool = False,
  normalize: bool = True,
  dispatch: str = "all",
  jitter: float = 0.0,
  activation: str = "silu",
  epsilon: float = 1e-5,
  theta: float = 1_000_000.0,
  **options: Unpack[DecoderOptions],
) -> Decoder:
  """A Mixtral of these sizes; sizes not listed here as in `zoo.models.llama`.

  num_experts, top_k, mlp_dim: of sparse layers: number of experts, number of experts per token, width of an expert.
  pattern: "sparse" and "dense" layers alternate in this order; all sparse if None. dense_dim: mlp_dim of dense layers.
  normalize: whether the probabilities of the chosen experts are divided by their sum.
  dispatch: "all" (every expert reads every token, those not chosen get weight 0) or "chosen" (tokens are
  sorted by expert): equal results at different cost.
  jitter: multiplicative noise on the input of a mixture in training.
  """
  common = resolve(DecoderOptions, options)
  head, dropout, dtype = common.head, common.dropout, common.dtype
  head_dim = sizes.head_dim(dim, num_heads) if common.head_dim is None else common.head_dim
  sizes.positive(vocab_size=vocab_size, max_length=max_length, dim=dim, depth=depth, num_heads=num_heads, top_k=top_k)
  sizes.positive(mlp_dim=mlp_dim, num_experts=num_experts, head_dim=head_dim, num_kv_heads=common.num_kv_heads)
  sizes.positive(dense_dim=dense_dim)
  sizes.rate(jitter=jitter)
  sizes.head_fits(head, HEADS, common.num_classes)
  if top_k > num_experts:
    raise ValueError(f"top_k {top_k} exceeds num_experts {num_experts}. A token can go to each expert once.")
  pattern = ["sparse"] if pattern is None else pattern
  if not pattern or any(kind not in ("sparse", "dense") for kind in pattern):
    raise ValueError(f"pattern is {pattern!r}. It must be a list of 'sparse' and 'dense'.")
  if "dense" in pattern and dense_dim is None:
    raise ValueError("pattern has dense layers, but dense_dim is None. Set dense_dim.")
  if dispatch not in DISPATCH:
    raise ValueError(f"dispatch is {dispatch!r}. It may be: {', '.join(DISPATCH)}.")
  init = initial.normal(0.02)
  norm = norms.rms_norm(epsilon, dtype)
  attention = Attention(
    num_heads,
    head_dim,
    num_kv_heads=common.num_kv_heads,
    mask=mask_pattern(common.window, None)[0],
    rotary=rotary(theta, rope_scaling.scaling(common.rope)),
    qk_norm=norm.copy() if common.qk_norm else None,
    use_bias=common.attention_bias,
    dropout=dropout,
    dtype=dtype,
    kernel_init=init,
    out_init=init,
  )
  shared: dict[str, Any] = dict(activation=activation, dtype=dtype, kernel_init=init, down_init=init)
  networks = {
    "sparse": Mixture(
      num_experts, top_k, mlp_dim, normalize=normalize, dispatch=DISPATCH[dispatch], jitter=jitter, **shared
    ),
    "dense": GatedMLP(dense_dim or mlp_dim, **shared),
  }
  blocks = tuple(PreNormBlock(attention, networks[kind], norm, dropout=dropout) for kind in pattern)
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


# Table 1 of the paper; https://mistral.ai/news/mixtral-8x22b; table 2 of https://arxiv.org/abs/2505.09388; lengths and
# vocabularies of the releases.
_QWEN = dict(vocab_size=151936, max_length=40960, num_experts=128, top_k=8, epsilon=1e-6, qk_norm=True)
VARIANTS = {
  **by_name({"8x7b": (4096, 32, 32, 8, 128, 14336)}, vocab_size=32000, max_length=32768, num_experts=8, top_k=2),
  **by_name({"8x22b": (6144, 56, 48, 8, 128, 16384)}, vocab_size=32768, max_length=65536, num_experts=8, top_k=2),
  **by_name({"qwen3-30b-a3b": (2048, 48, 32, 4, 128, 768), "qwen3-235b-a22b": (4096, 94, 64, 4, 128, 1536)}, **_QWEN),
}
# Parameter counts, printed by `list_models`.
PARAMETERS = {
  "8x7b": 46_702_792_704,
  "8x22b": 140_630_071_296,
  "qwen3-30b-a3b": 30_532_122_624,
  "qwen3-235b-a22b": 235_093_634_560,
}
