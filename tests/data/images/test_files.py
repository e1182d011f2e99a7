import io
import struct

import numpy as np
import pytest
from PIL import Image

import zoo
from tests.data import toys
from zoo.data.image_text import image_text
from zoo.data.images.pixels import decode, natural_size
from zoo.data.labelled_images import labelled_images
from zoo.errors import UserError


def encoded(picture, format="PNG", **options):
  file = io.BytesIO()
  picture.save(file, format, **options)
  return file.getvalue()


def sideways(orientation, format="PNG", size=(60, 120)):
  """A photo that is red above and blue below when it is looked at, and how it is stored, of (height, width) `size`."""
  upright = np.zeros((size[0], size[1], 3), np.uint8)
  upright[: size[0] // 2, :, 0] = upright[size[0] // 2 :, :, 2] = 250
  upright[: size[0] // 2, : size[1] // 2, 1] = 120  # Orange above on the left: no two orientations look alike.
  # Pillow turns against the clock. What EXIF asks a viewer to do is undone by the camera.
  undone = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90",
            7: "TRANSVERSE", 8: "ROTATE_270"}  # fmt: skip
  stored = Image.fromarray(upright)
  if orientation > 1:
    stored = stored.transpose(Image.Transpose[undone[orientation]])
  tag = Image.Exif()
  tag[0x0112] = orientation
  return upright, encoded(stored, format, exif=tag)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_stands_as_its_camera_was_held(orientation, format):
  upright, photo = sideways(orientation, format)
  wanted = decode(upright, 30, "squash", "x").astype(int)
  pixels = decode(photo, 30, "squash", "x").astype(int)
  assert np.abs(pixels - wanted).mean() < 8  # Orange and red differ by 40 where a quarter is elsewhere.
  assert natural_size(photo, "x") == 60


def test_every_door_turns_a_photo(tmp_path):
  upright, photo = sideways(6, size=(32, 32))
  toys.write(tmp_path, {"pairs/a.png": photo, "pairs/a.txt": "one", "classes/x/a.png": photo})
  toys.write_tar(tmp_path / "a.tar", {"a.png": photo, "a.txt": "one"})
  toys.write(
    tmp_path, {"preprocessor_config.json": '{"image_processor_type": "ViTImageProcessor", "do_resize": false}'}
  )
  processor = zoo.load_processor(tmp_path)
  options = {"tokenizer": "bytes", "max_length": 8}
  examples = (
    image_text(f"images:{tmp_path}/pairs", **options)[0],
    image_text(f"webdataset:{tmp_path}/a.tar", **options)[0],
    labelled_images(f"images:{tmp_path}/classes")[0],
  )
  assert all((example["image"] == upright).all() for example in examples)
  for image in (photo, tmp_path / "pairs/a.png"):
    np.testing.assert_allclose(processor(image)["image"][0], upright / 127.5 - 1, atol=1e-6)
  # As in the reference, a PIL image is what it is.
  assert not np.allclose(processor(Image.open(io.BytesIO(photo)))["image"][0], upright / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_16_bits_are_scaled(format):
  values = np.array([[0, 128, 300, 12345], [257, 40000, 65534, 65535]], np.uint16)
  wanted = np.round(values / 257)
  for image in (encoded(Image.fromarray(values), format), values):
    assert (decode(image, 2, "crop", "x") == decode(wanted.astype(np.uint8), 2, "crop", "x")).all()
    pixels = decode(image, 4, "pad", "x")[1:3, :, 0]
    np.testing.assert_array_equal(pixels, wanted)


def tiff(bits, photometric, content, width):
  """A grey TIFF of one row."""
  tags = {256: width, 257: 1, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: 1, 279: len(content)}
  entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
  head = b"II*\0" + struct.pack("<I", 8 + len(content)) + content
  return head + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)


def test_a_tiff_may_have_12_bits_or_white_as_zero():
  values = np.array([0, 257, 65535, 40000], "<u2")
  for photometric, wanted in ((1, [0, 1, 255, 156]), (0, [255, 254, 0, 99])):
    pixels = decode(tiff(16, photometric, values.tobytes(), 4), 4, "pad", "x")
    assert pixels[..., 0].max(axis=0).tolist() == wanted
  assert decode(tiff(12, 1, bytes([0xFF, 0xF0, 0x00]), 2), 2, "pad", "x")[..., 0].max(axis=0).tolist() == [255, 0]


@pytest.mark.parametrize("values", [np.linspace(0, 1, 16, dtype=np.float32), np.arange(16, dtype=np.int32) * 2**20])
def test_values_without_a_known_white_are_refused(values):
  picture = Image.fromarray(values.reshape(4, 4))
  for image in (encoded(picture, "TIFF"), values.reshape(4, 4)):
    with pytest.raises(UserError, match="photo 3: the image cannot be decoded .*of unknown range: save it with 8"):
      decode(image, 4, "crop", "photo 3")


def test_transparency_by_palette_and_by_one_colour():
  palette = Image.new("P", (4, 4))
  palette.putpalette([255, 0, 0, 0, 0, 255])
  palette.putpixel((1, 1), 1)
  for picture, options in (
    (palette, {"transparency": 0}),
    (Image.new("L", (4, 4), 7), {"transparency": 7}),
    (Image.new("RGB", (4, 4), (1, 2, 3)), {"transparency": (1, 2, 3)}),
    (Image.fromarray(np.full((4, 4), 700, np.uint16)), {"transparency": 700}),
  ):
    assert decode(encoded(picture, **options), 4, "crop", "x")[0, 0, 3] == 0
  assert decode(encoded(palette, transparency=0), 4, "crop", "x")[1, 1].tolist() == [0, 0, 255, 255]


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame_counts(format):
  first, second = (Image.new("RGB", (8, 8), colour) for colour in ((250, 0, 0), (0, 0, 250)))
  pixels = decode(encoded(first, format, save_all=True, append_images=[second]), 8, "crop", "x").astype(int)
  assert (np.abs(pixels - [250, 0, 0]) < 12).all()


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_a_damaged_file_is_refused_where_pillow_refuses_it(format):
  noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (23, 23, 3), dtype=np.uint8))
  content = encoded(noise, format)
  for rest in (b"", bytes(64) + content[len(content) // 2 + 64 :]):
    damaged = content[: len(content) // 2] + rest
    try:
      wanted = np.asarray(Image.open(io.BytesIO(damaged)).convert("RGB"))
    except (OSError, SyntaxError):
      with pytest.raises(UserError, match="photo 3: the image cannot be decoded"):
        decode(damaged, 23, "crop", "photo 3")
    else:
      assert rest and format != "PNG"  # Without a checksum other pixels are as good.
      assert (decode(damaged, 23, "crop", "photo 3") == wanted).all()


def test_a_file_that_a_program_would_draw_is_not_opened():
  with pytest.raises(UserError, match="Pillow does not know its format"):
    decode(encoded(Image.new("RGB", (4, 4)), "EPS"), 4, "crop", "x")


def test_exif_that_is_damaged_turns_nothing():
  photo = encoded(
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)), exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"
  )
  assert (decode(photo, 4, "crop", "x").ravel() == np.arange(48)).all()
