"""Builds optimisers by name, with settings per parameter path: weight decay, learning-rate scale, frozen.

Every optimiser is a chain: clip the gradient's norm, find a direction, add decay, scale. So weight decay means the same
for all of them: params -= learning_rate * weight_decay * params (https://arxiv.org/abs/1711.05101). For patterns, see
zoo/tree.py.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from zoo.config.registry import check_options, check_type
from zoo.errors import UserError, did_you_mean
from zoo.optim.layer_decay import layer_multipliers
from zoo.optim.optimizers import OPTIMIZERS
from zoo.optim.schedules import Schedule, check, make_schedule
from zoo.tree import check_pattern, matches, matches_any, path_name, path_names

DECAYED = ("kernel", "embedding")
SUPPLIED = ("params", "steps", "calls")  # Of `optimizer`, what is the model's or the run's and no entry of a config.


class Role(NamedTuple):
  """The optimiser's settings for one parameter."""

  path: str
  shape: tuple[int, ...]
  trained: bool
  decayed: bool
  factor: float | tuple[float, ...]


def optimizer(
  params: Any,
  steps: int,
  *,
  name: str = "adamw",
  learning_rate: float,
  schedule: Any = "cosine",
  warmup_steps: int = 0,
  end: float = 0.0,
  weight_decay: float = 0.0,
  decay: Sequence[str] = DECAYED,
  clip_norm: float | None = None,
  multipliers: Sequence[tuple[str, Any]] = (),
  layer_decay: float | None = None,
  trainable: Sequence[str] = (),
  freeze: Sequence[str] = (),
  groups: Sequence[Mapping[str, Any]] = (),
  calls: Sequence[str] = (),
  **options: Any,
) -> tuple[optax.GradientTransformation, Schedule]:
  """Builds the optax transformation -> (transformation, learning rate as a function of the step).

  Args:
    params: the parameters or their shapes; only paths are read.
    steps: length of the run.
    name: one of OPTIMIZERS.
    learning_rate, schedule, warmup_steps, end: see `zoo.optim.schedules.make_schedule`.
    weight_decay: decay of the arrays that match `decay`: by default kernels and embeddings, no biases, norms or scales.
    clip_norm: maximum global gradient norm of all trained parameters.
    multipliers: (pattern, factor) pairs that scale the learning rate (and with it the decay); the factors of all
      patterns that match multiply. A list of factors gives one to every layer of a scanned stack.
    layer_decay: a layer's learning rate is this times that of the layer above it; see `zoo.optim.layer_decay`.
      None: all layers have the same rate.
    trainable: patterns of the arrays to train (feature extraction); empty for all.
    freeze: patterns of arrays that are not trained (a locked tower). They have no optimiser state.
    groups: parameter groups with their own optimiser, e.g. those of a second player: mappings of "params", a list of
      patterns, and of those that differ of name, learning_rate, schedule, warmup_steps, end, weight_decay, decay,
      clip_norm, multipliers, layer_decay and options of the optimiser. A parameter belongs to the first group that
      matches it. Gradient norms are clipped per group; the returned learning rate is that of the rest.
    calls: for `layer_decay`: paths of the model's modules in the order of their first calls.
    **options: of the optimiser, e.g. b2 of adamw.

  Raises:
    UserError: for an unknown name or option, a value out of its range, a pattern that matches no parameter.
  """
  direction = named_optimizer(name, options)
  numbers = {"learning_rate": learning_rate, "warmup_steps": warmup_steps, "end": end, "weight_decay": weight_decay}
  numbers_or_none = {"clip_norm": clip_norm, "layer_decay": layer_decay}
  check_options(optimizer, {**numbers, **numbers_or_none}, "optimizer", supplied=SUPPLIED)
  check(0 <= weight_decay < math.inf, "optimizer.weight_decay", weight_decay, "0 or more, and finite")
  check(clip_norm is None or clip_norm > 0, "optimizer.clip_norm", clip_norm, "above 0, or None for no clipping")
  rate = make_schedule(steps, learning_rate, schedule=schedule, warmup_steps=warmup_steps, end=end)
  falling = [] if layer_decay is None else layer_multipliers(params, layer_decay, calls)
  scaled = [*falling, *multipliers]
  parameter_roles = roles(
    params, decay=decay if weight_decay else (), multipliers=scaled, trainable=trainable, freeze=freeze
  )
  by_path = {role.path: role for role in parameter_roles}

  chain = [] if clip_norm is None else [optax.clip_by_global_norm(clip_norm)]
  chain.append(direction)
  if weight_decay:
    chain.append(
      optax.add_decayed_weights(weight_decay, mask=lambda p: map_paths(lambda path, _: by_path[path].decayed, p))
    )
  if scaled:
    chain.append(
      optax.stateless(lambda updates, _: map_paths(lambda path, x: x * per_layer(by_path[path].factor, x), updates))
    )
  chain.append(optax.scale_by_learning_rate(rate))
  chain = optax.chain(*chain)
  if all(role.trained for role in parameter_roles) and not groups:
    return chain, rate
  shared: dict[str, Any] = {
    **numbers,
    "schedule": schedule,
    "decay": decay,
    "clip_norm": clip_norm,
    "multipliers": multipliers,
    "layer_decay": layer_decay,
    "calls": calls,
  }
  members = group_members(list(by_path), groups)
  transforms: dict[Any, optax.GradientTransformation] = {"trained": chain, "frozen": optax.set_to_zero()}
  for i, group in enumerate(groups):
    group_options: dict[str, Any] = {option: value for option, value in group.items() if option != "params"}
    inherited: dict[str, Any] = {"name": name, **options} if group_options.get("name", name) == name else {}
    try:
      transforms[f"group_{i}"], _ = optimizer(params, steps, **{**shared, **inherited, **group_options})
    except UserError as error:
      raise UserError(f"optimizer.groups[{i}]: {error}") from None
  label = lambda path: members.get(path, "trained") if by_path[path].trained else "frozen"
  return optax.partition(transforms, lambda p: map_paths(lambda path, _: label(path), p)), rate


