"""The preprocessor_config.json of a model, from its stored preprocessing."""

from typing import Any

from zoo.build import sizes_of
from zoo.hub import tables
from zoo.hub.log_mel import LogMel
from zoo.hub.preprocessing import OF_MODEL_TYPE, from_entries
from zoo.hub.processors import BICUBIC, HALF, ImageProcessor, PatchProcessor
from zoo.preprocessing import RESAMPLES


def config_of(model: Any) -> dict[str, Any] | None:
  """The preprocessor_config.json of a model; None if it takes no images or sounds, or its preprocessing is unknown.

  For a model without resizing: the shorter edge is resized to its image_size, then a centre crop.
  """
  if "sound" in model.preprocessing:
    sound = LogMel(**model.preprocessing["sound"])
    sizes: dict[str, Any] = {
      "feature_size": sound.bands,
      "sampling_rate": sound.rate,
      "hop_length": sound.hop,
      "n_fft": sound.window,
    }
    sizes |= {"chunk_length": sound.seconds, "padding_value": sound.silence, "padding_side": "right"}
    sizes |= {"n_samples": sound.seconds * sound.rate, "nb_max_frames": sound.seconds * sound.rate // sound.hop}
    return {"feature_extractor_type": "WhisperFeatureExtractor", "return_attention_mask": False, **sizes}
  table = tables.of_family(model.spec["family"])
  image = model.preprocessing.get("image", {"mean": HALF, "std": HALF})
  if "unknown" in image or not any(kind in OF_MODEL_TYPE for kind in table.MODEL_TYPES):
    return None
  size, of_patches = model.image_size, "Siglip2" in (OF_MODEL_TYPE.get(kind) for kind in table.MODEL_TYPES)
  if of_patches:
    patch = sizes_of(model)["patch_size"]
    default: dict[str, Any] = {"patch_size": patch, "patches": (size // patch) ** 2, "resample": "bilinear"}
  else:
    default = {"resize": size, "resample": RESAMPLES[BICUBIC], "crop": [size, size]}
  processor = from_entries({**default, **image})
  if isinstance(processor, PatchProcessor):
    patch_config = {
      "image_processor_type": "Siglip2ImageProcessor",
      "do_resize": True,
      "patch_size": processor.patch_size,
    }
    return {**patch_config, "max_num_patches": processor.most, **_plain_config(processor.plain)}
  edge = processor.edge
  entries = {"image_processor_type": "CLIPImageProcessor", "do_resize": edge is not None, **_plain_config(processor)}
  entries["do_center_crop"] = processor.crop is not None
  if processor.crop is not None:
    entries["crop_size"] = dict(zip(("height", "width"), processor.crop))
  if edge is not None:
    entries["size"] = dict(zip(("height", "width"), edge)) if isinstance(edge, tuple) else {"shortest_edge": edge}
  return entries


def _plain_config(plain: ImageProcessor) -> dict[str, Any]:
  entries: dict[str, Any] = {"do_convert_rgb": True, "resample": plain.resample}
  entries |= {"do_rescale": plain.scale is not None, "do_normalize": plain.mean is not None}
  entries |= {} if plain.scale is None else {"rescale_factor": plain.scale}
  return (
    entries if plain.mean is None else {**entries, "image_mean": list(plain.mean), "image_std": list(plain.std or ())}
  )
