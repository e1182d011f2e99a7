import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from tests.data import toys
from zoo.data.images import files, jpeg
from zoo.data.images.pixels import check, decode, natural_size, over
from zoo.errors import UserError


def encoded(pixels, format="PNG", **options):
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, format, **options)
  return file.getvalue()


def thirds(height=5, width=15):
  """Red, green and blue, from left to right."""
  pixels = np.zeros((height, width, 3), np.uint8)
  for channel in range(3):
    pixels[:, channel * width // 3 : (channel + 1) * width // 3, channel] = 255
  return pixels


def test_an_image_of_the_right_size_is_untouched():
  pixels = np.random.default_rng(0).integers(0, 256, (7, 7, 3)).astype(np.uint8)
  assert (decode(encoded(pixels), 7, "crop", "x") == pixels).all()
  assert (decode(pixels, 7, "crop", "x") == pixels).all()


def test_crop_keeps_the_middle():
  assert (decode(encoded(thirds()), 5, "crop", "x") == [0, 255, 0]).all()
  assert decode(encoded(thirds()), 11, "crop", "x").shape == (11, 11, 3)


def test_squash_keeps_everything():
  squashed = decode(encoded(thirds(30, 90)), 30, "squash", "x").astype(int)
  assert squashed.shape == (30, 30, 3)
  assert (squashed[:, [2, 15, 27]].argmax(-1) == [0, 1, 2]).all()


@pytest.mark.parametrize("wide", [True, False])
def test_pad_adds_transparent_margins(wide):
  pixels = thirds() if wide else thirds().swapaxes(0, 1)
  padded = decode(encoded(pixels), 15, "pad", "x")
  margin = padded[..., 3] if wide else padded[..., 3].T
  assert padded.shape == (15, 15, 4)
  assert (margin[:5] == 0).all() and (margin[5:10] == 255).all() and (margin[10:] == 0).all()


def test_random_crops_differ_and_repeat_with_the_same_chance():
  pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
  crops = [decode(pixels, 16, "random_crop", "x", np.random.default_rng(seed)) for seed in (1, 1, 2)]
  assert (crops[0] == crops[1]).all() and (crops[0] != crops[2]).any()
  assert (decode(pixels, 16, "random_crop", "x") == decode(pixels, 16, "crop", "x")).all()


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "CMYK", "RGB", "RGBA"])
def test_every_mode_becomes_colour(mode):
  file = io.BytesIO()
  Image.new("RGB", (6, 6), "white").convert(mode).save(file, "TIFF" if mode == "CMYK" else "PNG")
  assert (decode(file.getvalue(), 6, "crop", "x") == 255).all()
  assert decode(file.getvalue(), 6, "crop", "x").shape == (6, 6, 3)


@pytest.mark.parametrize("shape", [(6, 6), (6, 6, 1), (6, 6, 3)])
def test_arrays_are_images_too(shape):
  assert decode(np.full(shape, 9, np.uint8), 3, "crop", "x").tolist() == [[[9] * 3] * 3] * 3


def test_large_photographs_shrink_alike_in_every_format():
  y, x = np.mgrid[0:240, 0:320]
  pixels = np.stack([y, x * 0.7, 255 - y], axis=-1).astype(np.uint8)
  png, jpeg = (decode(encoded(pixels, format), 24, "crop", "x").astype(int) for format in ("PNG", "JPEG"))
  assert abs(png - jpeg).max() < 6


def photo(width=1203, height=799):
  """A photograph of odd sides as pixels, and as the bytes of a JPEG."""
  pixels = np.asarray(Image.fromarray(load_sample_image("china.jpg")).resize((width, height), Image.Resampling.BICUBIC))
  return pixels, encoded(pixels, "JPEG", quality=93)


def test_a_scaled_photograph_is_close_to_the_exact_one():
  _, content = photo()
  for size, most in ((224, 1), (97, 3), (45, 1)):  # At 1/2, 1/8 and 1/8 of its size.
    exact, scaled = (decode(content, size, "crop", "x", scaled=scaled).astype(int) for scaled in (False, True))
    assert 0 < np.abs(exact - scaled).mean() < most and np.abs((exact - scaled).mean()) < 0.3
    assert np.abs(exact[:, 1:] - scaled[:, :-1]).mean() > 5 * np.abs(exact - scaled).mean() or most == 3  # In place.


