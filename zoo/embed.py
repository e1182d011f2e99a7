"""Embeddings of texts and images, from any encoder that `zoo.load` reads.

Recipes, with v = zoo.embed(source, ...):

  similarity       v @ v.T, of unit vectors: cosines
  search           np.argsort(-v_documents @ v_query)
  zero-shot        v_images @ v_names.T, where names are texts like "a photo of a cat"; of CLIP the probabilities of the
                   names are jax.nn.softmax(scale * that), with scale = exp(params["logit_scale"])
  features         v, for any classifier: sklearn.linear_model.LogisticRegression().fit(v, labels)
"""

import functools
import inspect
import os
import pathlib
from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zoo.build import check_tokens
from zoo.data.images.files import is_picture
from zoo.data.tokenizers.variants import lower_cased
from zoo.errors import UserError, shown
from zoo.hub.files import CONFIG, is_published, read_json
from zoo.hub.ids import folder_of
from zoo.hub.preprocessing import load_processor
from zoo.hub.sentence_carried import carried_encoder
from zoo.hub.sentence_encoder import SentenceEncoder, check_truncate_dim, read_sentence_encoder
from zoo.hub.sentence_modules import unit_length
from zoo.hub.static_embedding import load_static, static_tokenizer
from zoo.hub.tables import of_model_type
from zoo.hub.tokenizers import leading_tokens, load_tokenizer
from zoo.preprocessing import text_options
from zoo.saving import load
from zoo.tree import variables

# Families that pool the last position, padding or not.
PADDED = ("siglip", "siglip_text", "siglip2")
# Families that pool one position: their pooled output.
POOLED = ("clip_text",)
# Encoder-decoders, of which only the encoder is used.
ENCODERS = ("t5", "umt5", "marian")
SHORTEST = 16  # Length of a batch of texts: this times a power of two, so that few programs are compiled.


def embed(
  source: Any,
  items: Any,
  *,
  batch_size: int = 32,
  pooling: str | None = None,
  unit: bool | None = None,
  max_length: int | None = None,
  prompt: str | None = None,
  truncate_dim: int | None = None,
  dtype: Any = None,
  ignore: Collection[str] = (),
) -> np.ndarray:
  """Embeds texts or images: float32 [n, dim].

  Texts go through a sentence encoder (of a T5 only its encoder), or the text tower of a CLIP or SigLIP; images through
  an image tower, a ViT or a DINOv2. Pooling is that of the folder (modules.json of sentence-transformers and the files
  that it names), by default the mean over the real tokens.

  Args:
    source: a folder in the hub's layout, a hub id, a run, or the result of `embedder`, which loads it only once.
    items: texts, or images: PIL images, arrays of uint8, bytes of files, `pathlib.Path`s. One, or a list.
    batch_size: items per batch; the last batch is padded.
    pooling: cls, max, mean, mean_sqrt_len_tokens, weightedmean or lasttoken, instead of the folder's pooling.
    unit: whether to scale vectors to length 1; by default as the folder specifies. CLIP's and SigLIP's always are.
    max_length: longer texts are truncated to this many tokens; by default the folder's or the model's limit.
    prompt: str to prepend to each text, or the name of a prompt of the folder.
    truncate_dim: keep only the first dimensions of each vector, for Matryoshka models; by default as the
      folder specifies. `unit` is applied afterwards.
    dtype: of the parameters, e.g. "bfloat16".
    ignore: entries of a published model's config.json to ignore, as in `zoo.load`.

  Raises:
    UserError: the model does not embed such items, the folder lacks its tokenizer or its processor, or a str is the
      path of an image for a model that takes images.

  >>> import zoo
  >>> model = zoo.build("vit", image_size=4, patch_size=2, dim=8, depth=1, num_heads=2)
  >>> zoo.save("tiny_vit", model, model.init(jax.random.key(0), *model.example())["params"])
  >>> vectors = zoo.embed("tiny_vit", [np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)])
  >>> vectors.shape, vectors.dtype
  ((2, 8), dtype('float32'))
  """
  make = source if isinstance(source, Embedder) else embedder(source, dtype=dtype, ignore=ignore)
  several = isinstance(items, list | tuple) or isinstance(items, np.ndarray) and items.ndim == 4
  items = list(items) if several else [items]
  if not items:
    raise UserError("items is empty. Give at least one text or image.")
  if batch_size < 1:
    raise UserError(f"batch_size is {batch_size}. It must be 1 or more.")
  of_text = [isinstance(item, str) for item in items]
  if any(of_text) and not all(of_text):
    raise UserError("items mixes texts and images. Embed them in two calls; paths of images must be pathlib.Path.")
  check_truncate_dim(truncate_dim)
  if all(of_text):
    return make.texts(items, batch_size, pooling, unit, max_length, prompt, truncate_dim)
  return make.images(items, batch_size, unit, truncate_dim)


