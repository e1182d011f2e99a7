"""Processors for images and sounds, from preprocessor_config.json or the preprocessing stored with a model."""

import os
import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from zoo import json_files
from zoo.build import build
from zoo.convert.rules import reference
from zoo.convert.rules.options import Options, check_ignored
from zoo.data.images import files, pixels
from zoo.data.tokenizers.folder import has_tokenizer
from zoo.data.tokenizers.open_clip import is_open_clip
from zoo.errors import UserError, shown
from zoo.hub import open_clip_images
from zoo.hub.files import CONFIG, is_published, read_json
from zoo.hub.ids import folder_of
from zoo.hub.log_mel import LogMel
from zoo.hub.processors import CLASSES, ImageProcessor, PatchProcessor, checked, opened
from zoo.hub.sentence_carried import sentence_entries
from zoo.preprocessing import RESAMPLES, as_float

MODEL, NESTED, PLAIN = "model.json", "processor_config.json", "preprocessor_config.json"
OF_MODEL_TYPE = {
  "clip": "CLIP", "clip_vision_model": "CLIP", "vit": "ViT", "vit_mae": "ViT", "dinov2": "Bit",
  "dinov2_with_registers": "Bit", "siglip": "Siglip", "vision-encoder-decoder": "ViT",
  "siglip_vision_model": "Siglip", "siglip2": "Siglip2", "siglip2_vision_model": "Siglip2",
}  # fmt: skip
# Models that pool the last token, padding or not: they were trained without padding masks.
PADDED = ("siglip", "siglip2", "siglip_text_model", "siglip2_text_model")


def load_processor(source: str | os.PathLike, *, ignore: Collection[str] = ()) -> Callable[..., dict[str, Any]]:
  """Loads a model's processor for images or sounds.

      batch = load_processor(source)([image, "photo.jpg"])
      model.apply({"params": params}, batch["image"])

  Args:
    source: a folder in the hub's layout with a preprocessor_config.json or a processor_config.json, or in open_clip's,
      or a hub id; or the folder of a run, or of `zoo.save`.
    ignore: of a published folder: entries of that file, or of its config.json, to ignore because they are known to
      change nothing.

  Returns:
    for CLIP, ViT, DINOv2 and SigLIP an `ImageProcessor`, for SigLIP 2 NaFlex a `PatchProcessor`, for Whisper a
    `LogMel`; for a model trained with the zoo's own preprocessing a `FitProcessor`.

  Raises:
    UserError: there is no such file, or it has unsupported entries.

  >>> import jax
  >>> import zoo
  >>> model = zoo.build("vit", image_size=4, patch_size=2, dim=8, depth=1, num_heads=2)
  >>> zoo.save("vit_of_processor", model, model.init(jax.random.key(0), *model.example())["params"])
  >>> processor = zoo.load_processor("vit_of_processor")
  >>> processor([np.zeros((7, 9, 3), np.uint8)])["image"].shape
  (1, 4, 4, 3)
  """
  folder = folder_of(source)
  if is_open_clip(folder):
    return open_clip_images.read(folder, ignore)
  if not is_published(folder) and not (folder / PLAIN).is_file() and not (folder / NESTED).is_file():
    spec, data = _spec(folder), _section(folder / CONFIG, "data")
    if spec is not None and ignore:
      raise UserError(f"{folder} is a model of the zoo, where ignore does not apply. Leave it out.")
    if spec is not None:
      model = build(**spec, preprocessing=preprocessing_of_saved(folder))
      return processor_of(model, fit=data.get("fit", "crop"), background=data.get("background", "white"))
  if ignore:
    config = {str(folder / CONFIG): read_json(folder / CONFIG)} if (folder / CONFIG).is_file() else {}
    check_ignored(ignore, config | processor_entries(folder))
  return _published_processor(folder, ignore)


def processor_entries(folder: pathlib.Path) -> dict[str, Mapping[str, Any]]:
  """Reads a published folder's processor entries; {} if there are none."""
  if not (folder / NESTED).is_file() and not (folder / PLAIN).is_file():
    return {}
  entries, where = _entries(folder)
  return {where: entries}


def _published_processor(
  folder: pathlib.Path, ignore: Collection[str] = ()
) -> "ImageProcessor | PatchProcessor | LogMel":
  entries, where = _entries(folder)
  model_type = read_json(folder / CONFIG).get("model_type") if (folder / CONFIG).is_file() else None
  name = entries.get("image_processor_type", entries.get("feature_extractor_type"))
  if name == "WhisperFeatureExtractor" or name is None and model_type == "whisper":
    return LogMel.from_options(_processor_options(entries, where, ignore))
  kind = OF_MODEL_TYPE.get(str(model_type)) if name is None else str(name)
  for ending in ("Fast", "Pil", "ImageProcessor", "FeatureExtractor"):
    kind = None if kind is None else kind.removesuffix(ending)
  if kind not in CLASSES:
    supported = ", ".join([f"{name_of_class}ImageProcessor" for name_of_class in CLASSES] + ["WhisperFeatureExtractor"])
    raise UserError(f"{where}: the zoo has no image_processor_type {shown(name or model_type)}. It has: {supported}.")
  processor = PatchProcessor if kind == "Siglip2" else ImageProcessor
  return processor.from_options(_processor_options(entries, where, ignore), CLASSES[kind])


