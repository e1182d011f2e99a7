"""`depth` copies of a block, one after the other: as a loop, or as a scan whose program does not grow with depth."""

import dataclasses
import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from zoo.layers import sizes

# Compiling 24 layers took 119 CPU-seconds as a loop and 7 as a scan; a step of the loop is a little quicker.
SCAN_FROM = 12


def stack(block, depth, *, scan=None, remat=None, drop_path=0.0):
  """`depth` copies of `block`, each with parameters of its own.

  Args:
    block: a module; called as block(x, *args, train=..., **kwargs) -> x, with `drop_path=rate` if there is any.
    depth: how many.
    scan: True: one scanned body; False: a loop; None: scan from SCAN_FROM layers on.
    remat: what the backward pass keeps of a layer: None (all), "full" (nothing), "dots" (products with weights), or the
      name of a policy of `jax.checkpoint_policies`. The rest is computed again.
    drop_path: chance to drop the sublayers of the last layer; it rises linearly from 0 at the first.
  """
  sizes.positive(depth=depth)
  sizes.rate(drop_path=drop_path)
  if remat is not None:
    sizes.remat_policy(remat)
  scan = depth >= SCAN_FROM if scan is None else scan
  return (ScannedStack if scan else Stack)(block, depth, remat=remat, drop_path=drop_path)


class Stack(nn.Module):
  """A loop: children `layer_0`, `layer_1`, ..."""

  block: nn.Module
  depth: int
  remat: str | None = None
  drop_path: float = 0.0

  @nn.compact
  def __call__(self, x, *args, train=False, **kwargs):
    def layer(block, x, rate):
      drop = {"drop_path": rate} if rate else {}
      return block(x, *args, train=train, **drop, **kwargs)

    for i, rate in enumerate(np.linspace(0, self.drop_path, self.depth).tolist()):
      run = functools.partial(layer, rate=rate)
      if self.remat is not None:
        run = nn.remat(run, policy=sizes.remat_policy(self.remat))
      x = run(self.block.copy(name=f"layer_{i}"), x)
    return x


class ScannedStack(nn.Module):
  """A scan: child `layers`, every array of which has a leading axis of length `depth`."""

  block: nn.Module
  depth: int
  remat: str | None = None
  drop_path: float = 0.0

  @nn.compact
  def __call__(self, x, *args, train=False, **kwargs):
    rates = jnp.linspace(0, self.drop_path, self.depth) if self.drop_path and train else None

    def layer(stack, x, rate):
      drop = {} if rate is None else {"drop_path": rate}
      return stack.block.copy(name="layers")(x, *args, train=train, **drop, **kwargs), None

    if self.remat is not None:
      layer = nn.remat(layer, policy=sizes.remat_policy(self.remat), prevent_cse=False)
    scanned = nn.scan(
      layer,
      variable_axes={"params": 0, "cache": 0, "intermediates": 0},
      split_rngs={"params": True, "dropout": True},
      length=self.depth,
    )
    return scanned(self, x, rates)[0]


def looped(module):
  """The same module with every ScannedStack in it as a Stack; its parameters are `unstack_layers` of the other's."""
  if isinstance(module, ScannedStack):
    return Stack(module.block, module.depth, remat=module.remat, drop_path=module.drop_path)
  values = {field.name: getattr(module, field.name) for field in dataclasses.fields(module) if field.name != "parent"}
  parts = {name: looped(value) for name, value in values.items() if isinstance(value, nn.Module)}
  return module.clone(**parts) if parts else module


def stack_layers(params):
  """{"layer_0": tree, "layer_1": tree, ...} -> {"layers": tree with a leading axis}, wherever it occurs in params."""
  if not isinstance(params, dict):
    return params
  params = {name: stack_layers(value) for name, value in params.items()}
  layers = [name for name in params if re.fullmatch(r"layer_\d+", name)]
  if not layers:
    return params
  trees = [params.pop(f"layer_{i}") for i in range(len(layers))]
  return {**params, "layers": jax.tree.map(_pile, *trees)}


def unstack_layers(params):
  """The way back: {"layers": tree with a leading axis} -> {"layer_0": tree, "layer_1": tree, ...}."""
  if not isinstance(params, dict):
    return params
  params = {name: unstack_layers(value) for name, value in params.items()}
  layers = params.pop("layers", None)
  if layers is None:
    return params
  depth = jax.tree.leaves(layers)[0].shape[0]
  return {**params, **{f"layer_{i}": jax.tree.map(lambda array, i=i: array[i], layers) for i in range(depth)}}


def _pile(*arrays):
  return (np if isinstance(arrays[0], np.ndarray) else jnp).stack(arrays)
