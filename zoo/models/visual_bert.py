"""VisualBERT: A Simple and Performant Baseline for Vision and Language (Li et al., 2019).

https://arxiv.org/abs/1908.03557. Code: https://github.com/uclanlp/visualbert.
"""

import functools
from typing import Unpack

import flax.linen as nn
import jax
import jax.numpy as jnp

from zoo.layers import initial, norms, sizes
from zoo.layers.attention import Attention
from zoo.layers.blocks import PostNormBlock
from zoo.layers.compute import Compute, computing
from zoo.layers.dense import Dense
from zoo.layers.embeddings import Embed
from zoo.layers.heads import token_heads
from zoo.layers.mixed_precision import add, look_up, pick
from zoo.layers.mlp import MLP
from zoo.layers.positions import Learned
from zoo.layers.sequence import SequenceInfo
from zoo.layers.stack import stack
from zoo.models.bert import BERT, MaskedTokenHead

PAPER = {
  "title": "VisualBERT: A Simple and Performant Baseline for Vision and Language",
  "authors": "Li et al.",
  "year": 2019,
  "url": "https://arxiv.org/abs/1908.03557",
}
# Head -> the outputs it adds to "hidden" and "hidden_regions".
HEADS = {
  "pretraining": ("pooled", "mlm", "nsp"),
  "classify": ("pooled", "logits"),
  "classify_answers": ("logits",),
  "multiple_choice": ("pooled", "logits"),
  "align": ("alignment",),
  None: ("pooled",),
}


class VisualBERT(BERT, kw_only=True):
  """One encoder over the words of a text and the regions of an image, which attend to each other in every layer.

  Arguments as BERT, and

  Args:
    regions: embeds regions, `RegionEmbed`.
    fusion: a block in which words, after all layers, and regions, which pass none before, meet; None: they meet in all.
    align: scores of regions for phrases, `PhraseHead`, or None.
    answers: whether the classes are those of answers to a question: they are read off its last word.
  """

  regions: nn.Module
  fusion: nn.Module | None = None
  align: nn.Module | None = None
  answers: bool = False

  @nn.compact
  def __call__(
    self,
    tokens,
    regions=None,
    *,
    segments=None,
    valid=None,
    positions=None,
    segment_ids=None,
    regions_valid=None,
    region_segments=None,
    alignment=None,
    phrases=None,
    predict=None,
    train=False,
  ):
    """Hidden states and the outputs of the heads.

    Args:
      tokens, segments, valid, positions, predict: as of `zoo.models.bert.BERT`; segment_ids are refused.
      regions: float [batch, regions, region_dim], features of parts of the image; of the head "multiple_choice" [batch,
        choices, regions, region_dim], and so the rest.
      regions_valid: bool [batch, regions], True = a real region; others are masked. None: all are real.
      region_segments: int32 [batch, regions]; all 1 if None.
      alignment: int32 [batch, regions, k], positions of the words that name a region, -1 = none: their mean position
        embedding is added. None: regions have no place, and their order does not matter.
      phrases: int32 [batch, phrases], positions of the words whose regions the head "align" is asked for; scores
        of -1, which is padding, mean nothing. None: all words.

    Returns:
      dict of "hidden" [batch, length, dim], "hidden_regions" [batch, regions, dim] and, where the model has the head:
        "pooled" [batch, dim], "mlm" float32 [batch, length or k, vocab_size], "nsp" float32 [batch, 2] (class 0 = text
        and image belong together), "logits" float32 [batch, num_classes] or [batch, choices], "alignment" float32
        [batch, phrases or length, regions], the logits of each phrase's region.
    """
    drop = functools.partial(nn.Dropout(self.dropout), deterministic=not train)
    shape, length = tokens.shape, tokens.shape[-1]
    self._check(shape, regions, phrases, segment_ids)
    tokens, segments, valid, positions = self.rows(tokens, segments, valid, positions)
    regions_valid, region_segments = self.rows(regions_valid, region_segments)
    regions, alignment = (x if x is None else x.reshape(-1, *x.shape[-2:]) for x in (regions, alignment))
    sizes.tokens_fit(tokens, segments=segments, valid=valid)
    words = self.embedded(tokens, segments, SequenceInfo(valid, positions))
    seen = self.regions(regions, region_segments, alignment, self.segments, self.positions)
    x = drop(self.norm(jnp.concatenate([words, seen], axis=1)))
    x = self.fused(x, length, valid, _joined(valid, regions_valid, tokens, regions), train=train)
    hidden, hidden_regions = x[:, :length], x[:, length:]
    out = {"hidden": hidden, "hidden_regions": hidden_regions, **self.masked_tokens(hidden, predict)}
    out |= self.summary_outputs(x[:, 0], drop)
    if self.align is not None:
      asked = hidden if phrases is None else pick(hidden, jnp.maximum(phrases, 0))
      out["alignment"] = self.align(asked, hidden_regions, regions_valid)
    summary = self._last_word(hidden, valid) if self.answers else out.get("pooled")
    return {**out, **self.head_outputs(summary, shape[:-1], drop)}

  def fused(self, x, length, valid, joint_valid, *, train):
    """All layers: [batch, length + regions, dim] -> the same; `valid` of the words, `joint_valid` of both."""
    if self.fusion is None:
      return self.layers(x, SequenceInfo(joint_valid), train=train)
    words = self.layers(x[:, :length], SequenceInfo(valid), train=train)
    return self.fusion(jnp.concatenate([words, x[:, length:]], axis=1), info=SequenceInfo(joint_valid), train=train)

  @nn.nowrap
  def _check(self, shape, regions, phrases, segment_ids):
    """ValueError where arguments do not fit the model or each other."""
    if regions is None:
      raise ValueError("This model reads regions of an image beside words. Pass regions, or add them to the batch.")
    if regions.shape[:-2] != shape[:-1] or regions.shape[-1] != self.regions.region_dim:
      expected = [*shape[:-1], "regions", self.regions.region_dim]
      raise ValueError(f"regions is of shape {list(regions.shape)}. With tokens {list(shape)} it must be {expected}.")
    if segment_ids is not None:
      raise ValueError("Rows of words and regions of an image cannot be packed. Leave out segment_ids.")
    if phrases is not None and self.align is None:
      raise ValueError('This model does not align phrases. Build it with head="align", or leave out phrases.')

  @nn.nowrap
  def _last_word(self, hidden, valid):
    """The state of the word before the separator that ends the text: [batch, length, dim] -> [batch, dim]"""
    length = hidden.shape[1] if valid is None else valid.sum(axis=1)
    place = jnp.broadcast_to(jnp.maximum(length - 2, 0), hidden.shape[:1]).astype(jnp.int32)
    return pick(hidden, place[:, None])[:, 0]

  @nn.nowrap
  def example(self, batch_size=1):
    (tokens,) = super().example(batch_size)
    return tokens, jnp.zeros((*tokens.shape[:-1], 3, self.regions.region_dim))


