"""Intermediate activations: the hidden state after every layer, and the attention weights."""

import re
from typing import Any

import jax

from zoo.layers.stack import unstack_layers
from zoo.tree import path_name, variables

LAYER = re.compile(r"layer_\d+|layers")


def capture(model: Any, params: Any, *inputs: Any, **options: Any) -> tuple[Any, dict[str, jax.Array]]:
  """Runs a forward pass and returns its outputs and its intermediates.

  Models have no overhead without `capture`; under `jax.jit`, unused intermediates are not computed.

  Args:
    model, params: any of the zoo.
    *inputs, **options: as for `model.apply`, e.g. valid=..., method="encode".

  Returns:
    the model's outputs, and a dict by the paths of layers, the same for layers in a scan and in a loop, here of an
    encoder-decoder:
      "decoder/stack/layer_0": [batch, length, dim], the layer's output,
      "decoder/stack/layer_0/self_attention/weights": float32 [batch, heads, queries, keys], after the softmax,
      "decoder/stack/layer_0/cross_attention/weights": the same, with keys from the encoder.

  >>> import jax.numpy as jnp
  >>> import zoo
  >>> model = zoo.build("gpt", vocab_size=7, max_length=8, dim=8, depth=1, num_heads=2)
  >>> tokens = jnp.array([[1, 2, 3]])
  >>> params = model.init(jax.random.key(0), tokens)["params"]
  >>> logits, states = zoo.capture(model, params, tokens)
  >>> {name: array.shape for name, array in states.items()}
  {'stack/layer_0': (1, 3, 8), 'stack/layer_0/self_attention/weights': (1, 2, 3, 3)}
  """
  is_layer = lambda module, method: method == "__call__" and LAYER.fullmatch(module.name or "") is not None
  out, state = model.apply(
    variables(params), *inputs, **options, capture_intermediates=is_layer, mutable=["intermediates"]
  )
  intermediates = unstack_layers(state.get("intermediates", {}), variables(params)["params"])
  named_arrays = jax.tree_util.tree_leaves_with_path(intermediates)
  # Linen keeps a tuple with one entry per call of a module: here there is one.
  return out, {re.sub(r"(/__call__)?/0$", "", path_name(path)): array for path, array in named_arrays}
