"""Optimisers by name, without weight decay and learning rate, which zoo/optim/build.py adds."""

from typing import Any

import jax
import optax
import optax.contrib

from zoo.errors import UserError
from zoo.tree import matches, path_name

MOMENT_DTYPES = ("bfloat16", "float16", "float32")
STACKED = r"(layer_\d+|layers)/.*kernel"


def adamw(
  *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, nesterov: bool = False, mu_dtype: str | None = None
):
  """Adam (https://arxiv.org/abs/1412.6980)."""
  return optax.scale_by_adam(b1=b1, b2=b2, eps=eps, nesterov=nesterov, mu_dtype=_moment_dtype(mu_dtype))


def lion(*, b1: float = 0.9, b2: float = 0.99, mu_dtype: str | None = None):
  """Lion, the sign of a momentum (https://arxiv.org/abs/2302.06675): needs about a tenth of Adam's learning rate."""
  return optax.scale_by_lion(b1=b1, b2=b2, mu_dtype=_moment_dtype(mu_dtype))


def adafactor(
  *,
  decay_rate: float = 0.8,
  momentum: float | None = None,
  clipping_threshold: float = 1.0,
  min_dim_size_to_factor: int = 128,
  multiply_by_parameter_scale: bool = True,
):
  """Adam with factored second moments (https://arxiv.org/abs/1804.04235); steps are relative to a parameter's size."""
  transform = optax.adafactor(
    None,
    min_dim_size_to_factor=min_dim_size_to_factor,
    decay_rate=decay_rate,
    momentum=momentum,
    clipping_threshold=clipping_threshold,
    multiply_by_parameter_scale=multiply_by_parameter_scale,
  )
  return optax.chain(transform, optax.scale(-1.0))  # the last step of optax.adafactor is scale(-1)


def sgd(*, momentum: float = 0.9, nesterov: bool = False):
  """Stochastic gradient descent with momentum; `momentum=0` for none."""
  return optax.trace(decay=momentum, nesterov=nesterov) if momentum else optax.identity()


def muon(
  *,
  beta: float = 0.95,
  ns_steps: int = 5,
  nesterov: bool = True,
  rms: float = 0.2,
  matrices: str = STACKED,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
):
  """Muon: orthogonalised momentum (https://arxiv.org/abs/2502.16982) for kernels inside stacks, Adam for the rest.

  `nesterov` applies to Adam too.

  Kernels of three dimensions are flattened to matrices: query [dim, heads, head_dim] to
  [dim, heads * head_dim], out [heads, head_dim, dim] to [heads * head_dim, dim]. The layers of a scanned stack, one
  dimension in front, are separate matrices.

  Args:
    rms: root mean square of the update, close to that of Adam's steps, so that both share a learning rate.
    matrices: pattern of the kernels that Muon updates.
  """

  def dimensions(params: Any) -> Any:
    def of(path: tuple, array: Any) -> Any:
      name = path_name(path)
      return matrix_of(name, array.ndim) if matches(matrices, name) else None

    return jax.tree_util.tree_map_with_path(of, params)

  transform = optax.contrib.muon(
    1.0,
    beta=beta,
    ns_steps=ns_steps,
    nesterov=nesterov,
    consistent_rms=rms,
    adam_b1=b1,
    adam_b2=b2,
    eps=eps,
    muon_weight_dimension_numbers=dimensions,
  )
  return optax.chain(transform, optax.scale(-1.0))


def matrix_of(name: str, ndim: int) -> Any:
  """Input dimensions (rows) and output dimensions (columns) of a kernel, counted from the end."""
  apart = sum(part in ("layers", "experts") for part in name.split("/"))  # Leading axes: layers, experts.
  if ndim - apart == 3:
    rows, columns = ((-3, -2), (-1,)) if matches("out/kernel", name) else ((-3,), (-2, -1))
  elif ndim - apart == 2:
    rows, columns = (-2,), (-1,)
  else:
    return None
  as_index = lambda axes: tuple(ndim + axis for axis in axes)
  return optax.contrib.MuonDimensionNumbers(reduction_axis=as_index(rows), output_axis=as_index(columns))


OPTIMIZERS = {f.__name__: f for f in (adamw, lion, adafactor, sgd, muon)}


def _moment_dtype(dtype: str | None) -> str | None:
  """The name of a moment's dtype, unchanged; UserError if it is none."""
  if dtype is not None and dtype not in MOMENT_DTYPES:
    raise UserError(
      f"mu_dtype is {dtype!r}. It must be one of: {', '.join(MOMENT_DTYPES)}; or None for the parameters'."
    )
  return dtype
