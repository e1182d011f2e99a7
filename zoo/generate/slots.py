"""Programs of continuous batching: rows of a batch, each at its own step of its own text.

A row is a *slot*. `join` reads prompts into free slots, `advance` decodes in all slots until enough are free again,
`narrowed` drops columns that no slot needs any more. All slots write their newest key and value into one column of
the cache, which goes around: a prompt is placed so that it ends before that column. So a step is one update of a
slice, as in `generate`, and not one of each row.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from zoo.generate import rules
from zoo.generate.sampling import likeliest, sample
from zoo.generate.steps import FROM_THE_END, decode_step, prefill, right_aligned, stopped
from zoo.layers.stack import unstack_layers

# The axis of length of what an encoder-decoder reads; prompts are right-padded there.
SOURCE = {f"context_{name}": FROM_THE_END[name] for name in ("keys", "values", "keys_scales", "values_scales")}
SOURCE |= {"encoded": 1, "valid": 1}


class Slots(NamedTuple):
  """State of decoding between two tokens; leading axes are slots.

  column: int32, the column of the cache that the newest token of every slot goes to.
  token, position: int32 [slots], the newest token, which the model has not read, and its position.
  count, limit: int32 [slots], how many tokens were generated, and how many may be.
  ended: bool [slots], whether the text has ended before its limit.
  text: int32 [slots, columns]: the prompt's real tokens, which end together, then `room` columns for what is new.
  valid: bool [slots, columns], which are real.
  keys: keys [slots], of draws; token i is drawn with `fold_in(key, i)`, as `generate` does.
  model: of `prefill`.
  """

  column: jax.Array
  token: jax.Array
  position: jax.Array
  count: jax.Array
  limit: jax.Array
  ended: jax.Array
  text: jax.Array
  valid: jax.Array
  keys: jax.Array
  model: Any

  @property
  def done(self):
    """bool [slots], which are free."""
    return self.ended | (self.count >= self.limit)


STATIC = ("model", "room", "top_k", "greedy")


def first(model, params, inputs, limit, keys, settings, *, room, top_k, greedy):
  """The slots of a batch of prompts after their first token; `inputs` as of `prefill`, `limit`, `keys` as of Slots."""
  logits, position, state = prefill(model, params, **inputs, room=0)
  text, valid = right_aligned(inputs, room)
  rows = text.shape[0]
  slots = Slots(
    column=jnp.int32(0),
    token=jnp.zeros(rows, jnp.int32),
    position=position - 1,
    count=jnp.zeros(rows, jnp.int32),
    limit=limit,
    ended=jnp.zeros(rows, bool),
    text=jnp.where(valid, text, settings.pad),
    valid=valid,
    keys=keys,
    model=unstack_layers(state),
  )
  return _chosen(slots, logits, settings, room, top_k, greedy)


def empty(shapes, size, columns, text_columns, source_columns):
  """Free slots, as many as `size`; `shapes`: of `first`, for any number of prompts.

  Args:
    shapes: `jax.eval_shape` of `first`.
    size: number of slots.
    columns: of the caches, for prompt and new tokens.
    text_columns: of the text, for the longest prompt and `room`.
    source_columns: of what an encoder-decoder reads.
  """

  def blank(path, leaf):
    name, shape = _name(path), list(leaf.shape)
    if not shape:
      return jnp.zeros((), leaf.dtype)
    shape[0] = size
    if name in FROM_THE_END:
      shape[FROM_THE_END[name]] = columns
    if _is_source(path):
      shape[SOURCE[name]] = source_columns
    fill = -1 if name in ("positions", "ring_positions") else 0
    return jnp.full(shape, fill, leaf.dtype)

  keys = jax.random.split(jax.random.key(0), size)
  keys = jax.random.wrap_key_data(jnp.zeros_like(jax.random.key_data(keys)))
  slots = jax.tree_util.tree_map_with_path(blank, shapes._replace(keys=None))
  text = jnp.zeros((size, text_columns), jnp.int32)
  return slots._replace(keys=keys, text=text, valid=text.astype(bool))


@functools.partial(jax.jit, static_argnames=STATIC, donate_argnames="slots")
def join(model, params, slots, inputs, rows, limit, keys, settings, *, room, top_k, greedy):
  """Reads prompts and puts them into slots. Compiled once per model, shapes and keywords.

  Args:
    inputs: of `prefill`, for some prompts.
    rows: int32 [prompts], the slot of each; a prompt whose slot does not exist is dropped.
    limit, keys: [prompts], as of `Slots`.
  """
  new = first(model, params, inputs, limit, keys, settings, room=room, top_k=top_k, greedy=greedy)
  widths = [slots.text.shape[1] - new.text.shape[1], 0]
  new = new._replace(text=jnp.pad(new.text, ((0, 0), widths)), valid=jnp.pad(new.valid, ((0, 0), widths)))

  def place(path, old, new):
    name = _name(path)
    if not old.ndim:
      return old
    if name in FROM_THE_END:
      axis = old.ndim + FROM_THE_END[name]
      used = new.shape[axis]
      new = _padded(new, axis, old.shape[axis], -1 if name == "positions" else 0)
      new = jnp.roll(new, slots.column - used, axis)  # The prompt ends before the column.
    elif _is_source(path):
      axis = SOURCE[name] % old.ndim
      new = _padded(new, axis, old.shape[axis], 0)
    return old.at[rows].set(new, mode="drop")

  return jax.tree_util.tree_map_with_path(place, slots, new)


@functools.partial(jax.jit, static_argnames=STATIC, donate_argnames="slots")
def advance(model, params, slots, settings, free, *, room, top_k, greedy):
  """Decodes until `free` slots are free, or all. Compiled once per model, shapes and keywords."""

  def unfinished(slots):
    return (slots.done.sum() < free) & ~slots.done.all()

  def step(slots):
    logits, inner = decode_step(model, params, _at_column(slots.model, slots.column), slots.token, slots.position)
    columns = _columns(inner)
    column = slots.column + 1 if columns is None else (slots.column + 1) % columns
    return _chosen(slots._replace(model=inner, column=column), logits, settings, room, top_k, greedy)

  return jax.lax.while_loop(unfinished, step, slots)


@functools.partial(jax.jit, static_argnames=("columns", "text_columns", "source_columns"))
def narrowed(slots, *, columns, text_columns, source_columns):
  """The slots with their newest columns only: as many columns of each kind as of `empty`."""

  def newest(path, array):
    name = _name(path)
    if _is_source(path):
      return jax.lax.slice_in_dim(array, 0, source_columns, axis=SOURCE[name])
    if name in FROM_THE_END:
      index = (slots.column - columns + jnp.arange(columns)) % array.shape[FROM_THE_END[name]]
      return jnp.take(array, index, axis=FROM_THE_END[name])
    return array

  model = jax.tree_util.tree_map_with_path(newest, slots.model)
  text, valid = slots.text[:, -text_columns:], slots.valid[:, -text_columns:]
  return slots._replace(model=model, column=jnp.int32(0), text=text, valid=valid)


def _chosen(slots, logits, settings, room, top_k, greedy):
  """The slots after choosing the next token of each; as `generate` chooses it, for every row alone."""
  end = slots.text.shape[1] - room + slots.count
  alone = lambda text, valid, end, count, limit: rules.Text(text[None], valid[None], end, count, limit)
  about = (slots.text, slots.valid, end, slots.count, slots.limit)
  if settings.rules:
    apply = lambda row, *about: rules.apply(settings.rules, row[None], alone(*about))[0]
    logits = jax.vmap(apply)(logits, *about)
  if greedy:
    token = likeliest(logits)
  else:
    draw = lambda key, count, row: sample(
      jax.random.fold_in(key, count), row[None], settings.temperature, top_k, settings.top_p, settings.min_p
    )[0]
    token = jax.vmap(draw)(slots.keys, slots.count, logits)
  rows, going = jnp.arange(len(token)), ~slots.done
  place = jnp.where(going, end, slots.text.shape[1])  # Nothing is written to a slot that is free.
  text = slots.text.at[rows, place].set(token, mode="drop")
  valid = slots.valid.at[rows, place].set(True, mode="drop")
  ended = (token[:, None] == settings.ends[None]).any(axis=1)
  if settings.stop is not None:
    ends = lambda text, valid, end: stopped(text[None], valid[None], end, settings.stop)[0]
    ended |= jax.vmap(ends)(text, valid, end)
  return slots._replace(
    token=jnp.where(going, token, 0),
    position=slots.position + going,
    count=slots.count + going,
    ended=slots.ended | (going & ended),
    text=text,
    valid=valid,
  )


def _name(path):
  """The name of an array of the model's state; "" of a field of Slots."""
  return getattr(path[-1], "key", "")


def _is_source(path):
  """Whether an array has the length of an encoder's input."""
  return _name(path) in SOURCE


def _padded(array, axis, size, value):
  widths = [(0, 0)] * array.ndim
  widths[axis] = (0, size - array.shape[axis])
  return jnp.pad(array, widths, constant_values=value)


def _at_column(model, column):
  """The state of the model, whose caches add the next token in `column`."""
  return jax.tree_util.tree_map_with_path(lambda path, x: column if _name(path) == "index" else x, model)


def _columns(model):
  """Columns of the caches that go around; None: there are none."""
  flat = jax.tree_util.tree_flatten_with_path(model)[0]
  return next((x.shape[1] for path, x in flat if _name(path) == "positions"), None)