def group_members(names: list[str], groups: Any) -> dict[str, str]:
  """{path: "group_0"} for every parameter that belongs to a group of `optimizer`.

  Raises:
    UserError: an invalid group, a pattern that matches nothing, a group whose parameters all belong to others.
  """
  members: dict[str, str] = {}
  check_type("optimizer.groups", groups, list[Mapping])
  for i, group in enumerate(groups):
    where = f"optimizer.groups[{i}]"
    patterns = group.get("params")
    if not isinstance(patterns, list | tuple) or not patterns or not all(isinstance(p, str) for p in patterns):
      raise UserError(f"{where}.params is {patterns!r}. It must be a list of patterns, e.g. ['discriminator/.*'].")
    for option in ("trainable", "freeze", "groups", "accumulate", "ema", "reduce_dtype", "steps"):
      if option in group:
        raise UserError(f"{where} has {option}, which applies to all parameters. Set optimizer.{option}.")
    for pattern in patterns:
      check_pattern(pattern, names, f"{where}.params")
    mine = [path for path in names if path not in members and matches_any(patterns, path)]
    if not mine:
      raise UserError(f"{where} matches only parameters of earlier groups. Change the order of optimizer.groups.")
    members |= dict.fromkeys(mine, f"group_{i}")
  return members


def named_optimizer(name: str, options: dict) -> optax.GradientTransformation:
  """The gradient transformation `name` of OPTIMIZERS, with its `options` validated."""
  if name not in OPTIMIZERS:
    raise UserError(
      f"There is no optimizer {name!r}.{did_you_mean(str(name), OPTIMIZERS)} There are: {', '.join(OPTIMIZERS)}."
    )
  accepted = inspect.signature(OPTIMIZERS[name]).parameters
  unknown = [option for option in options if option not in accepted]
  if unknown:
    shared = [p.name for p in inspect.signature(optimizer).parameters.values() if p.kind is p.KEYWORD_ONLY]
    shared.remove("calls")
    offered = [*shared, *accepted]
    near = did_you_mean(unknown[0], offered)
    raise UserError(f"optimizer {name} takes no '{unknown[0]}'.{near} It takes: {', '.join(offered)}.")
  check_options(OPTIMIZERS[name], options, f"optimizer {name}")
  return OPTIMIZERS[name](**options)


def roles(
  params: Any,
  *,
  decay: Sequence[str] = DECAYED,
  multipliers: Sequence[tuple[str, Any]] = (),
  trainable: Sequence[str] = (),
  freeze: Sequence[str] = (),
) -> list[Role]:
  """The Role of every parameter, from the patterns that `optimizer` takes."""
  names = path_names(params)
  multipliers = [check_multiplier(pair) for pair in multipliers]
  patterns_by_option = {"decay": () if tuple(decay) == DECAYED else decay, "trainable": trainable, "freeze": freeze}
  for option, patterns in {**patterns_by_option, "multipliers": [pattern for pattern, _ in multipliers]}.items():
    if isinstance(patterns, str):
      raise UserError(f"optimizer.{option} is the str {patterns!r}. It must be a list of patterns: [{patterns!r}].")
    for pattern in patterns:
      check_pattern(pattern, names, f"optimizer.{option}")

  def role(name: str, array: Any) -> Role:
    trained = (not trainable or matches_any(trainable, name)) and not matches_any(freeze, name)
    factor = 1.0
    for pattern, value in multipliers:
      if matches(pattern, name):
        factor = times(factor, value, name, array.shape)
    return Role(name, tuple(array.shape), trained, trained and matches_any(decay, name), factor)

  parameter_roles = [role(name, array) for name, array in zip(names, jax.tree.leaves(params), strict=True)]
  if not any(role.trained for role in parameter_roles):
    raise UserError("optimizer.freeze and optimizer.trainable leave no parameter to train. Remove a pattern.")
  return parameter_roles


