"""The modules that sentence-transformers runs after the encoder: Pooling, Dense, LayerNorm, Normalize, Dropout.

Each reads features by name and writes one: `token_embeddings` [batch, length, dim] at first, from which Pooling
computes `sentence_embedding` [batch, dim]. https://sbert.net/docs/package_reference/sentence_transformer/models.html
"""

import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from zoo.convert.rules.options import Options
from zoo.convert.rules.reference import Reference
from zoo.errors import UserError, shown
from zoo.hub.files import CONFIG, open_tensors, read_json
from zoo.pooling import POOLS, pool
from zoo.tree import mismatch

TOKENS, SENTENCE = "token_embeddings", "sentence_embedding"

# Pooling flags of versions before 5.4, in the order in which several are concatenated.
FLAGS = {
  "pooling_mode_cls_token": "cls",
  "pooling_mode_max_tokens": "max",
  "pooling_mode_mean_tokens": "mean",
  "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
  "pooling_mode_weightedmean_tokens": "weightedmean",
  "pooling_mode_lasttoken": "lasttoken",
}

# The classes of torch.nn that Dense may name, with default arguments: only their names are saved.
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
  "Identity": lambda x: x,
  "Tanh": jnp.tanh,
  "GELU": functools.partial(jax.nn.gelu, approximate=False),
  "ReLU": jax.nn.relu,
  "ReLU6": jax.nn.relu6,
  "LeakyReLU": jax.nn.leaky_relu,
  "ELU": jax.nn.elu,
  "CELU": jax.nn.celu,
  "SELU": jax.nn.selu,
  "SiLU": jax.nn.silu,
  "Mish": jax.nn.mish,
  "Sigmoid": jax.nn.sigmoid,
  "LogSigmoid": jax.nn.log_sigmoid,
  "Softplus": jax.nn.softplus,
  "Softsign": jax.nn.soft_sign,
  "Hardtanh": jax.nn.hard_tanh,
  "Hardsigmoid": jax.nn.hard_sigmoid,
  "Hardswish": jax.nn.hard_swish,
  "Tanhshrink": lambda x: x - jnp.tanh(x),
  "Hardshrink": lambda x: jnp.where(abs(x) > 0.5, x, 0.0),
  "Softshrink": lambda x: jnp.sign(x) * jnp.maximum(abs(x) - 0.5, 0.0),
  "GLU": jax.nn.glu,
}


class Pooling(NamedTuple):
  """Concatenates the poolings `modes` of the token embeddings, excluding the prompt's unless `include_prompt`."""

  where: str
  modes: tuple[str, ...] = ("mean",)
  include_prompt: bool = True
  reads: str = TOKENS
  writes: str = SENTENCE

  def __call__(self, x: jax.Array, valid: jax.Array, prompt_length: jax.Array) -> jax.Array:
    """[batch, length, dim], bool [batch, length], tokens of the prompt -> [batch, modes * dim]"""
    pooled = valid if self.include_prompt else valid & (jnp.cumsum(valid, axis=1) > prompt_length)
    return pool(self.modes, x, valid, pooled)


class Dense(NamedTuple):
  """Dense layer: activation(x @ kernel + bias) [+ x @ residual, or + x if that is None and `adds` is True]."""

  where: str
  kernel: np.ndarray
  bias: np.ndarray | None
  activation: str
  adds: bool = False
  residual: np.ndarray | None = None
  reads: str = SENTENCE
  writes: str = SENTENCE

  def __call__(self, x: jax.Array, valid: jax.Array, prompt_length: jax.Array) -> jax.Array:
    """[..., in_features] -> [..., out_features]"""
    _check_width(self.where, "in_features", self.kernel.shape[0], self.reads, x)
    y = x @ self.kernel
    y = y if self.bias is None else y + jnp.expand_dims(self.bias, range(x.ndim - 1))
    if self.activation == "GLU" and y.shape[-1] % 2:
      raise UserError(f"{self.where}: GLU halves out_features, and {y.shape[-1]} is odd.")
    y = ACTIVATIONS[self.activation](y)
    return y + (x if self.residual is None else x @ self.residual) if self.adds else y


class LayerNorm(NamedTuple):
  """Layer normalization of the sentence embedding, with torch's epsilon."""

  where: str
  scale: np.ndarray
  bias: np.ndarray
  reads: str = SENTENCE
  writes: str = SENTENCE

  def __call__(self, x: jax.Array, valid: jax.Array, prompt_length: jax.Array) -> jax.Array:
    """[batch, dim] -> [batch, dim]"""
    _check_width(self.where, "dimension", self.scale.shape[0], self.reads, x)
    return jax.nn.standardize(x, epsilon=1e-5) * self.scale[None] + self.bias[None]


class Normalize(NamedTuple):
  """L2-normalizes a feature; does nothing if no module has written it."""

  where: str
  reads: str = SENTENCE
  writes: str = SENTENCE

  def __call__(self, x: jax.Array, valid: jax.Array, prompt_length: jax.Array) -> jax.Array:
    """[..., dim] -> [..., dim]"""
    return unit_length(x)


class Dropout(NamedTuple):
  """Identity: dropout acts only in training."""

  where: str
  reads: str = SENTENCE
  writes: str = SENTENCE

  def __call__(self, x: jax.Array, valid: jax.Array, prompt_length: jax.Array) -> jax.Array:
    """[batch, dim] -> the same"""
    return x