def _processor_options(entries: Mapping[str, Any], where: str, ignore: Collection[str]) -> Options:
  """Options that skip entries which no processor of the reference reads."""
  return Options(entries, where, reference=reference.of_processors(), ignore=ignore)


class FitProcessor(NamedTuple):
  """Processor as in the zoo's pipelines: images of any size and mode -> {"image": float32 [batch, size, size, 3]}.

  Args:
    size: pixels per side.
    fit: how an image becomes square, see `zoo.data.images.pixels.decode`.
    background: colour behind transparent parts: "white" or "black".
    model: its normalisation is applied.
  """

  size: int
  fit: str
  background: str
  model: Any

  def __repr__(self) -> str:
    # Only the model's name: the repr of a module lists all its parts.
    model = getattr(self.model, "spec", {}).get("family", type(self.model).__name__)
    return f"FitProcessor(size={self.size}, fit={self.fit!r}, background={self.background!r}, model=<{model}>)"

  def __call__(self, images: Any) -> dict[str, np.ndarray]:
    """One image or several: PIL images, uint8 [height, width] or [height, width, 1, 3 or 4], bytes of a file, paths."""
    images = images if isinstance(images, Sequence) and not isinstance(images, str | bytes) else [images]
    if not images:
      raise UserError("There is no image to process.")
    done = np.stack([self._one(image, f"image {number}") for number, image in enumerate(images)])
    return {"image": np.asarray(as_float(done, self.model), np.float32)}

  def _one(self, image: Any, what: str) -> np.ndarray:
    if isinstance(image, str | os.PathLike):
      image = files.content_of(image, what)
    if isinstance(image, np.ndarray) and (image.dtype != np.uint16 or image.ndim != 2):  # Grey may have 16 bits.
      image = checked(image, what)
    if not isinstance(image, bytes | np.ndarray):
      image = np.asarray(image if isinstance(image, Image.Image) and image.mode == "RGBA" else opened(image, what))
    colour = pixels.BLACK if self.background == "black" else pixels.WHITE
    return pixels.over(pixels.decode(image, self.size, self.fit, what), colour)


def processor_of(model: Any, *, fit: str = "crop", background: str = "white") -> Any:
  """The processor stored with a model; if it has no resizing, one with `fit`.

  Raises:
    UserError: it takes neither images nor sounds, or its preprocessing is unknown.
  """
  entries = model.preprocessing
  if "sound" in entries:
    return LogMel(**entries["sound"])
  image = entries.get("image", {})
  if "unknown" in image:
    raise UserError(image["unknown"])
  if "resize" in image or "patch_size" in image:
    return from_entries(image)
  if getattr(model, "image_size", None) is None:
    raise UserError(f"A {model.spec.get('family', type(model).__name__)} takes no images: it has no processor.")
  return FitProcessor(model.image_size, fit, "black" if background == "black" else "white", model)


def image_processor(model: Any) -> ImageProcessor | PatchProcessor | None:
  """The complete image processor stored with a model; None if it has none."""
  image = getattr(model, "preprocessing", {}).get("image", {})
  return from_entries(image) if "resize" in image or "patch_size" in image else None