def check_multiplier(pair: Any) -> tuple[str, float | tuple[float, ...]]:
  """Validates a multiplier -> (pattern, factor); the factor is a number or a tuple of numbers, all 0 or more."""
  if isinstance(pair, str) or len(pair) != 2:
    raise UserError(f"optimizer.multipliers holds {pair!r}. It must hold pairs: ['embed/.*', 0.1].")
  pattern, factor = pair
  numbers = factor if isinstance(factor, list | tuple) else [factor]
  for number in numbers:
    is_valid = isinstance(number, int | float) and number >= 0
    check(is_valid, f"optimizer.multipliers: the factor of '{pattern}'", number, "a number, 0 or more")
  return pattern, tuple(factor) if isinstance(factor, list | tuple) else float(factor)


def times(a: Any, b: Any, name: str, shape: tuple[int, ...]) -> Any:
  """The product of two factors; a tuple has one for every layer of the array `name`."""
  for factor in (a, b):
    if isinstance(factor, tuple) and (not shape or len(factor) != shape[0]):
      raise UserError(
        f"optimizer.multipliers gives {name} {shape} a list of {len(factor)} factors. A list needs one factor per "
        "layer of a scanned stack, i.e. per row of the first dimension."
      )
  if isinstance(a, tuple) and isinstance(b, tuple):
    return tuple(x * y for x, y in zip(a, b, strict=True))
  if isinstance(a, tuple):
    return tuple(x * b for x in a)
  return tuple(a * y for y in b) if isinstance(b, tuple) else a * b


def per_layer(factor: Any, array: jax.Array) -> Any:
  """A factor that broadcasts to `array`: a tuple of n numbers -> [n, 1, ...] in its dtype, a number as it is.

  >>> per_layer((1.0, 0.5), jnp.zeros((2, 3, 5))).shape
  (2, 1, 1)
  """
  return jnp.asarray(factor, array.dtype).reshape(-1, *[1] * (array.ndim - 1)) if isinstance(factor, tuple) else factor


def map_paths(function: Callable[[str, Any], Any], tree: Any) -> Any:
  """`function(path, leaf)` for every leaf of a tree."""
  return jax.tree_util.tree_map_with_path(lambda path, leaf: function(path_name(path), leaf), tree)


def check_average(decay: Any) -> float | None:
  """Validates `decay` of `update_average`; None: no average. UserError if it is out of range."""
  if decay is None or (isinstance(decay, int | float) and not isinstance(decay, bool) and 0 <= decay < 1):
    return decay
  raise UserError(f"optimizer.ema is {decay!r}. It must be at least 0 and below 1, or None.")


def check_reduce_dtype(dtype: Any, model_dtype: Any) -> str:
  """Validates the dtype in which gradients are summed over devices, "float32" or "bfloat16".

  See `zoo.layers.kernel_products.kernel_gradients_in`.

  Args:
    dtype: `optimizer.reduce_dtype` of a config.
    model_dtype: the model's computation dtype; None: float32.

  Raises:
    UserError: another dtype, or bfloat16 if the model does not compute in it.
  """
  if dtype not in ("float32", "bfloat16"):
    raise UserError(f"optimizer.reduce_dtype is {dtype!r}. It may be: float32, bfloat16.")
  if dtype == "bfloat16" and model_dtype != dtype:
    raise UserError(
      f"optimizer.reduce_dtype is bfloat16, model.dtype {model_dtype or 'float32'}: gradients cannot be reduced in "
      "a lower precision than the model's. Set model.dtype to bfloat16, or leave reduce_dtype out."
    )
  return dtype


def update_average(average: Any, params: Any, step: jax.Array, decay: float) -> Any:
  """The exponential moving average of the parameters after update `step`, int32 [] from 0: a tree like `average`.

  average = d * average + (1 - d) * params with d = min(decay, (1 + step) / (10 + step)), so that it follows quickly at
  first (the warm-up of TensorFlow's ExponentialMovingAverage). Of integers, such as counters, the last value is taken.
  """
  d = jnp.minimum(decay, (1 + step) / (10 + step))

  def updated(a: jax.Array, p: jax.Array) -> jax.Array:
    return (d * a + (1 - d) * p).astype(a.dtype) if jnp.issubdtype(a.dtype, jnp.inexact) else p

  return jax.tree.map(updated, average, params)
