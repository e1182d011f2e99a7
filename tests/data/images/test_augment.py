import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.data.images import colors
from zoo.data.images.augment import STEPS, augment, to_float
from zoo.errors import UserError

KEY = jax.random.key(0)
OPTIONS = {"mixup": {"num_classes": 3}}
ALWAYS = [name for name in STEPS if name not in ("flip", "grayscale", "invert", "mixup")]


def pictures(batch=6, height=11, width=13, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (batch, height, width, 3)).astype(np.uint8)


@functools.cache
def compiled(steps):
  return jax.jit(augment(json.loads(steps)))


def applied(steps, image, rng=KEY):
  batch = {"image": image, "label": np.arange(len(image), dtype=np.int32) % 3}
  return np.asarray(compiled(json.dumps(steps))(rng, batch)["image"])


def varied(name, image, **options):
  """The first image augmented six times, as a batch of its copies."""
  same = np.repeat(image[:1], 6, axis=0)
  return applied([{"name": name, **options}], same)


@pytest.mark.parametrize("name", STEPS)
def test_a_step_keeps_shape_and_range_and_repeats_itself(name):
  image = pictures()
  step = {"name": name, **OPTIONS.get(name, {})}
  changed = applied([step], image)
  assert changed.shape == image.shape and changed.dtype == np.float32
  assert changed.min() >= -1 - 1e-5 and changed.max() <= 1 + 1e-5
  np.testing.assert_array_equal(changed, applied([step], image))


@pytest.mark.parametrize("name", ALWAYS)
def test_each_image_is_changed_its_own_way(name):
  changed = varied(name, pictures())
  assert len(np.unique(changed.reshape(6, -1), axis=0)) == 6
  other = applied([{"name": name}], np.repeat(pictures()[:1], 6, axis=0), jax.random.key(1))
  assert (changed != other).any()


@pytest.mark.parametrize("name", [name for name in STEPS if name not in ("mixup",)])
def test_a_step_that_never_happens_changes_nothing(name):
  image = to_float(pictures())
  np.testing.assert_array_equal(applied([{"name": name, "p": 0}], image), image)


def test_a_step_happens_to_as_many_images_as_its_chance_says():
  image = to_float(pictures(400, 2, 3))
  changed = (applied([{"name": "invert", "p": 0.25}], image) != image).any((1, 2, 3))
  assert abs(changed.mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 400)


def test_no_steps_make_floats_of_bytes_and_leave_the_rest():
  batch = {"image": np.array([[[[0, 51, 255]]]], np.uint8), "tokens": np.ones((1, 3))}
  result = augment()(KEY, batch)
  np.testing.assert_allclose(result["image"], [[[[-1, -0.6, 1]]]], atol=1e-6)
  assert result["tokens"] is batch["tokens"]
  assert augment([])(KEY, {"tokens": batch["tokens"]}) == {"tokens": batch["tokens"]}
  assert to_float(result["image"]) is result["image"]


def test_two_equal_steps_draw_anew():
  image = to_float(pictures(400, 3, 5))
  once, twice = (applied([{"name": "flip"}] * times, image) for times in (1, 2))
  assert (once != image).any((1, 2, 3)).mean() < 0.65
  assert 0.35 < (twice != image).any((1, 2, 3)).mean() < 0.65


def test_shift_moves_whole_pixels():
  image = to_float(pictures(40))
  moves = set()
  for original, moved in zip(image, applied([{"name": "shift", "pixels": 2, "fill": "white"}], image)):
    padded = np.pad(original, ((2, 2), (2, 2), (0, 0)), constant_values=1)
    result = [(y, x) for y in range(5) for x in range(5) if (padded[y : y + 11, x : x + 13] == moved).all()]
    assert len(result) == 1
    moves.update(result)
  assert len(moves) > 12


def test_what_comes_into_view_repeats_the_edge_or_has_the_asked_colour():
  image = np.full((6, 7, 7, 3), 0.3, np.float32)
  np.testing.assert_array_equal(applied([{"name": "shift"}], image), image)
  np.testing.assert_allclose(applied([{"name": "rotate", "degrees": 90}], image), image, atol=1e-6)
  for fill, value in ("white", 1), ("black", -1), ("grey", 0):
    assert (applied([{"name": "shift", "fill": fill}], image) == value).any()
    assert np.isclose(applied([{"name": "rotate", "degrees": 90, "fill": fill}], image), value).any()