def sound_processor(model: Any) -> LogMel | None:
  """The feature extractor stored with a model, or Whisper's in its sizes; None if it takes no sound."""
  if "sound" in getattr(model, "preprocessing", {}):
    return LogMel(**model.preprocessing["sound"])
  if not hasattr(model, "mels"):
    return None
  length = model.encoder.max_length
  if length % 50:
    raise UserError(
      f"The model hears {length / 50:g} s: source_length is {length}. Make it a multiple of 50, full seconds."
    )
  return LogMel(model.mels, 16000, 160, 400, length // 50, 0.0)


def from_entries(image: Mapping[str, Any]) -> ImageProcessor | PatchProcessor:
  """The image processor from stored preprocessing: see `zoo.preprocessing`."""
  pair = lambda x: tuple(x) if isinstance(x, list) else x
  mean, std = (_three(image.get(name)) for name in ("mean", "std"))
  if mean is not None or std is not None:
    mean, std = mean or (0.0,) * 3, std or (1.0,) * 3
  plain = ImageProcessor(
    pair(image.get("resize")),
    RESAMPLES.index(image.get("resample", "bicubic")),
    pair(image.get("crop")),
    image.get("scale", 1 / 255),
    mean,
    std,
    bool(image.get("crop_rounds")),
  )
  return PatchProcessor(plain, image["patch_size"], image.get("patches", 256)) if "patch_size" in image else plain


def _three(value: Any) -> tuple[float, ...] | None:
  colours = value if isinstance(value, list) or value is None else [value]
  return None if colours is None else tuple(colours * 3 if len(colours) == 1 else colours)


def _entries_of(processor: Any) -> dict[str, Any]:
  """Converts a processor of a published folder to the preprocessing stored with a model."""
  if isinstance(processor, LogMel):
    return {"sound": processor._asdict()}
  plain = processor.plain if isinstance(processor, PatchProcessor) else processor
  colours = {name: None if x is None else list(x) for name, x in (("mean", plain.mean), ("std", plain.std))}
  image = {"scale": plain.scale, **colours, "resample": RESAMPLES[plain.resample]}
  image["crop"] = None if plain.crop is None else list(plain.crop)
  image |= {"crop_rounds": True} if plain.rounds else {}
  if isinstance(processor, PatchProcessor):
    return {"image": {**image, "patch_size": processor.patch_size, "patches": processor.most}}
  return {"image": {**image, "resize": list(plain.edge) if isinstance(plain.edge, tuple) else plain.edge}}


def preprocessing_of_published(folder: Any, config: Mapping[str, Any], ignore: Collection[str] = ()) -> dict[str, Any]:
  """Preprocessing of a published model, from the files of its folder and its parsed config.json.

  Weights load without these files: if image preprocessing is missing, the reason is stored for a later error.

  ignore: entries of the files to ignore.
  """
  entries: dict[str, Any] = {}
  model_type = str(config.get("model_type"))
  if model_type in OF_MODEL_TYPE or model_type == "whisper":
    try:
      entries = _entries_of(_published_processor(folder, ignore))
    except UserError as error:
      way_out = "Or set it: model.preprocessing.image in a config, preprocessing= of zoo.build."
      entries = {"image": {"unknown": f"{error} {way_out}"}} if model_type in OF_MODEL_TYPE else {}
  if model_type in PADDED:
    entries["text"] = {"mask": False}
  text = config.get("text_config")
  text = text if isinstance(text, Mapping) else {}
  if has_tokenizer(folder):
    entries["tokenizer"] = os.path.abspath(folder)
  elif model_type == "clip" and text.get("vocab_size", 49408) == 49408:
    entries["tokenizer"] = "clip"
  return entries | sentence_entries(folder)


def preprocessing_of_config(folder: Any) -> dict[str, Any]:
  """Preprocessing of a run's model, from its config."""
  entries = _section(folder / CONFIG, "model").get("preprocessing")
  return entries if isinstance(entries, dict) else {}


def preprocessing_of_saved(folder: Any) -> dict[str, Any]:
  """Preprocessing of a run, or of a model from `zoo.save`; {} if its files have none."""
  saved = (folder / MODEL).exists()
  entries = _section(folder / MODEL, "preprocessing") if saved else preprocessing_of_config(folder)
  data = _section(folder / CONFIG, "data")
  tokenizer, classes = data.get("tokenizer"), data.get("classes") or data.get("class_names")
  of_data = {"tokenizer": tokenizer} if isinstance(tokenizer, str) else {}
  return {**of_data, **({"classes": list(map(str, classes))} if isinstance(classes, list) else {}), **entries}


def _spec(folder: pathlib.Path) -> dict[str, Any] | None:
  spec = _section(folder / (MODEL if (folder / MODEL).exists() else CONFIG), "model")
  spec.pop("preprocessing", None)
  return spec if isinstance(spec.get("family"), str) else None


def _section(path: Any, name: str) -> dict[str, Any]:
  """A section of a JSON file; {} for a missing file, or an invalid one, which raises elsewhere."""
  try:
    section = json_files.read_json(path).get(name)
  except UserError:
    return {}
  return section if isinstance(section, dict) else {}


def _entries(folder: pathlib.Path) -> tuple[dict[str, Any], str]:
  """The entries of an image processor or feature extractor, and their file."""
  nested = read_json(folder / NESTED) if (folder / NESTED).is_file() else {}
  for part in ("image_processor", "feature_extractor"):
    if isinstance(nested.get(part), dict):
      return nested[part], f"{folder / NESTED}: {part}"
  if (folder / PLAIN).is_file():
    return read_json(folder / PLAIN), str(folder / PLAIN)
  raise UserError(f"{folder} has no {PLAIN}. Download it, or name a folder that has one.")
