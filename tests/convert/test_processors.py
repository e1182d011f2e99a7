"""Preprocessing of images and sounds against the reference."""

import json

import numpy as np
import pytest
from PIL import Image

import zoo

SIZES = [(224, 224), (37, 53), (301, 299), (517, 233), (1, 9), (224, 225), (640, 97)]


def picture(height, width, mode, seed=0):
  """Smooth shapes and noise; the last channel is transparent in places."""
  rng = np.random.default_rng(seed)
  y, x = np.mgrid[:height, :width]
  channels = [127 + 127 * np.sin(y / (3 + k) + x * 0.05 * (k + 1)) for k in range(4)]
  array = np.stack(channels, -1) * 0.8 + rng.integers(0, 51, (height, width, 4))
  return Image.fromarray(array.astype(np.uint8), "RGBA").convert(mode)


PROCESSORS = {
  "CLIP": ("CLIPImageProcessorPil", {}),
  "small CLIP": ("CLIPImageProcessorPil", {"size": {"shortest_edge": 41}, "crop_size": {"height": 57, "width": 31}}),
  "whole numbers": ("CLIPImageProcessorPil", {"size": 35, "crop_size": 33, "do_rescale": False}),
  "square CLIP": (
    "CLIPImageProcessorPil",
    {"size": 35, "default_to_square": True, "do_center_crop": False, "rescale_factor": 1},
  ),
  "ViT": ("ViTImageProcessorPil", {}),
  "odd ViT": (
    "ViTImageProcessorPil",
    {"size": {"height": 45, "width": 61}, "resample": 3, "image_mean": [0.1, 0.2, 0.3], "image_std": [1.0, 2.0, 0.5]},
  ),
  "ViT of a number": ("ViTImageProcessorPil", {"size": 29, "resample": 0, "do_normalize": False}),
  "DINOv2": ("BitImageProcessorPil", {"size": {"shortest_edge": 256}, "resample": 3}),
  "SigLIP": ("SiglipImageProcessorPil", {}),
  "SigLIP by Lanczos": ("SiglipImageProcessorPil", {"size": {"height": 51, "width": 51}, "resample": 1}),
  "unsized": ("SiglipImageProcessorPil", {"do_resize": False, "rescale_factor": 0.01}),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_images_are_prepared_as_by_the_reference(name, tmp_path):
  import transformers

  cls, options = PROCESSORS[name]
  theirs = getattr(transformers, cls)(**options)
  theirs.save_pretrained(tmp_path / "saved")
  (tmp_path / "written").mkdir()
  kind = cls.removesuffix("Pil")
  (tmp_path / "written/preprocessor_config.json").write_text(json.dumps({"image_processor_type": kind, **options}))
  for folder in ("saved", "written"):
    ours = zoo.load_processor(tmp_path / folder)
    for mode in ("RGB", "RGBA", "L", "P", "1"):
      if mode not in ("RGB",) and not theirs.do_convert_rgb:
        continue
      for size in SIZES:
        image = picture(*size, mode)
        want = theirs(image, return_tensors="np")["pixel_values"].transpose(0, 2, 3, 1)
        got = ours([image])["image"]
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, want)
    if theirs.do_resize and theirs.size.height:
      together = ours([picture(*size, "RGB") for size in SIZES])["image"]
      np.testing.assert_array_equal(together[1:2], ours(np.asarray(picture(*SIZES[1], "RGB")))["image"])


SPEECH = {"tiny": {}, "large": {"feature_size": 128}, "odd": {"hop_length": 100, "n_fft": 256, "chunk_length": 2}}


@pytest.mark.parametrize("name", SPEECH)
def test_sounds_are_prepared_as_by_the_reference(name, tmp_path, monkeypatch):
  import transformers
  from transformers.models.whisper import feature_extraction_whisper

  theirs = transformers.WhisperFeatureExtractor(**SPEECH[name])
  theirs.save_pretrained(tmp_path)
  ours = zoo.load_processor(tmp_path)
  rng = np.random.default_rng(0)
  time = np.arange(40_000) / 16_000
  sounds = [np.sin(6000 * time**2).astype(np.float32), 0.1 * rng.normal(size=16_001).astype(np.float32), np.zeros(7)]
  sounds.append(rng.uniform(-1, 1, 16_000 * 31).astype(np.float32))
  got = ours(sounds, rate=16_000)["features"]

  def reference():
    return theirs(sounds, sampling_rate=16_000, return_tensors="np")["input_features"].swapaxes(1, 2)

  assert abs(got - reference()).max() < 1e-4  # torch: float32 throughout
  monkeypatch.setattr(feature_extraction_whisper, "is_torch_available", lambda: False)
  assert abs(got - reference()).max() < 1e-6
  np.testing.assert_array_equal(ours(sounds[1])["features"], got[1:2])
