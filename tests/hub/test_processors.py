import io
import json

import numpy as np
import pytest
from PIL import Image

import zoo
from zoo.errors import UserError
from zoo.hub.preprocessing import processor_of


def folder_with(path, file="preprocessor_config.json", **entries):
  (path / file).write_text(json.dumps(entries))
  return path


def test_an_image_may_be_a_file_its_bytes_or_an_array(tmp_path):
  processor = zoo.load_processor(
    folder_with(tmp_path, image_processor_type="CLIPImageProcessorFast", size=19, crop_size=17)
  )
  image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (23, 29, 3)).astype(np.uint8))
  memory = io.BytesIO()
  image.save(memory, "PNG")
  (tmp_path / "a.png").write_bytes(memory.getvalue())
  want = processor(image)["image"]
  assert want.shape == (1, 17, 17, 3) and want.dtype == np.float32
  for same in ([image], np.asarray(image), memory.getvalue(), tmp_path / "a.png", [str(tmp_path / "a.png")]):
    np.testing.assert_array_equal(processor(same)["image"], want)


def test_what_is_transparent_is_white(tmp_path):
  processor = zoo.load_processor(folder_with(tmp_path, image_processor_type="ViTFeatureExtractor", size=3))
  assert (processor(np.zeros((5, 5, 4), np.uint8))["image"] == 1).all()


def test_the_model_says_what_a_file_leaves_open(tmp_path):
  folder_with(tmp_path, "config.json", model_type="dinov2")
  processor = zoo.load_processor(folder_with(tmp_path))
  assert (processor.edge, processor.crop) == (224, (224, 224))


def test_whisper_hears(tmp_path):
  processor = zoo.load_processor(
    folder_with(tmp_path, feature_extractor_type="WhisperFeatureExtractor", chunk_length=1)
  )
  assert processor(np.zeros(100))["features"].shape == (1, 100, 80)
  with pytest.raises(UserError, match="44100 Hz, the model takes 16000"):
    processor(np.zeros(100), rate=44100)
  with pytest.raises(UserError, match="one channel"):
    processor([np.zeros((100, 2))])
  for stereo in (np.zeros((100, 2)), np.zeros((400, 1)), np.zeros((9, 8)).tolist()):
    with pytest.raises(UserError, match=r"i.e. [128] channel.s.. Give one channel, sound\[:, 0\], or"):
      processor(stereo)
  assert processor(np.zeros((2, 100)))["features"].shape == (2, 100, 80)