def test_flip_swaps_left_and_right():
  image = to_float(pictures())
  np.testing.assert_array_equal(applied([{"name": "flip", "p": 1}], image), image[:, :, ::-1])


def test_rotation_by_nothing_and_crop_of_everything_change_nothing():
  image = to_float(pictures())
  np.testing.assert_allclose(applied([{"name": "rotate", "degrees": 0}], image), image, atol=1e-5)
  whole = [{"name": "random_resized_crop", "scale": (1, 1), "ratio": (1, 1)}]
  np.testing.assert_allclose(applied(whole, image), image, atol=1e-5)


def test_rotation_turns_about_the_middle():
  image = np.zeros((1, 9, 9, 3), np.float32)
  image[0, 4, 7] = 1
  turned = applied([{"name": "rotate", "degrees": 90}], np.repeat(image, 8, axis=0))
  y, x = np.mgrid[0:9, 0:9] - 4
  for picture in turned[..., 0]:
    assert abs(np.hypot((picture * y).sum(), (picture * x).sum()) / picture.sum() - 3) < 0.2
  assert turned[:, 4, 4].max() == 0


def test_a_crop_is_a_part_stretched_to_the_whole():
  ramp = np.broadcast_to(np.linspace(-1, 1, 16, dtype=np.float32)[None, None, :, None], (6, 8, 16, 3))
  crops = applied([{"name": "random_resized_crop", "scale": (0.25, 0.25), "ratio": (1, 1)}], ramp)
  rise = crops[:, 0, -3, 0] - crops[:, 0, 2, 0]
  np.testing.assert_allclose(rise, (11 * 2 / 15) * 0.5, atol=1e-4)  # Half as steep: a quarter of the area.


def test_cutout_covers_a_square():
  covered = (applied([{"name": "cutout", "pixels": 4}], np.full((20, 12, 12, 3), 255, np.uint8)) == 0).all(-1)
  assert covered.any((1, 2)).all() and covered.sum((1, 2)).max() == 16
  assert len(np.unique(covered.reshape(20, -1), axis=0)) > 10


def test_colours_keep_greys_grey_unless_brightness_or_contrast_change():
  grey = np.repeat(pictures()[..., :1], 3, axis=-1)
  steady = {"brightness": 0, "contrast": 0, "saturation": 0.5, "hue": 0.5, "mix": 0.2}
  np.testing.assert_allclose(applied([{"name": "color", **steady}], grey), to_float(grey), atol=2e-3)


@pytest.mark.parametrize("option", ["brightness", "contrast", "saturation", "hue", "mix"])
def test_each_kind_of_change_of_colour_acts_alone(option):
  nothing = dict.fromkeys(["brightness", "contrast", "saturation", "hue", "mix"], 0)
  image = pictures() // 2 + 64
  np.testing.assert_allclose(applied([{"name": "color", **nothing}], image), to_float(image), atol=2e-3)
  changed = applied([{"name": "color", **nothing, option: 0.1}], image)
  assert abs(changed - to_float(image)).max() > 0.01
  luminance = lambda x: np.asarray(colors.luminance(x))
  if option in ("saturation", "hue"):
    np.testing.assert_allclose(luminance(changed), luminance(to_float(image)), atol=2e-3)
  if option == "contrast":
    np.testing.assert_allclose(luminance(changed).mean((1, 2)), luminance(to_float(image)).mean((1, 2)), atol=2e-3)


def test_grayscale_keeps_luminance():
  image = to_float(pictures())
  grey = applied([{"name": "grayscale", "p": 1}], image)
  assert (grey == grey[..., :1]).all()
  np.testing.assert_allclose(grey[..., 0], colors.luminance(image), atol=1e-6)


def test_outlines_darken_edges_and_nothing_else():
  image = np.full((4, 9, 12, 3), 200, np.uint8)
  image[:, :, 6:] = 40
  change = applied([{"name": "outline_darken"}], image) - to_float(image)
  assert (change[:, :, [5, 6]] < 0).all()
  np.testing.assert_allclose(np.delete(change, [5, 6], axis=2), 0, atol=1e-6)
  wide = applied([{"name": "outline_darken", "width": 2}], image) - to_float(image)
  assert (wide[:, :, 4:8] < 0).all()