Module = Pooling | Dense | LayerNorm | Normalize | Dropout


def unit_length(x: jax.Array) -> jax.Array:
  """L2 normalization: [..., dim] -> the same shape."""
  return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def read_pooling(folder: pathlib.Path) -> Pooling:
  """Reads a folder like 1_Pooling: `pooling_mode` since version 5.4, flags `pooling_mode_*` before."""
  options = _options(folder)
  dim = options.take("embedding_dimension", options.take("word_embedding_dimension", None, int), int)
  include_prompt = options.take("include_prompt", True)
  modes = options.take("pooling_mode", None, (str, list))
  flagged = [mode for flag, mode in FLAGS.items() if options.take(flag, False)]
  options.done()
  modes = flagged if modes is None else [modes] if isinstance(modes, str) else modes
  unknown = [mode for mode in modes if not isinstance(mode, str) or mode not in POOLS]
  if unknown:
    raise options.refusal("pooling_mode", unknown[0], POOLS)
  if not modes and (dim is None or modes is not flagged):
    raise UserError(f"{options.where} enables no pooling mode. Enable one of: {', '.join(POOLS)}.")
  return Pooling(str(folder), tuple(modes or ["mean"]), include_prompt)


def read_dense(folder: pathlib.Path) -> Dense:
  """Reads a folder like 2_Dense: config and tensors.

  Raises:
    UserError: an unsupported option or activation, or tensors that are missing, extra or misshapen.
  """
  # Only for this module sentence-transformers ignores unknown entries.
  where = folder / CONFIG
  options = Options(read_json(where), str(where), reference=Reference({}, frozenset(), {}, {}), may_ignore=False)
  reads = options.take("module_input_name", SENTENCE)
  writes = options.take("module_output_name", reads)
  widths = [_count(options, name) for name in ("in_features", "out_features")]
  has_bias, adds = options.take("bias", True), options.take("use_residual", False)
  name = options.nullable("activation_function", "torch.nn.modules.activation.Tanh", str)
  options.done()
  module, _, activation = (name or "").rpartition(".")
  if activation not in ACTIVATIONS or not f"{module}.".startswith("torch.nn."):
    raise options.refusal("activation_function", name, [f"torch.nn.{torch_name}" for torch_name in ACTIVATIONS])
  shapes: dict[str, tuple[int, ...]] = {"linear.weight": (widths[1], widths[0])}
  if has_bias:
    shapes["linear.bias"] = (widths[1],)
  if adds and widths[0] != widths[1]:
    shapes["residual.weight"] = (widths[1], widths[0])
  tensors = _tensors(
    folder, shapes, f"a Dense of {widths[0]} -> {widths[1]} {'with' if has_bias else 'without'} a bias"
  )
  residual = tensors["residual.weight"].T if "residual.weight" in tensors else None
  bias = tensors.get("linear.bias")
  return Dense(str(folder), tensors["linear.weight"].T, bias, activation, adds, residual, reads, writes)


def read_layer_norm(folder: pathlib.Path) -> LayerNorm:
  """Reads a folder with norm.weight and norm.bias."""
  options = _options(folder)
  dim = _count(options, "dimension")
  options.done()
  tensors = _tensors(folder, {"norm.weight": (dim,), "norm.bias": (dim,)}, f"a LayerNorm of {dim}")
  return LayerNorm(str(folder), tensors["norm.weight"], tensors["norm.bias"])


def read_normalize(folder: pathlib.Path) -> Normalize:
  """Reads a folder that may be missing: before version 5.4 it was empty, and git does not keep empty folders."""
  options = _options(folder, optional=True)
  reads = options.take("module_input_name", SENTENCE)
  return Normalize(str(folder), reads, options.take("module_output_name", reads))


def read_dropout(folder: pathlib.Path) -> Dropout:
  """A no-op: dropout acts only in training."""
  return Dropout(str(folder))


READERS: dict[str, Callable[[pathlib.Path], Module]] = {
  "Pooling": read_pooling,
  "Dense": read_dense,
  "LayerNorm": read_layer_norm,
  "Normalize": read_normalize,
  "Dropout": read_dropout,
}


def _options(folder: pathlib.Path, optional: bool = False) -> Options:
  where = folder / CONFIG
  return Options({} if optional and not where.is_file() else read_json(where), str(where))


def _count(options: Options, name: str) -> int:
  value = options.take(name, None, int)
  if value is None or value < 1:
    raise UserError(f"{options.where}: {name} is {shown(value)}. It must be an int of at least 1.")
  return value


def _tensors(folder: pathlib.Path, shapes: Mapping[str, tuple[int, ...]], what: str) -> dict[str, np.ndarray]:
  """float32 arrays of exactly these shapes."""
  tensors = open_tensors(folder)
  problems = mismatch(tensors.shapes, shapes)
  if problems:
    raise UserError(f"{folder} does not hold {what}: {problems}.")
  return {name: tensors[name].astype(np.float32) for name in shapes}


def _check_width(where: str, size: str, takes: int, feature: str, x: jax.Array) -> None:
  if x.shape[-1] != takes:
    raise UserError(f"{where}: {size} is {takes}, but its input {feature} has width {x.shape[-1]}.")