MISTAKES = {
  "type": ({"image_processor_type": "LlavaNextImageProcessor"}, "no image_processor_type 'LlavaNextImageProcessor'"),
  "option": ({"pad_size": {"height": 9}}, "1 unknown option.s., .*pad_size={'height': 9}"),
  "padding": ({"do_pad": True}, "do_pad is True, which the zoo does not have"),
  "size": ({"size": {"longest_edge": 3}}, "size is {'longest_edge': 3}, which the zoo does not have"),
  "huge": ({"size": 10**9}, "size is 1000000000, which the zoo does not have"),
  "crop": ({"crop_size": {"shortest_edge": 3}}, "crop_size is {'shortest_edge': 3}"),
  "resample": ({"resample": 9}, "resample is 9, which the zoo does not have. It has: 0"),
  "colours": ({"image_mean": [1, 2]}, r"image_mean is \[1, 2\]"),
  "nothing to divide by": ({"image_std": [1, 0, 1]}, r"image_std is \[1, 0, 1\]"),
  "no number": ({"rescale_factor": float("nan")}, "rescale_factor is nan. It must be a number"),
  "a scale": ({"rescale_factor": 1e300}, "rescale_factor is 1e.300, which the zoo does not have"),
  "too many pixels": ({"crop_size": 20_000}, "crop_size is 20000, which the zoo does not have"),
  "kind": ({"do_resize": "yes"}, "do_resize is 'yes'. It must be a bool"),
  "no crop": (
    {"image_processor_type": "ViTImageProcessor", "do_center_crop": True},
    "do_center_crop is true, and there is no crop",
  ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_is_not_implemented_is_refused_by_name(mistake, tmp_path):
  entries, message = MISTAKES[mistake]
  with pytest.raises(UserError, match=message):
    zoo.load_processor(folder_with(tmp_path, **{"image_processor_type": "CLIPImageProcessor", **entries}))


@pytest.mark.parametrize(
  "entries, message",
  [
    ({"hop_length": 16_001}, r"hop_length is 16001, the sounds have 16000 samples\."),
    ({"n_fft": 400_000}, r"n_fft is 400000, the sounds have 16000 samples\."),
    ({"n_fft": 16_000, "hop_length": 1}, "16000 frames of n_fft 16000 samples .* exceed memory"),
    ({"padding_value": 1e300}, "padding_value is 1e.300, which"),
  ],
)
def test_frames_that_no_sound_has_are_refused(entries, message, tmp_path):
  silent = {"feature_extractor_type": "WhisperFeatureExtractor", "chunk_length": 1, "padding_value": 0}
  folder_with(tmp_path, **{**silent, **entries})
  with pytest.raises(UserError, match=message):
    zoo.load_processor(tmp_path)


def test_an_image_that_would_fill_the_memory_is_refused(tmp_path):
  processor = zoo.load_processor(folder_with(tmp_path, image_processor_type="CLIPImageProcessor"))
  with pytest.raises(
    UserError, match=r"image 0 has 1 x 3000 pixels; .* it would have 224 x 672000, too many for memory\."
  ):
    processor(np.zeros((1, 3000, 3), np.uint8))
  folder_with(tmp_path, image_processor_type="Siglip2ImageProcessor", patch_size=9999)
  with pytest.raises(UserError, match="max_num_patches 256 of patch_size 9999 are too many pixels"):
    zoo.load_processor(tmp_path)


def test_patches_are_of_the_whole_image_whatever_is_said_of_its_middle(tmp_path):
  image, patches = np.arange(23 * 29 * 3, dtype=np.uint8).reshape(23, 29, 3), []
  for cropped in ({}, {"do_center_crop": True, "crop_size": 8}):
    folder = folder_with(tmp_path, image_processor_type="Siglip2ImageProcessor", patch_size=4, **cropped)
    patches.append(zoo.load_processor(folder)([image])["image"]["patches"])
  np.testing.assert_array_equal(*patches)


def test_what_no_processor_of_the_reference_reads_is_passed_over(tmp_path):
  folder = folder_with(tmp_path, image_processor_type="CLIPImageProcessor", do_reduce_labels=True)
  with pytest.warns(UserWarning, match="preprocessor_config.json has do_reduce_labels=True: ignored"):
    zoo.load_processor(folder)


def test_what_is_ignored_counts_as_if_it_were_not_there(tmp_path):
  folder_with(tmp_path, image_processor_type="CLIPImageProcessor", size=19, crop_size=17, do_pad=True)
  with pytest.raises(UserError, match="do_pad is True, .*ignore=.'do_pad',."):
    zoo.load_processor(tmp_path)
  image = np.zeros((23, 29, 3), np.uint8)
  assert zoo.load_processor(tmp_path, ignore=("do_pad",))(image)["image"].shape == (1, 17, 17, 3)
  with pytest.raises(UserError, match="ignore names 'do_pat', which is not in .*Did you mean 'do_pad'"):
    zoo.load_processor(tmp_path, ignore=("do_pat",))


def test_images_that_cannot_be_taken_end_in_one_line(tmp_path):
  with pytest.raises(UserError, match="has no preprocessor_config.json"):
    zoo.load_processor(tmp_path)
  processor = zoo.load_processor(folder_with(tmp_path, image_processor_type="ViTImageProcessor", do_resize=False))
  with pytest.raises(UserError, match="image 0 is float64 .2, 2, 3.. It must be uint8"):
    processor(np.zeros((2, 2, 3)))
  with pytest.raises(UserError, match="image 1: the image cannot be decoded"):
    processor([Image.new("RGB", (2, 2)), b"nothing"])
  unreadable = {"nowhere.png": "image 0: there is no file 'nowhere.png'", tmp_path: "cannot be read .Is a directory"}
  for path, message in {**unreadable, "a\0.png": "cannot be read .*null"}.items():
    with pytest.raises(UserError, match=message):
      processor(path)
  with pytest.raises(UserError, match="processed images have 2 sizes, e.g. 2 x 2 and 3 x 2"):
    processor([Image.new("RGB", (2, 2)), Image.new("RGB", (2, 3))])
  with pytest.raises(UserError, match="no image to process"):
    processor([])


def test_a_processor_of_the_zoos_own_pixels_names_what_is_wrong_and_itself_in_a_line(tmp_path):
  model = zoo.build("vit", image_size=4, patch_size=2, dim=4, depth=1, num_heads=2)
  processor = processor_of(model)
  assert repr(processor) == "FitProcessor(size=4, fit='crop', background='white', model=<vit>)"
  assert processor(np.zeros((5, 7), np.uint16))["image"].shape == (1, 4, 4, 3)
  mistakes = {
    "image 1: there is no file .*b.png": tmp_path / "b.png",
    r"image 1 is float32 \(5, 7, 3\). It must be uint8": np.zeros((5, 7, 3), np.float32),
    r"image 1 is uint16 \(5, 7, 3\). It must be uint8": np.zeros((5, 7, 3), np.uint16),
    r"image 1 is object \(\). It must be uint8": None,
  }
  for message, image in mistakes.items():
    with pytest.raises(UserError, match=message) as told:
      processor([np.zeros((5, 7, 3), np.uint8), image])
    assert "decode" not in str(told.value)
