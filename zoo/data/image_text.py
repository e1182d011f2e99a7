"""Images with captions, for contrastive training: batches of `image`, `tokens`, `valid`, `group`."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from zoo.data.bad_records import BadRecord, Policy
from zoo.data.fields import SourceRecords, check_fields, first_record, group_of, templates_of, texts_of
from zoo.data.images import pixels
from zoo.data.padding import check_row
from zoo.data.pipeline import Example
from zoo.data.screening import open_checked
from zoo.data.sources import Source
from zoo.data.tokenizers import tokenizer as open_tokenizer
from zoo.data.tokenizers.folder import Published
from zoo.errors import UserError

TEXT_FIELDS = ("text", "caption", "captions", "sentences", "name")


def image_text(
  source: str,
  split: str = "train",
  *,
  data_dir: str | None = None,
  tokenizer: str = "clip",
  max_length: int = 32,
  image_size: int | None = None,
  fit: str = "crop",
  scaled: bool | None = None,
  background: str = "white",
  image_field: str = "image",
  text_field: str | None = None,
  templates: str | Sequence = ("{}",),
  alternatives: str | None = None,
  alternative_rate: float = 0.5,
  group_field: str | None = None,
  cache: bool = False,
  bad_records: str | Mapping = "stop",
  processor: Any = None,
) -> "ImageText":
  """Image-caption pairs.

  Args:
    source, split, data_dir: see `zoo.data.sources.open_source`.
    tokenizer: name or path; a caption becomes begin, its tokens, end, and padding.
    max_length: tokens of a caption with begin and end; longer ones are cut before the end token. For a published model
      its tokenizer and its max_length are the defaults (`zoo.train.model_data`).
    image_size: pixels of each side; by default the model's, or without a model the first image's shorter side.
    fit: how an image becomes square: `crop`, `pad`, `squash`, `random_crop` (in training; evaluation crops the middle).
    scaled: whether JPEGs that are large enough are decoded at 1/2, 1/4 or 1/8 of their size; see
      `zoo.data.images.pixels.decode`. None: in random crops alone, so that evaluation is exact.
    background: colour behind transparent parts: `white`, `black`, or `random` (evaluation: white).
    image_field: field of the source that holds the image.
    text_field: field of the caption, or of a list of captions: training takes one at random, evaluation the first, and
      `retrieval` all. By default the first existing one of text, caption, captions, sentences, name.
    templates: `a drawing of {}`; training takes one at random, evaluation the first.
    alternatives: field of further texts for the same image, e.g. `keywords`; training replaces the caption by one of
      them with probability `alternative_rate`.
    alternative_rate: that probability, from 0 to 1.
    group_field: field that is equal for the same concept; by default `concept` if there is one, else the caption; an
      image with several captions is its own concept.
    cache: keep decoded images and tokens in memory, for datasets that fit and are read for many epochs.
    bad_records: "stop" at the first one, or {"action": "skip", "most": 0.01}; see `zoo.data.bad_records`.
    processor: for a published model, instead of image_size, fit and background: `pixels(image, what)` are the images.
      Set by evaluators, not by configs.

  Each example: `image` uint8 [image_size, image_size, 3] (`zoo.data.images.augment`, or the objective, makes it float32
  on the
  device), `tokens` int32 [max_length], `valid` bool [max_length], `group` int32. `info`: source, tokenizer, vocab_size,
  image_size, max_length.

  Raises:
    UserError: an unknown background, or an alternative_rate that is not from 0 to 1.
  """
  pixels.check(fit, image_size)
  if background not in ("white", "black", "random"):
    raise UserError(f"background is '{background}'. It may be: white, black, random.")
  if not 0 <= alternative_rate <= 1:
    raise UserError(f"alternative_rate is {alternative_rate}. It must be from 0 to 1.")
  templates = templates_of(templates, "caption", "the caption")
  check_row(max_length=max_length)
  raw, rule = open_checked(source, split, data_dir, bad_records)
  size_of = lambda record, index: pixels.natural_size(record[image_field], raw.where(index))
  decodes = lambda record, index: image_size or image_field not in record or size_of(record, index)
  first = first_record(raw, rule, image_field, text_field or TEXT_FIELDS, group_field, check=decodes)
  text_field = text_field or next((field for field in TEXT_FIELDS if field in first), "text")
  group_field = group_field or ("concept" if "concept" in first else None)
  check_fields(raw, image_field, text_field, alternatives, group_field, record=first)
  image_size = image_size or pixels.natural_size(first[image_field], raw.name)
  captions = Captions(open_tokenizer(tokenizer), max_length, templates, alternative_rate, cache)
  fields = Fields(image_field, text_field, alternatives, group_field)
  return ImageText(raw, rule, fields, captions, image_size, fit, scaled, background, cache, processor)


class Fields(NamedTuple):
  """Field names of a raw example; None: missing."""

  image: str
  text: str
  alternatives: str | None
  group: str | None


class ImageText(SourceRecords):
  """See `image_text`."""

  def __init__(
    self,
    source: Source,
    rule: Policy,
    fields: Fields,
    captions: "Captions",
    image_size: int,
    fit: str,
    scaled: bool | None,
    background: str,
    cache: bool,
    processor: Any,
  ):
    super().__init__(source, rule, cache)
    self.fields, self.captions, self.processor = fields, captions, processor
    self.image_size, self.fit, self.scaled, self.background = image_size, fit, scaled, background
    self.colour = pixels.BLACK if background == "black" else pixels.WHITE
    self.info = {
      "source": source.name,
      "tokenizer": captions.tokenizer,
      "vocab_size": captions.tokenizer.vocab_size,
      "image_size": image_size,
      "max_length": captions.max_length,
    }

  def example(self, index: int, rng: np.random.Generator | None = None) -> Example:
    image, texts, alternatives, group = self.prepared[index]
    if self.processor is None:
      image = self._fitted(image, index, rng)
    tokens, valid = self.captions.tokens(self.captions.choose(texts, alternatives, rng))
    return {"image": image, "tokens": tokens, "valid": valid, "group": group}

  def _fitted(self, image: Any, index: int, rng: np.random.Generator | None) -> np.ndarray:
    if self.fit == "random_crop":
      image = pixels.decode(image, self.image_size, self.fit, self.source.where(index), rng, self.scaled)
    if image.shape[-1] == 4:
      colour = self.colour if rng is None or self.background != "random" else rng.integers(0, 256, 3)
      image = pixels.over(image, colour)
    return image

  def caption(self, index: int, number: int = 0) -> str:
    """The caption of an example: for evaluation the first, in training a random one."""
    return self.captions_of(index)[number]

  def captions_of(self, index: int) -> list[str]:
    """All captions of an image, in the first template; the image is not decoded."""
    if self.cache:
      texts = self.prepared[index][1]
    else:
      raw = self.source[index]
      self._check(raw, index, self.fields.text)
      texts = self._texts(raw, index)
    return [self.captions.templates[0].replace("{}", text) for text in texts]

  def tokens_of(self, caption: str) -> dict[str, np.ndarray]:
    """`tokens` int32 [max_length] and `valid` bool [max_length] of a text from `captions_of`."""
    return dict(zip(("tokens", "valid"), self.captions.tokens(caption), strict=True))

  def _prepare(self, raw: dict[str, Any], index: int) -> tuple[Any, list[str], list[str], np.int32]:
    """The epoch-independent part: image, captions, alternative captions, group."""
    what = self.source.where(index)
    image_field, _, alternatives, group = self.fields
    self._check(raw, index, image_field, self.fields.text, group)
    image = raw[image_field]
    if self.processor is not None:
      image = self.processor.pixels(image, what)
    elif self.fit != "random_crop":
      image = pixels.decode(image, self.image_size, self.fit, what, scaled=self.scaled)
      image = image if self.background == "random" else pixels.over(image, self.colour)
    texts = self._texts(raw, index)
    further = raw.get(alternatives) if alternatives else None
    further = [] if further is None else texts_of(further, f"{what}: {alternatives}")
    # Images with several captions each get their own group, also across the sources of a mixture.
    number = (int(group_of(self.source.name)) + index) % 2**31
    concept = raw[group] if group else texts[0] if len(texts) == 1 else number
    return image, texts, further, group_of(concept)

  def _texts(self, raw: Mapping[str, Any], index: int) -> list[str]:
    what = f"{self.source.where(index)}: {self.fields.text}"
    texts = texts_of(raw[self.fields.text], what)
    if not texts:
      raise BadRecord(f"{self.source.where(index)} has an empty caption ('{self.fields.text}').")
    return texts


class Captions:
  """Chooses a caption and tokenises it."""

  def __init__(
    self, tokenizer: Any, max_length: int, templates: tuple[str, ...], alternative_rate: float, remember: bool
  ):
    self.tokenizer, self.max_length, self.templates = tokenizer, max_length, templates
    self.alternative_rate = alternative_rate
    self.memory: dict[str, tuple[np.ndarray, np.ndarray]] | None = {} if remember else None
    self.begin = tokenizer.bos if tokenizer.bos is not None else tokenizer.cls
    self.end = tokenizer.eos if tokenizer.eos is not None else tokenizer.sep
    # A published tokenizer adds its own special tokens and padding.
    self.frames = isinstance(tokenizer, Published) and tokenizer(["a"])["tokens"].shape[1] > len(tokenizer.encode("a"))
    if max_length < 3:
      raise UserError(f"max_length is {max_length}. It must be at least 3: start token, one token, end token.")

  def choose(self, texts: list[str], alternatives: list[str], rng: np.random.Generator | None) -> str:
    """A random text in a random template; without an rng the first of each."""
    if rng is None:
      return self.templates[0].replace("{}", texts[0])
    if alternatives and rng.random() < self.alternative_rate:
      texts = alternatives
    return self.templates[rng.integers(len(self.templates))].replace("{}", texts[rng.integers(len(texts))])

  def cuts(self, text: str) -> bool:
    """Whether a text is truncated."""
    if self.frames:
      return int(self.tokenizer([text], length=self.max_length + 1)["valid"].sum()) > self.max_length
    around = sum(token is not None for token in (self.begin, self.end))
    return len(self.tokenizer.encode(text)) + around > self.max_length

  def tokens(self, text: str) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of a caption: begin, text, end and padding, int32 [max_length]; valid, bool [max_length].

    Special tokens spelled in a text are only recognised by published tokenizers, as in their models' training.
    """
    if self.memory is not None and text in self.memory:
      return self.memory[text]
    if self.frames:
      batch = self.tokenizer([text], length=self.max_length)
      tokens_and_valid = batch["tokens"][0], batch["valid"][0]
    else:
      begin = [] if self.begin is None else [self.begin]
      end = [] if self.end is None else [self.end]
      ids = [*begin, *self.tokenizer.encode(text)[: self.max_length - len(begin) - len(end)], *end]
      tokens = np.full(self.max_length, self.tokenizer.pad or 0, np.int32)
      tokens[: len(ids)] = ids
      tokens_and_valid = tokens, np.arange(self.max_length) < len(ids)
    if self.memory is not None:
      self.memory[text] = tokens_and_valid
    return tokens_and_valid
