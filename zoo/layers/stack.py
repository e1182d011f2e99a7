"""Stacks of `depth` blocks: as a loop, or as a scan whose program does not grow with depth.

Blocks of k kinds alternate: layer i is of kind i modulo k. A scan goes over full cycles of k layers; layers that
are left over follow in a loop.
"""

import dataclasses
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from zoo.layers import sizes

# Compiling 24 layers took 119 CPU-seconds as a loop and 7 as a scan; a step of the loop is a little faster.
SCAN_FROM = 12
LAYER = re.compile(r"layer_\d+")


def stack(block, depth, *, scan=None, remat=None, drop_path=0.0):
  """Builds a stack of `depth` layers, each with its own parameters.

  Args:
    block: a module; called as block(x, *args, train=..., **kwargs) -> x, with `drop_path=rate` if there is any. Or a
      tuple of alternating modules: of (near, near, far) every third layer is far.
    depth: number of layers.
    scan: True: scan over cycles; False: a loop; None: a scan from SCAN_FROM layers on, if they make two cycles.
    remat: what is saved for the backward pass: None (everything), "full" (nothing), "dots" (matrix products), or the
      name of a policy of `jax.checkpoint_policies`. The rest is recomputed.
    drop_path: rate of stochastic depth in the last layer; it rises linearly from 0 in the first.
  """
  sizes.positive(depth=depth)
  sizes.rate(drop_path=drop_path)
  if remat is not None:
    sizes.remat_policy(remat)
  scan = depth >= max(SCAN_FROM, 2 * len(kinds_of(block))) if scan is None else scan
  return (ScannedStack if scan else Stack)(block, depth, remat=remat, drop_path=drop_path)


class Stack(nn.Module):
  """A loop: children `layer_0`, `layer_1`, ..."""

  block: nn.Module | tuple[nn.Module, ...]
  depth: int
  remat: str | None = None
  drop_path: float = 0.0

  @nn.compact
  def __call__(self, x, *args, train=False, **kwargs):
    kinds = kinds_of(self.block)
    for i, rate in enumerate(np.linspace(0, self.drop_path, self.depth).tolist()):
      run = _caller(self.remat, rate or None, args, {"train": train, **kwargs})
      x = run(kinds[i % len(kinds)].copy(name=f"layer_{i}"), x)
    return x


class ScannedStack(nn.Module):
  """A scan: child `layers`, every array of which has a leading axis of length `depth`.

  Of k kinds, `layers` has the children `layer_0` to `layer_(k-1)`, whose leading axis counts cycles; layers after the
  last full cycle are children beside `layers`, named as in a loop.
  """

  block: nn.Module | tuple[nn.Module, ...]
  depth: int
  remat: str | None = None
  drop_path: float = 0.0

  @nn.compact
  def __call__(self, x, *args, train=False, **kwargs):
    kinds = kinds_of(self.block)
    cycles = self.depth // len(kinds)
    scanned_depth = cycles * len(kinds)
    rates = jnp.linspace(0, self.drop_path, self.depth) if self.drop_path and train else None

    def caller(rate, **options):
      return _caller(self.remat, rate, args, {"train": train, **kwargs}, **options)

    def cycle(layers, x, rates):
      # A scan keeps its iterations apart: XLA cannot merge recomputed values with the saved ones.
      run = [caller(None if rates is None else rates[i], prevent_cse=False) for i in range(len(kinds))]
      return (layers(x, run) if len(kinds) > 1 else run[0](layers, x)), None

    if cycles:
      scanned = nn.scan(
        cycle,
        variable_axes={True: 0},  # Of every collection each layer has its own.
        split_rngs={True: True},
        length=cycles,
        check_constancy_invariants=False,  # There are none to check, and checking traces the body once more.
      )
      layers = Cycle(kinds, name="layers") if len(kinds) > 1 else kinds[0].copy(name="layers")
      x = scanned(layers, x, None if rates is None else rates[:scanned_depth].reshape(cycles, -1))[0]
    for i in range(scanned_depth, self.depth):
      x = caller(None if rates is None else rates[i])(kinds[i % len(kinds)].copy(name=f"layer_{i}"), x)
    return x


class Cycle(nn.Module):
  """One cycle of layers, one of each kind, called by `run[i](block, x)`."""

  block: tuple[nn.Module, ...]

  @nn.compact
  def __call__(self, x, run):
    for i, block in enumerate(self.block):
      x = run[i](block.copy(name=f"layer_{i}"), x)
    return x


