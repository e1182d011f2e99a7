"""Recurrence: cells, pure functions of a state and two products, and their scan over time with its gradient.

The inputs of all steps are multiplied at once, before the scan. Left for it is the product with the state of the step
before, and in the backward pass that with the kernel transposed; the kernel's gradient is one product, after it.
"""

import dataclasses
import functools
from typing import ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from zoo.layers.kernel_products import dot
from zoo.layers.mixed_precision import add

State = dict[str, jax.Array]
ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu}  # of Elman's cell


@dataclasses.dataclass(frozen=True)
class Elman:
  """h' = f(W x + U h). https://doi.org/10.1207/s15516709cog1402_1

  Args:
    activation: f: "tanh", or "relu" as in https://arxiv.org/abs/1504.00941.
  """

  activation: str = "tanh"
  gates: ClassVar[int] = 1
  names: ClassVar[tuple[str, ...]] = ("hidden",)
  forget: ClassVar[int | None] = None

  def __call__(self, state: State, of_input: jax.Array, of_hidden: jax.Array) -> State:
    """The next state.

    Args:
      state: float32 [batch, hidden_dim] by name.
      of_input, of_hidden: float32 [batch, gates, hidden_dim]: W x and U h with their biases.
    """
    return {"hidden": ACTIVATIONS[self.activation]((of_input + of_hidden)[:, 0])}


@dataclasses.dataclass(frozen=True)
class LSTM:
  """c' = f c + i g, h' = o tanh(c'), with the gates i, f, g, o in this order. https://doi.org/10.1162/neco.1997.9.8.1735

  The forget gate f is that of https://doi.org/10.1162/089976600300015015. Called as `Elman` is.
  """

  gates: ClassVar[int] = 4
  names: ClassVar[tuple[str, ...]] = ("hidden", "cell")
  forget: ClassVar[int | None] = 1

  def __call__(self, state: State, of_input: jax.Array, of_hidden: jax.Array) -> State:
    let_in, keep, new, let_out = jnp.moveaxis(of_input + of_hidden, 1, 0)
    cell = nn.sigmoid(keep) * state["cell"] + nn.sigmoid(let_in) * jnp.tanh(new)
    return {"hidden": nn.sigmoid(let_out) * jnp.tanh(cell), "cell": cell}


@dataclasses.dataclass(frozen=True)
class GRU:
  """h' = (1 - z) n + z h with n = tanh(W x + r (U h)) and the gates r, z, n in this order.

  https://arxiv.org/abs/1406.1078, in cuDNN's form: r multiplies the product with h and its bias, not h itself. Called
  as `Elman` is.
  """

  gates: ClassVar[int] = 3
  names: ClassVar[tuple[str, ...]] = ("hidden",)
  forget: ClassVar[int | None] = None

  def __call__(self, state: State, of_input: jax.Array, of_hidden: jax.Array) -> State:
    reset, keep = nn.sigmoid(of_input[:, 0] + of_hidden[:, 0]), nn.sigmoid(of_input[:, 1] + of_hidden[:, 1])
    new = jnp.tanh(of_input[:, 2] + reset * of_hidden[:, 2])
    return {"hidden": (1 - keep) * new + keep * state["hidden"]}


Cell = Elman | LSTM | GRU


CELLS = {"elman": Elman, "lstm": LSTM, "gru": GRU}


def cell(name: str, activation: str = "tanh") -> Cell:
  """The cell "elman", "lstm" or "gru".

  Args:
    activation: of Elman's; the others have their own.

  Raises:
    ValueError: there is no such cell or activation, or the cell has its own activations.

  >>> cell("gru").gates
  3
  """
  if name not in CELLS:
    raise ValueError(f"cell is {name!r}. It may be: {', '.join(CELLS)}.")
  if activation not in ACTIVATIONS:
    raise ValueError(f"activation is {activation!r}. It may be: {', '.join(ACTIVATIONS)}.")
  if name == "elman":
    return Elman(activation)
  if activation != "tanh":
    raise ValueError(f"activation is {activation!r}, and the cell {name!r} has its own. Leave it out, or use 'elman'.")
  return CELLS[name]()


class How(NamedTuple):
  """Static options of a recurrence."""

  cell: Cell
  reverse: bool