def test_blur_keeps_the_mean_of_what_lies_inside():
  image = np.full((4, 9, 9, 3), 0, np.float32)
  image[:, 4, 4] = 1
  blurred = applied([{"name": "blur"}], image)
  np.testing.assert_allclose(blurred.sum((1, 2)), 1, atol=1e-5)
  assert (blurred[:, 4, 4] < 1).all() and (blurred[:, 3:6, 3:6] > 0).all()


def test_noise_is_as_strong_as_asked():
  noise = applied([{"name": "noise", "amount": 0.2}], np.full((300, 8, 8, 3), 127, np.uint8))
  strength = noise.std((1, 2, 3))
  assert 0.15 < strength.max() < 0.25 and strength.min() < 0.02
  assert abs(noise.mean()) < 0.02


def test_mixup_mixes_images_and_labels_alike():
  image = np.repeat(np.arange(3, dtype=np.float32), 4).reshape(12, 1, 1, 1) * np.ones((1, 2, 2, 3), np.float32) / 2
  batch = {"image": jnp.asarray(image), "label": jnp.repeat(jnp.arange(3), 4)}
  mixed = jax.jit(augment([{"name": "mixup", "num_classes": 3, "alpha": 1.0}]))(KEY, batch)
  np.testing.assert_allclose(mixed["label"].sum(-1), 1, atol=1e-6)
  np.testing.assert_allclose(mixed["image"][:, 0, 0, 0], mixed["label"] @ np.arange(3) / 2, atol=1e-6)
  assert ((mixed["label"] > 0.01) & (mixed["label"] < 0.99)).any()


@pytest.mark.parametrize(
  "steps, message",
  [
    ([{"name": "shfit"}], r"data\.augment has no step 'shfit'. Did you mean 'shift'\? It has: shift, flip"),
    ([{"pixels": 4}], r"data\.augment has no step 'None'"),
    ([{"name": "shift", "pixel": 4}], r"shift takes no 'pixel'. Did you mean 'pixels'\?"),
    ([{"name": "shift", "pixels": "four"}], "shift.pixels is 'four'"),
    ([{"name": "shift", "image": 4}], "shift takes no 'image'"),
    ([{"name": "flip", "p": 2}], "flip.p is 2. It must be a number from 0 to 1"),
    ([{"name": "flip", "p": "often"}], "flip.p is 'often'"),
    ([{"name": "mixup"}], "mixup needs 'num_classes'"),
    ([{"name": "mixup", "num_classes": 3, "alpha": 0}], "mixup.alpha is 0. It must be above 0"),
    ([{"name": "shift", "pixels": -1}], "shift.pixels is -1. It must be 0 or more"),
    ([{"name": "rotate", "degrees": float("nan")}], "rotate.degrees is nan. Write a number"),
    *(
      (
        [{"name": "random_resized_crop", **option}],
        rf"random_resized_crop.{next(iter(option))} is .* two ascending numbers",
      )
      for option in (
        {"scale": [1000]},
        {"scale": [0.1, 0.5, 1]},
        {"scale": [0.5, 1.5]},
        {"scale": [0.9, 0.1]},
        {"ratio": [0, 1]},
        {"ratio": [None, 1]},
        {"ratio": [1, float("inf")]},
        {"ratio": [True, 2]},
      )
    ),
    (["flip"], "step 'flip' of data.augment must be a mapping like"),
    ("flip", "step 'f' of data.augment must be a mapping like"),
  ],
)
def test_wrong_steps_are_told_before_training(steps, message):
  with pytest.raises(UserError, match=message):
    augment(steps)


def test_wrong_colours_and_batches_are_told():
  with pytest.raises(UserError, match="fill is 'pink'. It may be: edge, white, black, grey"):
    applied([{"name": "shift", "fill": "pink"}], pictures())
  with pytest.raises(UserError, match="cutout.fill is 'edge'. It may be: white, black, grey"):
    applied([{"name": "cutout", "fill": "edge"}], pictures())
  with pytest.raises(UserError, match="augment changes images, but the batch has only tokens"):
    augment([{"name": "flip"}])(KEY, {"tokens": jnp.zeros(3)})
