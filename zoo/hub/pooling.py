"""How a sentence encoder makes one vector of a text: the files that sentence-transformers leaves beside the weights.

modules.json lists the steps, 1_Pooling/config.json and its like say how; https://sbert.net.
"""

import pathlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from zoo.errors import UserError, did_you_mean, shown
from zoo.hub.files import open_tensors, read_json
from zoo.options import Options

MODULES, PROMPTS, LENGTH = "modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"


def _mean(hidden: jax.Array, weight: jax.Array) -> jax.Array:
  return (hidden * weight[..., None]).sum(1) / jnp.maximum(weight.sum(1), 1e-9)[:, None]


def _counted(hidden: jax.Array) -> jax.Array:
  """[1, length]: 1, 2, 3 ..."""
  return 1 + jnp.arange(hidden.shape[1], dtype=hidden.dtype)[None]


def _last(hidden: jax.Array, valid: jax.Array) -> jax.Array:
  place = valid.shape[1] - 1 - jnp.argmax(valid[:, ::-1], axis=1)
  return jnp.take_along_axis(hidden, place[:, None, None], axis=1)[:, 0]


# (hidden [batch, length, dim], valid bool [batch, length]) -> [batch, dim]; in the order in which several are joined.
POOLS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
  "cls": lambda hidden, valid: hidden[:, 0],
  "max": lambda hidden, valid: jnp.where(valid[..., None], hidden, -1e9).max(1),
  "mean": lambda hidden, valid: _mean(hidden, valid.astype(hidden.dtype)),
  "mean_sqrt_len": lambda hidden, valid: _mean(hidden, valid.astype(hidden.dtype)) * jnp.sqrt(valid.sum(1))[:, None],
  "weightedmean": lambda hidden, valid: _mean(hidden, valid * _counted(hidden)),
  "lasttoken": _last,
}
_KEYS = {f"pooling_mode_{name}{'' if name == 'lasttoken' else '_tokens'}": name for name in POOLS}
_KEYS["pooling_mode_cls_token"] = _KEYS.pop("pooling_mode_cls_tokens")
_ACTIVATIONS = {"Identity": lambda x: x, "Tanh": jnp.tanh}


class Dense(NamedTuple):
  """A layer behind the pooling: activation(vector @ kernel + bias)."""

  kernel: np.ndarray
  bias: np.ndarray
  activation: str


class Recipe(NamedTuple):
  """From hidden states to a vector.

  Args:
    folder: where the encoder itself is.
    pools: names of POOLS, joined one after the other.
    dense: layers behind.
    unit: whether the vector is made of length 1.
    max_length: most tokens of a text; None: as many as the model takes.
    lower: whether texts become lower case first.
    prompts: name -> what may be put in front of a text.
    prompt: what is, where nobody says.
  """

  folder: pathlib.Path
  pools: tuple[str, ...] = ("mean",)
  dense: tuple[Dense, ...] = ()
  unit: bool = False
  max_length: int | None = None
  lower: bool = False
  prompts: Mapping[str, str] = {}
  prompt: str = ""

  def __call__(self, hidden: jax.Array, valid: jax.Array) -> jax.Array:
    """[batch, length, dim], bool [batch, length] -> float32 [batch, dim]; `unit` is left to the caller."""
    hidden = hidden.astype(jnp.float32)
    x = jnp.concatenate([POOLS[name](hidden, valid) for name in self.pools], axis=-1)
    for layer in self.dense:
      x = _ACTIVATIONS[layer.activation](x @ layer.kernel + layer.bias[None])
    return x