def test_only_random_crops_are_scaled_unless_it_is_asked_for():
  pixels, content = photo()
  decoded = np.asarray(Image.open(io.BytesIO(content)))
  rngs = lambda: np.random.default_rng(3)
  for fit in ("crop", "squash", "pad"):
    np.testing.assert_array_equal(decode(content, 97, fit, "x"), decode(decoded, 97, fit, "x"))
  np.testing.assert_array_equal(decode(content, 97, "random_crop", "x"), decode(decoded, 97, "crop", "x"))
  exact = decode(decoded, 97, "random_crop", "x", rngs())
  np.testing.assert_array_equal(decode(content, 97, "random_crop", "x", rngs(), scaled=False), exact)
  scaled = decode(content, 97, "random_crop", "x", rngs())
  assert 0 < np.abs(scaled.astype(int) - exact).mean() < 3


def test_a_scale_never_leaves_fewer_pixels_than_are_wanted():
  for side in (223, 224, 447, 448, 449, 895, 896, 1792, 5000):
    scale = jpeg.enough(side, side + 1, (224, 224))
    assert scale == 1 or side / scale >= 224
    assert scale == 8 or side / (2 * scale) < 224


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("scale", [1, *jpeg.SCALES])
def test_pixels_do_not_depend_on_who_decodes_them(scale, subsampling):
  pytest.importorskip("simplejpeg")
  content = encoded(photo(203, 131)[0], "JPEG", subsampling=subsampling, quality=80)
  alone, pillow = (files.scaled(files.opened(content), source, scale) for source in (content, None))
  assert isinstance(alone, np.ndarray) and not isinstance(pillow, np.ndarray)
  np.testing.assert_array_equal(alone, np.asarray(pillow))


def test_crops_do_not_depend_on_who_decodes_them(monkeypatch):
  pytest.importorskip("simplejpeg")
  _, content = photo(401, 307)
  crops = lambda: [decode(content, 53, "random_crop", "x", np.random.default_rng(seed)) for seed in range(11)]
  alone = crops()
  monkeypatch.setattr(jpeg, "simplejpeg", None)
  np.testing.assert_array_equal(alone, crops())


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_jpegs_are_left_to_pillow(mode):
  file = io.BytesIO()
  Image.new("RGB", (24, 24), (200, 30, 90)).convert(mode).save(file, "JPEG", quality=100)
  assert jpeg.decoded(file.getvalue(), files.opened(file.getvalue()), 1) is None
  assert decode(file.getvalue(), 8, "crop", "x", scaled=True).shape == (8, 8, 3)


def test_transparent_parts_show_the_background():
  pixels = decode(toys.png((255, 0, 0, 0), (4, 4), "RGBA"), 4, "crop", "x")
  assert (over(pixels, np.array([1, 2, 3])) == [1, 2, 3]).all()
  half = np.array([[[255, 0, 100, 128]]], np.uint8)
  assert over(half, np.array([0, 255, 100])).tolist() == [[[128, 127, 100]]]
  opaque = np.array([[[255, 0, 7]]], np.uint8)
  assert over(opaque, np.zeros(3)) is opaque


@pytest.mark.parametrize(
  "content, message",
  [
    (b"", "photo 3: the image cannot be decoded"),
    (b"\x89PNG nonsense", r"photo 3: the image cannot be decoded \(Pillow does not know"),
    (encoded(thirds(50, 50))[:60], "photo 3: the image cannot be decoded"),
    (encoded(thirds(90, 90), "JPEG")[:500], "photo 3: the image cannot be decoded"),
    ("text", "photo 3: the image cannot be decoded"),
    (None, "photo 3: the image cannot be decoded"),
  ],
)
def test_what_is_no_image_is_told(content, message):
  with pytest.raises(UserError, match=message):
    decode(content, 8, "crop", "photo 3")


def test_an_image_that_would_fill_the_memory_is_refused(monkeypatch):
  monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
  with pytest.raises(UserError, match=r"photo 3: the image is refused \(.*121 pixels"):
    decode(toys.png("red", (11, 11)), 8, "crop", "photo 3")
  with pytest.raises(UserError, match=r"photo 3: the image is refused"):
    decode(toys.png("red", (50, 50)), 8, "crop", "photo 3")


def test_natural_size_is_the_shorter_side():
  assert natural_size(toys.png("red", (5, 7)), "x") == 5
  assert natural_size(np.zeros((9, 4, 3), np.uint8), "x") == 4
  with pytest.raises(UserError, match="photo 3: the image cannot be decoded"):
    natural_size(b"?", "photo 3")


def test_an_unknown_fit_is_refused():
  with pytest.raises(
    UserError, match=r"fit is 'croped'. Did you mean 'crop'\? It may be: crop, pad, squash, random_crop"
  ):
    check("croped", 3)
