"""How attention keeps keys and values between calls: all of them, or the last of them; as they are, or in fewer bits.

A cache is a value, and pure: it takes what is kept, a dict of arrays, and returns a new dict. What `Whole` keeps
`zoo.generate.grow` makes longer; it knows the arrays by their names, and leaves those of a `Ring` as long as they are.

Keys and values are kept as [batch, heads, length, head_dim]. So a head's keys lie side by side, as its products with
the query want them; [batch, length, heads, head_dim] would be copied into that order for every token.
"""

import dataclasses

import jax
import jax.numpy as jnp


def packed(name, array, dtype):
  """{name: array [..., head_dim] in dtype}; of "int8" also its largest value per vector: {f"{name}_scales": [...]}"""
  if dtype != "int8":
    return {name: array if dtype is None else array.astype(dtype)}
  scales = jnp.maximum(abs(array.astype(jnp.float32)).max(axis=-1), 1e-30) / 127
  whole = jnp.round(array.astype(jnp.float32) / scales[..., None]).astype(jnp.int8)
  return {name: whole, f"{name}_scales": scales}


def unpacked(name, held, dtype):
  """The array that was `packed`, in `dtype`."""
  array = held[name]
  if f"{name}_scales" in held:
    return (array.astype(jnp.float32) * held[f"{name}_scales"][..., None]).astype(dtype)
  return array.astype(dtype)


@dataclasses.dataclass(frozen=True)
class Whole:
  """Keeps everything, in the order in which it comes.

  Args:
    dtype: what keys and values are kept in: "bfloat16", "int8" (each vector has a scale), or None: as they are.
  """

  dtype: str | None = None

  def add(self, held, key, value, positions, valid):
    """What is kept now, and what to attend to.

    Args:
      held: dict of arrays, of an earlier call; None at first.
      key, value: [batch, length, heads, head_dim]
      positions: int32 [batch, length]
      valid: bool [batch, length], True = real, or None: all are.

    Returns:
      dict of arrays; then keys, values [batch, kept, heads, head_dim], their positions int32 [batch, kept] and which of
      them are real, bool [batch, kept]
    """
    new = packed("keys", key.swapaxes(1, 2), self.dtype) | packed("values", value.swapaxes(1, 2), self.dtype)
    new["positions"] = positions if valid is None else jnp.where(valid, positions, -1)
    index = jnp.zeros((), jnp.int32)
    if held is not None:
      index = held["index"]
      for name, array in new.items():
        start = (0, index) if name == "positions" else (0, 0, index) + (0,) * (array.ndim - 3)
        new[name] = jax.lax.dynamic_update_slice(held[name], array, start)
      # Else XLA makes one piece of this and of what reads it, which it then cannot write in place.
      new = jax.lax.optimization_barrier(new)
    new["index"] = index + key.shape[1]
    keys, values = (unpacked(name, new, key.dtype).swapaxes(1, 2) for name in ("keys", "values"))
    return new, keys, values, new["positions"], new["positions"] >= 0


@dataclasses.dataclass(frozen=True)
class Ring:
  """Keeps `size` keys and values, each at its position modulo size: what is `size` tokens back is written over.

  For layers that see a window of no more than `size` tokens; or for whole texts of no more than `size`, from which one
  may go back: what is written again at a position takes the place of what was there.

  Args:
    size: how many.
    dtype: as of `Whole`.
  """

  size: int
  dtype: str | None = None

  def add(self, held, key, value, positions, valid):
    """As `Whole.add`."""
    batch, length = key.shape[:2]
    real = jnp.ones((batch, length), bool) if valid is None else valid
    new = packed("ring_keys", key, self.dtype) | packed("ring_values", value, self.dtype)
    new["ring_positions"] = jnp.where(real, positions, -1)
    last = new["ring_positions"].max(axis=1, keepdims=True)
    # Only the last `size` real ones are kept; the others go to a place that is not there, and are dropped.
    place = jnp.where(real & (positions > last - self.size), positions % self.size, self.size)
    rows = jnp.arange(batch)[:, None]
    kept = {}
    for name, array in new.items():
      blank = -1 if name == "ring_positions" else 0
      shape = (batch, *array.shape[2:3], self.size, *array.shape[3:])
      old = jnp.full(shape, blank, array.dtype) if held is None else held[name]
      at = old.at[rows, place] if name == "ring_positions" else old.at[rows, :, place]
      kept[name] = at.set(array, mode="drop")
      new[name] = array if name == "ring_positions" else array.swapaxes(1, 2)
    if length == 1 and held is not None:
      seen = kept
    elif held is None:
      seen = new
    else:
      # The first of the new ones may see what the last of them write over; what they replace nobody sees.
      first = jnp.where(real, positions, jnp.iinfo(jnp.int32).max).min(axis=1, keepdims=True)
      before = held | {"ring_positions": jnp.where(held["ring_positions"] < first, held["ring_positions"], -1)}
      axis = lambda name: 1 if name == "ring_positions" else 2
      seen = {name: jnp.concatenate([before[name], array], axis=axis(name)) for name, array in new.items()}
    keys, values = (unpacked(name, seen, key.dtype).swapaxes(1, 2) for name in ("ring_keys", "ring_values"))
    return kept, keys, values, seen["ring_positions"], seen["ring_positions"] >= 0