def read_recipe(folder: pathlib.Path) -> Recipe:
  """What the files of a folder say; without any, the mean over a text's tokens, as sentence-transformers does.

  Raises:
    UserError: a step that the zoo does not have.
  """
  found = Recipe(folder)
  if (folder / MODULES).is_file():
    for module in _steps(folder):
      found = _with(found, folder, *module)
  if (found.folder / LENGTH).is_file():
    where = found.folder / LENGTH
    options = Options(read_json(where), str(where))
    found = found._replace(
      max_length=options.take("max_seq_length", None, int), lower=options.take("do_lower_case", False)
    )
  if (folder / PROMPTS).is_file():
    options = Options(read_json(folder / PROMPTS), str(folder / PROMPTS))
    prompts = {str(name): str(text) for name, text in options.take("prompts", {}, dict).items()}
    default = options.take("default_prompt_name", None, str)
    if default is not None and default not in prompts:
      raise options.refusal("default_prompt_name", default, prompts)
    found = found._replace(prompts=prompts, prompt=prompts.get(default or "", ""))
  return found


def _steps(folder: pathlib.Path) -> list[tuple[str, pathlib.Path]]:
  """(kind, folder) of each module, in their order."""
  where = folder / MODULES
  listed = read_json(where, list)
  steps = []
  for module in listed:
    fine = isinstance(module, dict) and all(isinstance(module.get(key), str) for key in ("type", "path"))
    place = pathlib.PurePosixPath(module["path"]) if fine else pathlib.PurePosixPath("..")
    if place.is_absolute() or ".." in place.parts or len(place.parts) > 1:
      raise UserError(f"{where} holds {shown(module)}. A module has a type, and as its path a folder beside that file.")
    steps.append((module["type"].rpartition(".")[2], folder / place))
  if not steps or steps[0][0] != "Transformer":
    raise UserError(f"{where} does not begin with a Transformer, {shown(listed[:1])}. The zoo has no other encoder.")
  return steps


def _with(recipe: Recipe, folder: pathlib.Path, kind: str, place: pathlib.Path) -> Recipe:
  if kind == "Transformer":
    return recipe._replace(folder=place)
  if kind == "Pooling":
    return recipe._replace(pools=_pools(place / "config.json"))
  if kind == "Dense":
    return recipe._replace(dense=(*recipe.dense, _dense(place)))
  if kind == "Normalize":
    return recipe._replace(unit=True)
  if kind == "Dropout":
    return recipe
  has = ("Transformer", "Pooling", "Dense", "Normalize", "Dropout")
  near = did_you_mean(kind, has)
  raise UserError(f"{folder / MODULES}: the zoo has no module {shown(kind)}.{near} It has: {', '.join(has)}.")


def _pools(where: pathlib.Path) -> tuple[str, ...]:
  options = Options(read_json(where), str(where))
  options.must_be("include_prompt", True)
  options.ignore("word_embedding_dimension", "embedding_dimension")
  asked = options.take("pooling_mode", [], (str, list))
  asked = [asked] if isinstance(asked, str) else asked
  unknown = [name for name in asked if name not in POOLS]
  if unknown:
    raise options.refusal("pooling_mode", unknown[0], POOLS)
  asked = [*asked, *(name for key, name in _KEYS.items() if options.take(key, False))]
  options.done()
  if not asked:
    raise UserError(f"{where} turns on no way of pooling. Choose one: {', '.join(_KEYS)}.")
  return tuple(name for name in POOLS if name in asked)


def _dense(place: pathlib.Path) -> Dense:
  options = Options(read_json(place / "config.json"), str(place / "config.json"))
  activation = options.take("activation_function", "torch.nn.modules.activation.Tanh", str).rpartition(".")[2]
  if activation not in _ACTIVATIONS:
    raise options.refusal("activation_function", activation, _ACTIVATIONS)
  options.ignore("in_features", "out_features", "bias")
  options.done()
  tensors = open_tensors(place)
  if "linear.weight" not in tensors:
    raise UserError(f"{place} has no tensor linear.weight. It has: {', '.join(list(tensors)[:5])}.")
  kernel = tensors["linear.weight"].astype(np.float32).T
  has_bias = "linear.bias" in tensors
  bias = tensors["linear.bias"].astype(np.float32) if has_bias else np.zeros(kernel.shape[1:], np.float32)
  return Dense(kernel, bias, activation)