def _layers_in(names):
  """The entries of `names` that are layers, in order."""
  return sorted(filter(LAYER.fullmatch, names), key=lambda name: int(name.removeprefix("layer_")))


def kinds_of(block):
  """The modules of a block, one or several, as a tuple."""
  return block if isinstance(block, tuple) else (block,)


def _caller(remat, rate, args, kwargs, **options):
  """-> f(block, x): calls the block, rematerialised by the policy `remat`."""

  def call(block, x):
    return block(x, *args, **({} if rate is None else {"drop_path": rate}), **kwargs)

  return call if remat is None else nn.remat(call, policy=sizes.remat_policy(remat), **options)


def as_loop(module):
  """A copy of the module with every ScannedStack as a Stack; `unstack_layers` converts the parameters."""
  if isinstance(module, ScannedStack):
    return Stack(module.block, module.depth, remat=module.remat, drop_path=module.drop_path)
  values = {field.name: getattr(module, field.name) for field in dataclasses.fields(module) if field.name != "parent"}
  parts = {name: as_loop(value) for name, value in values.items() if isinstance(value, nn.Module)}
  return module.clone(**parts) if parts else module


def stack_layers(tree, like=None):
  """{"layer_0": tree, "layer_1": tree, ...} -> {"layers": tree with a leading axis}, wherever it occurs in a tree.

  Args:
    tree: parameters, or another collection.
    like: a tree with the layout to produce, of arrays or shapes; None: every layer is scanned, all of one kind.
  """
  if not isinstance(tree, dict):
    return tree
  inside = like if isinstance(like, dict) else {}
  tree = {name: stack_layers(value, inside.get(name)) for name, value in tree.items()}
  scanned = [name for name in _layers_in(tree) if name not in inside]
  if not scanned or (inside and "layers" not in inside):
    return tree
  kinds = _layers_in(inside.get("layers", ()))  # In a collection that not all layers have, not all kinds.
  trees = [tree.pop(name) for name in scanned]
  piles = [jax.tree.map(_pile, *trees[kind :: len(kinds) or 1]) for kind in range(len(kinds) or 1)]
  return {**tree, "layers": dict(zip(kinds, piles, strict=True)) if kinds else piles[0]}


def unstack_layers(tree, params=None):
  """Inverse of `stack_layers`: {"layers": tree with a leading axis} -> {"layer_0": tree, "layer_1": tree, ...}.

  Args:
    tree: parameters, or another collection.
    params: for another collection, the parameters of the same model, which show the kinds of layers that alternate if
      not all have an entry in that collection. None: all have.
  """
  if not isinstance(tree, dict):
    return tree
  inside = params if isinstance(params, dict) else {}
  layers = tree.get("layers")
  tree = {name: unstack_layers(value, inside.get(name)) for name, value in tree.items() if name != "layers"}
  if layers is None:
    return tree
  kinds = _layers_in(inside.get("layers", layers))
  within = [inside.get("layers", {}).get(kind) for kind in kinds] or [inside.get("layers")]
  piles = [layers.get(kind, {}) for kind in kinds] or [layers]
  piles = [unstack_layers(pile, part) for pile, part in zip(piles, within, strict=True)]
  cycles = jax.tree.leaves(piles)[0].shape[0]

  def layer(i):
    cycle, kind = divmod(i, len(piles))
    return jax.tree.map(lambda array: array[cycle], piles[kind])

  return {**tree, **{f"layer_{i}": layer(i) for i in range(cycles * len(piles)) if piles[i % len(piles)]}}


def scanned_path(path, names):
  """The path of a layer's array among the model's `names`, and its index along the first axis.

  `stack/layer_7/scale` -> (itself, None) in a loop, ("stack/layers/scale", 7) in a scan, ("stack/layers/layer_1/scale",
  3) in a scan over two kinds.
  """
  if path in names:
    return path, None
  match = re.fullmatch(r"(.*/|)layer_(\d+)(/.*)", path)
  assert match, path
  before, i, after = match[1], int(match[2]), match[3]
  if f"{before}layers{after}" in names:
    return f"{before}layers{after}", i
  # Of another collection than the parameters, whose name stands in front, not all kinds may have something.
  stacks = "|".join(map(re.escape, {before, before.partition("/")[2]}))
  inside = (re.match(rf"(?:{stacks})layers/(layer_\d+)/", name) for name in names)
  cycle, kind = divmod(i, len({match[1] for match in inside if match}))
  return f"{before}layers/layer_{kind}{after}", cycle


def _pile(*arrays):
  return (np if isinstance(arrays[0], np.ndarray) else jnp).stack(arrays)