def embedder(source: str | os.PathLike, *, dtype: Any = None, ignore: Collection[str] = ()) -> "Embedder":
  """Loads a model once, for many calls of `embed`.

  >>> import zoo
  >>> model = zoo.build("vit", image_size=4, patch_size=2, dim=8, depth=1, num_heads=2)
  >>> zoo.save("vit_of_embedder", model, model.init(jax.random.key(0), *model.example())["params"])
  >>> make = zoo.embedder("vit_of_embedder")
  >>> [zoo.embed(make, np.zeros((n, 4, 4, 3), np.uint8)).shape for n in (1, 3)]
  [(1, 8), (3, 8)]
  """
  folder = folder_of(source)
  encoder = read_sentence_encoder(folder)
  if encoder.static:
    return Embedder(folder, encoder, *load_static(encoder.folder, dtype), ignore=ignore)
  model, params = load(encoder.folder, head=_head(encoder.folder), dtype=dtype, ignore=ignore)
  if not is_published(encoder.folder):
    encoder = carried_encoder(model, folder)
  return Embedder(folder, encoder, model, params, ignore=ignore)


def _head(folder: pathlib.Path) -> str | None:
  """The head to load a published model with: "encoder" if the family has it."""
  if not is_published(folder):
    return None
  config = read_json(folder / CONFIG)
  return "encoder" if "encoder" in of_model_type(config["model_type"], str(folder / CONFIG)).HEADS else None