def _joined(valid, regions_valid, tokens, regions):
  """The mask of words and regions, bool [batch, length + regions], or None: all are real."""
  if valid is None and regions_valid is None:
    return None
  words = jnp.ones(tokens.shape, bool) if valid is None else valid.astype(bool)
  real = jnp.ones(regions.shape[:2], bool) if regions_valid is None else regions_valid.astype(bool)
  return jnp.concatenate([words, real], axis=1)


class RegionEmbed(nn.Module):
  """Embeddings of an image's regions: projected features, a segment, and where known the positions of their words.

  The tables of segments and positions begin as copies of the words' tables. Of the positions' only the first row is
  used, by every region: published files have them all.
  """

  dense: nn.Module
  region_dim: int

  @nn.compact
  def __call__(self, regions, segments, alignment, word_segments, word_positions):
    """[batch, regions, region_dim] -> [batch, regions, dim]

    Args:
      segments: int32 [batch, regions], or None: all 1.
      alignment: int32 [batch, regions, k], or None, as of `VisualBERT`.
      word_segments, word_positions: `Embed` and `Learned` of the words.
    """
    x = self.dense(regions)
    table = jax.lax.stop_gradient(word_segments.embedding)
    segment_table = self.param("segments", lambda rng: table)
    places = jax.lax.stop_gradient(word_positions(word_positions.max_length)[0])
    position_table = self.param("positions", lambda rng: places)
    x = add(x, segment_table[1:2]) if segments is None else x + look_up(segment_table, segments, x.dtype)
    x = add(x, position_table[:1])
    if alignment is None:
      return x
    batch, count, k = alignment.shape
    each = word_positions(1, jnp.maximum(alignment, 0).reshape(batch, count * k)).reshape(batch, count, k, -1)
    names = (alignment >= 0)[..., None].astype(each.dtype)
    mean = (each * names).sum(axis=2) / jnp.maximum(names.sum(axis=2), 1)
    return x + mean.astype(x.dtype)


