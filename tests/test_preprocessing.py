"""How a model's pixels are made, said by hand."""

import jax.numpy as jnp
import pytest

import zoo
from zoo.errors import UserError
from zoo.preprocessing import as_float

VIT = dict(image_size=8, patch_size=4, dim=6, depth=1, num_heads=2)
MISTAKES = {
  "key": ({"images": {}}, "model.preprocessing has no 'images'. Did you mean 'image'?"),
  "entry": ({"image": {"means": 1}}, "model.preprocessing.image has no 'means'. Did you mean 'mean'?"),
  "zero": ({"image": {"std": [1, 0, 1]}}, r"image.std is \[1, 0, 1\]. It must be"),
  "kind": ({"image": {"mean": "white"}}, "image.mean is 'white'. It must be a number"),
  "nan": ({"image": {"scale": float("nan")}}, "image.scale is nan. It must be a number"),
  "half": ({"image": {"resize": 8}}, "needs crop .which may be none. and resample too"),
  "tokenizer": ({"tokenizer": 3}, "tokenizer is 3. It must be a name or a path"),
  "section": ({"image": 3}, "image is 3. It must be a section"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_by_hand_end_in_one_line(mistake):
  entries, message = MISTAKES[mistake]
  with pytest.raises(UserError, match=message):
    zoo.build("vit", **VIT, preprocessing=entries)


def test_the_number_of_colours_must_be_the_images():
  model = zoo.build("vit", **VIT, preprocessing={"image": {"mean": [1, 2], "std": 1}})
  with pytest.raises(UserError, match="image.mean has 2 numbers, images have 3 channels"):
    as_float(jnp.zeros((1, 8, 8, 3), jnp.uint8), model)


def test_preprocessing_is_no_part_of_what_a_model_is():
  plain = zoo.build("vit", **VIT)
  other = zoo.build("vit", **VIT, preprocessing={"image": {"mean": 0.5, "std": 0.25}})
  assert plain == other and hash(plain) == hash(other) and plain.spec == other.spec
  assert other.preprocessing == {"image": {"mean": 0.5, "std": 0.25}} and plain.preprocessing == {}
  assert other.clone().preprocessing == other.preprocessing
