"""Augmentation on the device: `augment([{"name": "shift", "pixels": 4}, ...])` returns `(rng, batch) -> batch`.

Steps are pure functions `(rng, image) -> image` over a batch, with independent draws per image. Those that move
pixels are in zoo/data/images/geometry.py, those that change values in zoo/data/images/colors.py.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from zoo.config.registry import check_options
from zoo.data.images import colors, geometry
from zoo.errors import UserError, did_you_mean, shown
from zoo.preprocessing import from_unit

Batch = dict[str, jax.Array]


def mixup(rng: jax.Array, batch: Batch, *, num_classes: int, alpha: float = 0.2) -> Batch:
  """Mixes each image and its label with another's, lambda ~ Beta(alpha, alpha) (https://arxiv.org/abs/1710.09412).

  `label` int [batch] becomes float [batch, num_classes]. Must be the last step.
  """
  rng, order_rng = jax.random.split(rng)
  order = jax.random.permutation(order_rng, len(batch["image"]))
  share = jax.random.beta(rng, alpha, alpha, (len(order), 1))
  label = jax.nn.one_hot(batch["label"], num_classes)
  image = share[..., None, None] * batch["image"] + (1 - share[..., None, None]) * batch["image"][order]
  return {**batch, "image": image, "label": share * label + (1 - share) * label[order]}


STEPS: dict[str, Callable] = {
  step.__name__: step
  for step in (
    geometry.shift,
    geometry.flip,
    geometry.random_resized_crop,
    geometry.rotate,
    geometry.cutout,
    colors.color,
    colors.grayscale,
    colors.invert,
    colors.outline_darken,
    colors.blur,
    colors.noise,
    mixup,
  )
}
CHANCE = {"flip": 0.5, "grayscale": 0.1, "invert": 0.1}  # default probability of a step per image; 1 if not listed


def augment(
  steps: Sequence[Mapping[str, Any]] = (), normalization: Mapping[str, Any] | None = None
) -> Callable[[jax.Array, Batch], Batch]:
  """Composes augmentation steps into a pure, jittable `f(rng, batch) -> batch` that changes `batch["image"]`.

  Args:
    steps: each `{"name": ..., **options}`; options are the keywords of the function of that name, and `p`: the
      probability of the step for an image (by default 0.5 for flip, 0.1 for grayscale and invert, else 1).
    normalization: the model's, "image" of `zoo.preprocessing`; None: the zoo's own.

  Images may be uint8 (0 to 255); steps change float32 in [-1, 1], which is also the result. With a normalization
  it is applied to the result; without any step images are unchanged: the objective normalises uint8. The same rng gives
  the same result.
  """
  chosen = [_step(options) for options in steps]

  def augmented(rng: jax.Array, batch: Batch) -> Batch:
    if "image" not in batch:
      if chosen:
        raise UserError(f"data.augment changes images, but the batch has only {', '.join(batch)}. Remove data.augment.")
      return batch
    if not chosen and normalization is not None:
      return batch
    if isinstance(batch["image"], Mapping):
      raise UserError("data.augment changes images of one shape, but this model takes patches. Remove data.augment.")
    batch = {**batch, "image": to_float(batch["image"])}
    for number, step in enumerate(chosen):
      # Fused with later steps, XLA on CPUs would recompute a step's pixels for each of their neighbours.
      batch = jax.lax.optimization_barrier(step(jax.random.fold_in(rng, number), batch))
    return batch if normalization is None else {**batch, "image": from_unit(batch["image"], normalization)}

  return augmented


def to_float(image: jax.Array) -> jax.Array:
  """Converts uint8 in 0 to 255 to float32 in -1 to 1; floats are returned unchanged."""
  return image.astype(jnp.float32) / 127.5 - 1 if image.dtype == jnp.uint8 else image


RANGES = {"scale": 1.0, "ratio": math.inf}  # Options that are drawn from a range, and their maxima.


def _check(what: str, option: str, value: Any) -> None:
  """UserError for an option out of range."""
  is_number = lambda x: isinstance(x, int | float) and not isinstance(x, bool)
  if option in RANGES:
    limits = RANGES[option]
    pair = list(value) if isinstance(value, list | tuple) else [value]
    if len(pair) != 2 or not all(map(is_number, pair)) or not 0 < pair[0] <= pair[1] <= limits or pair[1] == math.inf:
      bound = f", and {limits:g} at most" if limits < math.inf else ""
      raise UserError(f"{what} is {shown(value)}. It must be two ascending numbers above 0{bound}.")
  elif is_number(value) and not 0 <= value < 2**31:  # Nor NaN. Pixels, shares, degrees, classes: none is below 0.
    raise UserError(f"{what} is {shown(value)}. It must be 0 or more, and below {2**31}.")
  elif option == "alpha" and value == 0:
    raise UserError(f"{what} is 0. It must be above 0.")


def _step(options: Mapping[str, Any]) -> Callable[[jax.Array, Batch], Batch]:
  if not isinstance(options, Mapping):
    raise UserError(f"The step {options!r} of data.augment must be a mapping like {{'name': 'shift', 'pixels': 4}}.")
  options = dict(options)
  name = options.pop("name", None)
  if not isinstance(name, str) or name not in STEPS:
    near = did_you_mean(str(name), STEPS)
    raise UserError(f"data.augment has no step {shown(str(name))}.{near} It has: {', '.join(STEPS)}.")
  function = STEPS[name]
  chance = 1.0 if function is mixup else options.pop("p", CHANCE.get(name, 1.0))  # Not for mixup.
  if not isinstance(chance, int | float) or not 0 <= chance <= 1:
    raise UserError(f"augment: {name}.p is {chance!r}. It must be a number from 0 to 1.")
  check_options(function, options, name, supplied=["rng", "batch" if function is mixup else "image"])
  for option, value in options.items():
    _check(f"augment: {name}.{option}", option, value)
  if function is mixup:
    return lambda rng, batch: mixup(rng, batch, **options)

  def step(rng: jax.Array, batch: Batch) -> Batch:
    rng, chance_rng = jax.random.split(rng)
    image = batch["image"]
    changed = function(rng, image, **options)
    if chance < 1:
      changed = jnp.where(jax.random.bernoulli(chance_rng, float(chance), (len(image), 1, 1, 1)), changed, image)
    return {**batch, "image": changed}

  return step