class Embedder:
  """A model with its tokenizer and processor, which are opened lazily."""

  def __init__(
    self, folder: os.PathLike, encoder: SentenceEncoder, model: Any, params: Any, *, ignore: Collection[str] = ()
  ):
    self.folder, self.encoder, self.model, self.params = folder, encoder, model, params
    self.ignore = ignore
    self._programs: dict[Any, Callable] = {}

  @functools.cached_property
  def tokenizer(self) -> Any:
    if self.encoder.static:
      return static_tokenizer(self.encoder.folder, self.model.vocab_size)
    tokenizer = load_tokenizer(self.encoder.folder)
    return lower_cased(tokenizer) if self.encoder.lower else tokenizer

  @functools.cached_property
  def processor(self) -> Callable:
    return load_processor(self.encoder.folder, ignore=self.ignore)

  def texts(self, texts, batch_size, pooling, unit, max_length, prompt, truncate_dim) -> np.ndarray:
    """Embeds a list of str, with the arguments of `embed`: float32 [texts, dim]

    Raises:
      UserError: max_length is below 1, or the model does not embed texts.
    """
    self._refuse_pictures(texts)
    encoder = self.encoder if pooling is None else self.encoder.with_pooling(pooling)
    encoder = encoder.without_unit() if unit is False else encoder
    if max_length is not None and max_length < 1:
      raise UserError(f"max_length is {max_length}. It must be 1 or more.")
    limits = [n for n in (max_length, encoder.max_length, self.tokenizer.max_length) if n is not None]
    model_limits = [n for n in (getattr(self.model, "max_length", None),) if n is not None]
    max_tokens = min([*limits[:1], *model_limits, 2**30])
    prompt = encoder.prompt if prompt is None else encoder.prompts.get(prompt, prompt)
    prompt_length = np.array(
      leading_tokens(self.tokenizer, prompt, max_tokens) if encoder.uses_prompt_length else 0, np.int32
    )
    texts = [prompt + text for text in texts]
    padded = self.model.spec.get("family") in PADDED
    keep = encoder.truncate_dim if truncate_dim is None else truncate_dim
    key = ("text", pooling, unit, keep)
    run = self._program(key, lambda: self._text(encoder, pooling, bool(unit), keep))

    def batch(chosen: list[str]) -> dict[str, np.ndarray]:
      encoded = self.tokenizer(chosen, length=max_tokens) if padded else self._cut(chosen, max_tokens)
      check_tokens(self.model, encoded, str(self.folder))
      return {"tokens": encoded["tokens"], "valid": encoded["valid"], "prompt_length": prompt_length}

    # Sorted by length, for little padding.
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    rows = self._batches(run, [texts[i] for i in order], batch_size, batch)
    vectors = np.empty_like(rows)
    vectors[order] = rows
    return vectors

  def images(self, images, batch_size, unit, truncate_dim) -> np.ndarray:
    """Embeds a list of images, with the arguments of `embed`: float32 [images, dim]"""
    run = self._program(("image", unit, truncate_dim), lambda: self._image(bool(unit), truncate_dim))
    return self._batches(run, images, batch_size, self.processor)

  def _refuse_pictures(self, texts: list[str]) -> None:
    """UserError for the path of an image as a text, where the model could mean either."""
    path = next((text for text in texts if self.takes("image") and is_picture(text)), None)
    if path is not None:
      raise UserError(
        f"{shown(path)} is the path of an image, but a str is embedded as text. Give images as "
        f"pathlib.Path({shown(path)})."
      )

  def _cut(self, texts: list[str], max_tokens: int) -> dict[str, np.ndarray]:
    width = SHORTEST
    while True:  # Until no text is cut unnecessarily.
      length = min(width, max_tokens)
      batch = self.tokenizer(texts, length=length)
      if length == max_tokens or not batch["valid"].all(axis=1).any():
        return batch
      width *= 2

  def _batches(self, run: Callable, items: list, batch_size: int, batch: Callable) -> np.ndarray:
    rows, vectors = min(batch_size, len(items)), []
    for start in range(0, len(items), rows):
      chosen = items[start : start + rows]
      arrays = batch([*chosen, *chosen[:1] * (rows - len(chosen))])
      vectors.append(np.asarray(run(self.params, arrays), np.float32)[: len(chosen)])
    rows = np.concatenate(vectors)
    if (undefined := np.isnan(rows).any(axis=1)).any():
      raise UserError(
        f"{self.folder}: the vectors of {undefined.sum()} of {len(rows)} items are nan. The weights are damaged, or "
        "numbers overflow in their dtype: take other weights, or float32."
      )
    return rows

  def _program(self, key: tuple, make: Callable[[], Callable]) -> Callable:
    """Compiled once for each choice of options."""
    if key not in self._programs:
      self._programs[key] = jax.jit(make())
    return self._programs[key]

  def takes(self, kind: str) -> bool:
    """Whether the model embeds what `kind` says: "text" or "image"."""
    keyword = {"text": "tokens", "image": "image"}[kind]
    return hasattr(self.model, f"encode_{kind}") or keyword in inspect.signature(self.model.__call__).parameters

  def text_function(self) -> Callable:
    """(params, {"tokens", "valid", "prompt_length"}) -> float32 [batch, dim], as `embed` computes it by default."""
    return self._text(self.encoder, None, False, self.encoder.truncate_dim)

  def image_function(self) -> Callable:
    """(params, {"image"}) -> float32 [batch, dim], as `embed` computes it by default."""
    return self._image(False, None)

  def _text(self, encoder: SentenceEncoder, pooling: str | None, unit: bool, keep: int | None) -> Callable:
    model, family = self.model, self.model.spec["family"]
    # Only models trained in the zoo have seen a padding mask; a model without preprocessing is a published one.
    masked = family not in PADDED or bool(model.preprocessing and text_options(model, {"valid": None}))
    has_tower = hasattr(model, "encode_text")
    if not has_tower and "tokens" not in inspect.signature(model.__call__).parameters:
      raise UserError(f"{self.folder}: a {family} does not embed texts. Give it images.")

    def run(params: Any, batch: dict) -> jax.Array:
      valid = {"valid": batch["valid"]} if masked else {}
      if has_tower:
        out = {"embedded": model.apply(variables(params), batch["tokens"], **valid, method="encode_text")}
      else:
        out = model.apply(variables(params), batch["tokens"], **valid)
      states = "encoded" if family in ENCODERS else "hidden"
      if not isinstance(out, dict) or not {"embedded", states} & out.keys():
        raise UserError(f"{self.folder}: a {family} returns no hidden states to pool. Choose another model.")
      key = "embedded" if "embedded" in out else "pooled" if family in POOLED else None
      if key is None:
        return finish(encoder(out[states], batch["valid"], batch["prompt_length"]), unit, keep)
      if pooling is not None:
        raise UserError(f"{self.folder}: a {family} has its own pooling. Leave out pooling.")
      return finish(out[key], unit, keep)

    return run

  def _image(self, unit: bool, keep: int | None) -> Callable:
    model = self.model
    has_tower = hasattr(model, "encode_image")
    if not has_tower and "image" not in inspect.signature(model.__call__).parameters:
      raise UserError(f"{self.folder}: a {model.spec['family']} does not embed images. Give it texts.")

    def run(params: Any, batch: dict) -> jax.Array:
      if has_tower:
        return finish(model.apply(variables(params), batch["image"], method="encode_image"), unit, keep)
      out = model.apply(variables(params), batch["image"])
      key = next((key for key in ("embedded", "pooled") if key in out), None)
      if key is None:
        raise UserError(
          f"{self.folder}: a {model.spec['family']} returns no pooled output. It returns: {', '.join(out)}."
        )
      return finish(out[key], unit, keep)

    return run


def finish(x: jax.Array, unit: bool, keep: int | None = None) -> jax.Array:
  """Truncates to `keep` dimensions (None: all), then normalises if `unit`: [batch, dim] -> float32 [batch, keep]"""
  x = x.astype(jnp.float32)[:, :keep]
  return unit_length(x) if unit else x