class PhraseHead(nn.Module):
  """Scores of regions for phrases: one attention head's logits, without its values."""

  phrase: nn.Module
  region: nn.Module

  @nn.compact
  def __call__(self, phrases, regions, valid=None):
    """[batch, phrases, dim], [batch, regions, dim], bool [batch, regions] -> float32 [batch, phrases, regions]"""
    query, key = self.phrase(phrases), self.region(regions)
    logits = jnp.einsum("bpd,brd->bpr", query, key, preferred_element_type=jnp.float32) * query.shape[-1] ** -0.5
    return logits if valid is None else jnp.where(valid[:, None], logits, jnp.finfo(logits.dtype).min)


def visual_bert(
  *,
  vocab_size: int,
  max_length: int,
  region_dim: int,
  dim: int,
  depth: int,
  num_heads: int,
  mlp_dim: int | None = None,
  head: str | None = "pretraining",
  num_classes: int | None = None,
  num_segments: int = 2,
  pad: int | None = None,
  activation: str = "gelu",
  epsilon: float = 1e-12,
  early_fusion: bool = True,
  **options: Unpack[Compute],
) -> VisualBERT:
  """A VisualBERT of these sizes; mlp_dim defaults to 4 * dim.

  region_dim: number of features of a region.
  head: "pretraining" (masked words; whether text and image belong together), "classify" (num_classes, of the first
    token: NLVR2), "classify_answers" (num_classes, of the last word: VQA), "multiple_choice" (VCR), "align" (phrases
    with regions: Flickr30k Entities), None.
  pad, epsilon: as of `zoo.models.bert.bert`.
  early_fusion: whether words and regions meet in every layer; False: in one more layer after all others, the paper's
    ablation "w/o Early Fusion", section 5.1.
  """
  dropout, dtype, stacking = computing(options)
  head_dim = sizes.head_dim(dim, num_heads)
  sizes.positive(vocab_size=vocab_size, max_length=max_length, depth=depth, mlp_dim=mlp_dim, region_dim=region_dim)
  sizes.head_fits(head, HEADS, num_classes)
  if num_segments < 2:
    raise ValueError(f"num_segments is {num_segments}. It must be at least 2: words are of segment 0, regions of 1.")
  init = initial.truncated_normal(0.02)
  norm = norms.layer_norm(epsilon, dtype)
  dense = functools.partial(Dense, dtype=dtype, kernel_init=init)
  attention = Attention(num_heads, head_dim, dropout=dropout, dtype=dtype, kernel_init=init, out_init=init)
  mlp = MLP(mlp_dim or 4 * dim, activation, dtype=dtype, kernel_init=init, down_init=init)
  block = PostNormBlock(attention, mlp, norm, dropout=dropout)
  answers = head == "classify_answers"
  return VisualBERT(
    embed=Embed(vocab_size, dim, dtype=dtype, embedding_init=init),
    segments=Embed(num_segments, dim, dtype=dtype, embedding_init=init),
    positions=Learned(max_length, dim, embedding_init=init),
    regions=RegionEmbed(dense(dim), region_dim),
    norm=norm.copy(),
    stack=stack(block, depth, **stacking),
    fusion=None if early_fusion else block.copy(),
    pooler=dense(dim) if "pooled" in HEADS[head] else None,
    mlm=MaskedTokenHead(dense(dim), norm.copy(), activation) if "mlm" in HEADS[head] else None,
    nsp=dense(2) if "nsp" in HEADS[head] else None,
    align=PhraseHead(dense(head_dim), dense(head_dim)) if head == "align" else None,
    **token_heads("classify" if answers else head, num_classes, dense),
    answers=answers,
    pad=pad,
    dropout=dropout,
  )


# Of the published files: appendix A of the paper, features of the detectors of each data set.
_BASE = dict(vocab_size=30522, max_length=512, dim=768, depth=12, num_heads=12, pad=1)
VARIANTS = {
  "vqa-coco-pre": dict(**_BASE, region_dim=2048),
  "vqa": dict(**_BASE, region_dim=2048, head="classify_answers", num_classes=3129),
  "nlvr2": dict(**_BASE, region_dim=1024, head="classify", num_classes=2),
  "vcr": dict(**_BASE, region_dim=512, head="multiple_choice"),
  "flickr": dict(**_BASE, region_dim=2048, head="align"),
}
# Parameter counts, printed by `list_models`. Without the layers of published files that their heads do not read: the
# pooler of "vqa" and "flickr", and of the latter the masked-word head and the values of the attention to regions.
PARAMETERS = {
  "vqa-coco-pre": 112_074_812,
  "vqa": 113_266_233,
  "nlvr2": 110_665_730,
  "vcr": 110_271_745,
  "flickr": 110_958_464,
}
