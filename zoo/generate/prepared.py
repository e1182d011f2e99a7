"""Models and parameters prepared for decoding: layers unrolled, and on CPUs kernels transposed."""

import weakref
from typing import Any, NamedTuple

import jax
from jax.core import Tracer

from zoo.generate.steps import encodes
from zoo.layers.attention import by_pattern, with_attentions
from zoo.layers.blocked_attention import blocked_attention
from zoo.layers.products import kernel_first, outputs_first, with_products
from zoo.layers.stack import as_loop, unstack_layers
from zoo.tree import variables


class Prepared(NamedTuple):
  """(model, params) for the prompt, and (model, params) for decoding token by token."""

  reads: tuple
  steps: tuple


def prepared(model: Any, params: Any) -> Prepared:
  """Unrolls the layers for decoding: a scan would copy each layer's weights and cache at every step.

  On CPUs prompts use it too, with kernels of `zoo.layers.products`, and attend to long sources in blocks
  (`zoo.layers.blocked_attention`); elsewhere prompts use the original model, as a scan compiles faster.
  """
  loop = as_loop(model)
  if _on_cpu(params):
    pair = (with_products(with_attentions(loop, _blocked), kernel_first), _converted(params))
    return Prepared(pair, pair)
  if loop == model:
    return Prepared((model, params), (model, params))
  decoder_params = {name: part for name, part in params.items() if name != "encoder" or not encodes(model)}
  return Prepared((model, params), (loop, _unstacked(decoder_params)))


def _blocked(attention, path):
  return attention.clone(kernel=blocked_attention) if attention.kernel is by_pattern else attention


def _on_cpu(params):
  leaves = jax.tree.leaves(params)
  if not all(isinstance(leaf, jax.Array) and not isinstance(leaf, Tracer) for leaf in leaves):
    return False
  return all(device.platform == "cpu" for leaf in leaves for device in leaf.devices())


def _converted(params):
  """Unrolled layers with transposed kernels, cached for as long as the original arrays live.

  Arrays are immutable, so cached results stay valid. The cache takes as much memory as the kernels.
  """
  leaves, structure = jax.tree.flatten(params)
  key = (structure, *map(id, leaves))
  if key not in _CONVERTED:
    converted = _outputs_first(params)
    new_ids = {id(leaf) for leaf in jax.tree.leaves(converted)}
    # Arrays passed through unchanged are referenced here too: only the others can be finalized.
    changed = [leaf for leaf in leaves if id(leaf) not in new_ids]
    if not changed:
      return converted
    for leaf in changed:
      weakref.finalize(leaf, _CONVERTED.pop, key, None)
    _CONVERTED[key] = converted
  return _CONVERTED[key]


_CONVERTED: dict[tuple, Any] = {}


def _looped(weights):
  whole = variables(weights)
  layers = {name: unstack_layers(tree, whole["params"]) for name, tree in whole.items()}
  return layers if whole.keys() == weights.keys() else layers["params"]


_unstacked = jax.jit(_looped)
_outputs_first = jax.jit(lambda params: outputs_first(_looped(params)))