def _product(weights, hidden):
  """U h with its bias: [..., hidden_dim] -> [..., gates, hidden_dim]"""
  return add(dot(hidden, weights["kernel"]), weights["bias"])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def recur(how, weights, of_inputs, state, begins, valid):
  """The recurrence over time.

  By JAX's own rule the backward pass would add an outer product to the kernel's gradient at every step, and keep all
  gates. This one makes that gradient by one product over all steps, and keeps the states alone.

  Args:
    how: the cell, and the direction.
    weights: of `Weights`.
    of_inputs: [batch, length, gates, hidden_dim]
    state: float32 [batch, hidden_dim] by name.
    begins, valid: bool [batch, length] or None.

  Returns:
    the last state, and hidden states [batch, length, hidden_dim] in the dtype of of_inputs
  """
  state, (hidden, _) = _scan(how, weights, of_inputs, state, begins, valid)
  return state, hidden


def _scan(how, weights, of_inputs, state, begins, valid):
  """-> the last state, (hidden states, the states before each step, time first)"""
  dtype = of_inputs.dtype

  def step(state, inputs):
    of_input, begins, valid = inputs
    before = _masked(begins, 0, state)
    of_hidden = _product(weights, before["hidden"].astype(dtype))
    state = how.cell(before, of_input.astype(jnp.float32), of_hidden.astype(jnp.float32))
    if valid is not None:
      state = _masked(~valid, before, state)
    return state, (state["hidden"].astype(dtype), before)

  by_time = jax.tree.map(_time_first, (of_inputs, begins, valid))
  state, (hidden, before) = jax.lax.scan(step, state, by_time, reverse=how.reverse)
  return state, (_time_first(hidden), before)


def _forward(how, weights, of_inputs, state, begins, valid):
  state, (hidden, before) = _scan(how, weights, of_inputs, state, begins, valid)
  return (state, hidden), (weights, of_inputs, before, begins, valid)


def _backward(how, residuals, cotangents):
  weights, of_inputs, before, begins, valid = residuals
  d_state, d_hidden = cotangents
  dtype = of_inputs.dtype
  of_hidden, to_weights = jax.vjp(lambda weights: _product(weights, before["hidden"].astype(dtype)), weights)
  kernel = weights["kernel"].astype(dtype)

  def step(d_state, inputs):
    of_input, of_hidden, before, begins, valid, d_output = inputs
    d_state = {**d_state, "hidden": d_state["hidden"] + d_output.astype(jnp.float32)}
    d_new = d_state if valid is None else _masked(~valid, 0, d_state)
    _, pull = jax.vjp(how.cell, before, of_input.astype(jnp.float32), of_hidden.astype(jnp.float32))
    d_before, d_input, d_product = pull(d_new)
    d_product = d_product.astype(dtype)
    back = jax.lax.dot_general(d_product, kernel, (((1, 2), (1, 2)), ((), ())), preferred_element_type=jnp.float32)
    d_before = {**d_before, "hidden": d_before["hidden"] + back}
    if valid is not None:  # A state that was kept passes all of its gradient on.
      d_before = {name: array + jnp.where(valid[:, None], 0, d_state[name]) for name, array in d_before.items()}
    return _masked(begins, 0, d_before), (d_input.astype(dtype), d_product)

  by_time = jax.tree.map(_time_first, (of_inputs, begins, valid, d_hidden))
  inputs = (by_time[0], of_hidden, before, *by_time[1:])
  d_state, (d_inputs, d_products) = jax.lax.scan(step, d_state, inputs, reverse=not how.reverse)
  (d_weights,) = to_weights(d_products)
  return d_weights, _time_first(d_inputs), d_state, None, None


recur.defvjp(_forward, _backward)


def _masked(mask, replaced, state):
  """The state with `replaced`, a number or a state, in the rows of mask, bool [batch]; None: in none."""
  if mask is None:
    return state
  other = replaced if isinstance(replaced, dict) else dict.fromkeys(state, replaced)
  return {name: jnp.where(mask[:, None], other[name], array) for name, array in state.items()}


def _time_first(array):
  """[batch, length, ...] -> [length, batch, ...], and back."""
  return array.swapaxes(0, 1)
