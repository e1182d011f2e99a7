"""Argument checks of factories: one-line errors with the values and the way out."""

import jax
import jax.numpy as jnp


def positive(**sizes):
  """ValueError for sizes below 1; None passes."""
  for name, value in sizes.items():
    if value is not None and value < 1:
      raise ValueError(f"{name} is {value}. It must be at least 1.")


def rate(**rates):
  """ValueError for rates outside [0, 1)."""
  for name, value in rates.items():
    if not 0 <= value < 1:
      raise ValueError(f"{name} is {value}. It must be a probability: at least 0, below 1.")


def head_dim(dim, num_heads, which="", heads=None):
  """dim / num_heads; ValueError if it is not an int.

  `which` prefixes the names in the message, e.g. "text_"; `heads` is the name of num_heads in it, if it differs.
  """
  heads = heads or (f"{which}heads" if which else "num_heads")
  positive(**{f"{which}dim": dim, heads: num_heads})
  if dim % num_heads:
    raise ValueError(
      f"{which}dim {dim} does not divide into {heads} {num_heads}. Make {which}dim a multiple of {heads}, "
      f"e.g. {max(round(dim / num_heads), 1) * num_heads}."
    )
  return dim // num_heads


def head_fits(head, heads, num_classes):
  """ValueError unless `head` is one of `heads`, and num_classes is given exactly for classifying heads."""
  if head not in heads:
    raise ValueError(f"head is {head!r}. It may be: {', '.join(map(str, heads))}.")
  positive(num_classes=num_classes)
  if str(head).startswith("classify") != (num_classes is not None):
    raise ValueError(
      f"head is {head!r} and num_classes {num_classes}. Give num_classes with a classifying head, and only with one."
    )


def even(**sizes):
  """Refuses any given size that is odd: sinusoids come in pairs of sine and cosine."""
  for name, value in sizes.items():
    if value % 2:
      raise ValueError(f"{name} is {value}. It must be even, for pairs of sine and cosine.")


def patch_grid(image_size, patch_size):
  """Patches along one side of a square image; ValueError if patch_size does not divide image_size."""
  positive(image_size=image_size, patch_size=patch_size)
  if image_size % patch_size:
    raise ValueError(
      f"image_size {image_size} does not divide into patches of patch_size {patch_size}. "
      f"Make it a multiple, e.g. {max(round(image_size / patch_size), 1) * patch_size}."
    )
  return image_size // patch_size


def compute_dtype(dtype):
  """The computation dtype: a floating dtype, by name or object, or None (float32, as the parameters)."""
  if dtype is None:
    return None
  try:
    dtype = jnp.dtype(dtype)
  except TypeError:
    raise ValueError(f"dtype is {dtype!r}. It may be: bfloat16, float16, float32, or None for float32.") from None
  # Not an 8-bit float: JAX has no arithmetic of it with others.
  if not jnp.issubdtype(dtype, jnp.floating) or dtype.itemsize < 2:
    raise ValueError(f"dtype is {dtype}. It must be floating: bfloat16, float16, float32.")
  return dtype


# What is saved of a layer for the backward pass; everything else is recomputed.
_POLICIES = (
  "everything_saveable",
  "nothing_saveable",
  "dots_saveable",
  "checkpoint_dots",
  "dots_with_no_batch_dims_saveable",
  "checkpoint_dots_with_no_batch_dims",
)
_SHORT = {"full": "nothing_saveable", "dots": "dots_with_no_batch_dims_saveable"}


def remat_policy(name):
  """Remat policy by name: "full" (save nothing), "dots" (matrix products), or one of `jax.checkpoint_policies`."""
  policy = _SHORT.get(name, name)
  if policy not in _POLICIES:
    raise ValueError(f"remat is {name!r}. It may be None, {', '.join(_SHORT)}, {', '.join(_POLICIES)}.")
  return getattr(jax.checkpoint_policies, policy)


def tokens_fit(tokens, **alike):
  """ValueError for tokens that are not int [batch, length], or facts about them of another shape; None passes."""
  if tokens.ndim != 2 or not jnp.issubdtype(tokens.dtype, jnp.integer):
    raise ValueError(f"tokens are {tokens.dtype} {list(tokens.shape)}, the model needs ints [batch, length].")
  for name, array in alike.items():
    if array is not None and array.shape not in (tokens.shape, (1, tokens.shape[1])):
      raise ValueError(f"{name} is of shape {list(array.shape)}, the tokens are {list(tokens.shape)}. Make them equal.")


def start_fits(start_token, vocab_size):
  """ValueError for a start token outside the vocabulary, which JAX would clip to its last entry."""
  if not 0 <= start_token < vocab_size:
    raise ValueError(f"start_token is {start_token}, and the model's tokens are 0 to {vocab_size - 1}. Set it.")


def image_fits(image, image_size, channels):
  """ValueError for images of another shape than the model's, or of an integer dtype."""
  if image.ndim != 4 or image.shape[1:] != (image_size, image_size, channels):
    raise ValueError(
      f"Images have shape {list(image.shape)}, the model needs [batch, {image_size}, {image_size}, {channels}]. "
      "Resize them or build the model with their image_size and channels."
    )
  if not jnp.issubdtype(image.dtype, jnp.floating):
    raise ValueError(
      f"Images are {image.dtype}, the model needs floats: image / 127.5 - 1, or for published models the output of "
      "zoo.load_processor."
    )
