"""Comparison with published layouts: a tiny random model of torch transformers against ours, loaded from its files.

A `Case` names the reference's class, its config, the inputs of both and where the outputs are. `check` saves the
reference, loads the file with `zoo.load`, compares outputs, hidden states, attention weights and gradients, writes our
model with `zoo.save_hf` and has the reference load that.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

import zoo
from zoo.convert.rules.options import LAYERS
from zoo.hub import tables
from zoo.hub.files import open_tensors
from zoo.hub.writing import hub_tensors

VALUES, GRADIENTS = 1e-5, 1e-4  # relative to the largest entry, float32
SEEN: list[list] = []  # family, class, largest difference of values, of gradients: for the table of docs/parity.md


@dataclasses.dataclass
class Case:
  """One reference.

  Args:
    name: of the test.
    cls, config: names of the reference's class and config class, and that config's arguments.
    ours, theirs: rng -> inputs: (args, kwargs) of `model.apply`, and kwargs of the reference's forward. Both are handed
      a numpy Generator in the same state.
    outputs: name -> (ours -> array, theirs -> tensor) from what the two return.
    method: of our model; None: __call__.
    hidden: a regular expression with one group, the layer's number, for the paths of our blocks' outputs, and the name
      of the reference's list of hidden states; None: not compared.
    weights: likewise for attention weights, `(expression, name)`.
    options: of `zoo.load`.
    prepare: changes the reference once it is random: unties, fills buffers.
    lacking: names that our export leaves to the reference, which computes them.
  """

  name: str
  cls: str
  config_cls: str
  config: Mapping[str, Any]
  ours: Callable[[np.random.Generator], tuple[tuple, dict]]
  theirs: Callable[[np.random.Generator], dict]
  outputs: Mapping[str, tuple[Callable, Callable]]
  hidden: tuple[tuple[str, str], ...] = (("stack/layer_(\\d+)", "hidden_states"),)
  weights: tuple[tuple[str, str], ...] = (("stack/layer_(\\d+)/self_attention", "attentions"),)
  options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  first_hidden: int = 1  # hidden_states[0] is what goes into the first block
  last_is_normed: bool = False  # hidden_states[-1] is after a final norm: not a block's output
  prepare: Callable[[Any], None] = lambda model: None
  lacking: frozenset[str] = frozenset()
  plain: tuple[str, ...] = ("attn_implementation",)  # Parts of the reference that run unchanged

  def __str__(self):
    return self.name


def reference(case: Case, seed: int = 0):
  """The reference in eval mode, every parameter of it random."""
  import torch
  import transformers

  torch.manual_seed(seed)
  config = getattr(transformers, case.config_cls)(**case.config)
  model = getattr(transformers, case.cls)._from_config(config, **dict.fromkeys(case.plain, "eager")).eval()
  with torch.no_grad():
    for parameter in model.parameters():
      fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
      spread = 0.3 if parameter.ndim < 2 else max(fan_in, 4) ** -0.5
      parameter.copy_(spread * torch.randn_like(parameter) + (1.0 if parameter.ndim == 1 and fan_in == 1 else 0.0))
    case.prepare(model)
  return model


def distance(ours: Any, theirs: Any) -> float:
  """Largest difference relative to the largest entry."""
  ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
  assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
  assert np.isfinite(theirs).all()
  return float(abs(ours - theirs).max() / max(abs(theirs).max(), 1e-30))


def applied(model: Any, params: Any, *args: Any, **kwargs: Any) -> Any:
  """`model.apply` as one program; operation by operation it would be a hundred."""
  return jax.jit(lambda params: model.apply({"params": params}, *args, **kwargs))(params)


def check(case: Case, folder) -> None:
  """Asserts everything; the largest relative differences go to `SEEN`."""
  import torch

  there = reference(case)
  there.save_pretrained(folder / "theirs")
  model, params = zoo.load(folder / "theirs", **case.options)
  args, kwargs = case.ours(np.random.default_rng(1))
  inputs = case.theirs(np.random.default_rng(1))

  want = there(**inputs, output_hidden_states=True, output_attentions=True)
  torch_outputs = {name: pick(want) for name, (_, pick) in case.outputs.items()}

  # The outputs and the gradient of the same random combination of them all, in one program.
  rng = np.random.default_rng(2)
  mix = {name: rng.normal(size=tensor.shape).astype(np.float32) for name, tensor in torch_outputs.items()}

  @jax.jit
  @functools.partial(jax.grad, has_aux=True)
  def run(params):
    sown = {"capture_intermediates": True, "mutable": ["intermediates"]}
    got, state = model.apply({"params": params}, *args, **kwargs, **sown)
    ours = {name: pick(got) for name, (pick, _) in case.outputs.items()}
    return sum((ours[name] * mix[name]).sum() for name in mix), (ours, state)

  gradient, (got, state) = run(params)
  differences = {name: distance(got[name], torch_outputs[name].detach().numpy()) for name in torch_outputs}
  sown = intermediates(state["intermediates"])
  for pattern, name in case.hidden:
    differences |= compare_layers(sown, pattern + "/__call__", getattr_path(want, name), case)
  for pattern, name in case.weights:
    differences |= compare_layers(sown, pattern + "/weights", getattr_path(want, name), None)
  worst = max(differences, key=differences.__getitem__)
  assert differences[worst] < VALUES, (worst, differences)

  # Gradients are compared by the names of the reference's parameters.
  sum((torch_outputs[name] * torch.from_numpy(mix[name])).sum() for name in mix).backward()
  ours = hub_tensors(model, gradient)
  zoo.save_hf(folder / "ours", model, params)
  plain = dict.fromkeys(case.plain, "eager")
  back, info = type(there).from_pretrained(folder / "ours", output_loading_info=True, **plain)
  info["missing_keys"] = set(info["missing_keys"]) - case.lacking
  missing = {key: value for key, value in info.items() if value}
  assert not missing, missing
  again = back.eval()(**inputs)
  for name, (_, pick) in case.outputs.items():
    assert distance(pick(again).detach().numpy(), torch_outputs[name].detach().numpy()) < VALUES, name
  again_model, again_params = zoo.load(folder / "ours", **case.options)
  assert all(jax.tree.leaves(jax.tree.map(np.array_equal, *jax.device_get((params, again_params)))))
  gradients = compare_gradients(ours, there, folder / "gradients", tables.of_family(model.spec["family"]))
  worst_gradient = max(gradients, key=gradients.__getitem__)
  assert gradients[worst_gradient] < GRADIENTS, (worst_gradient, gradients[worst_gradient])
  SEEN.append([model.spec["family"], case.cls, differences[worst], gradients[worst_gradient]])


def intermediates(tree: Any) -> dict[str, Any]:
  """path -> what was sown there."""
  errors = {}
  for path, value in jax.tree_util.tree_leaves_with_path(tree):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    errors[re.sub(r"/\d+$", "", name)] = value
  return errors


def getattr_path(output: Any, name: str) -> Any:
  """`a.b` of an output."""
  for part in name.split("."):
    output = getattr(output, part)
  return output


def compare_layers(sown: Mapping[str, Any], pattern: str, theirs: Any, case: Case | None) -> dict[str, float]:
  """Each layer's array against the reference's list; the layers of a scanned stack lie in one array."""
  layers = {int(m[1]): value for name, value in sown.items() if (m := re.fullmatch(pattern, name))}
  assert layers, (pattern, sorted(sown))
  if case is not None:
    theirs = theirs[case.first_hidden :]
    theirs = theirs[:-1] if case.last_is_normed else theirs
    layers = {i: layers[i] for i in range(len(theirs))}
  assert len(layers) == len(theirs), (pattern, len(layers), len(theirs))
  return {f"{pattern} {i}": distance(layers[i], theirs[i].detach().numpy()) for i in sorted(layers)}


def compare_gradients(ours: Mapping[str, np.ndarray], there: Any, folder: Any, table: Any) -> dict[str, float]:
  """Differences by the names in files, relative to the largest gradient: the reference saves its gradients for that."""
  import torch

  with torch.no_grad():
    for parameter in there.parameters():
      parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    for buffer in there.buffers():
      buffer.zero_()
  there.save_pretrained(folder)
  theirs = open_tensors(folder)
  biggest = max(float(abs(theirs[name]).max()) for name in theirs)
  # Of two names of one tensor a reference may save the other one.
  names = {name: name if name in theirs else tables.lookup(name, dict.fromkeys(theirs), table) for name in ours}
  return {name: float(abs(theirs[names[name]] - gradient).max()) / biggest for name, gradient in ours.items()}


def one_deep(names: Iterable[str], config: Mapping[str, Any], layers: int = 1) -> Iterator[tuple[str, dict[str, Any]]]:
  """(name, config) of the heads of a model: the first compares all layers, the others have so many."""
  for i, name in enumerate(names):
    yield name, {key: layers if i and key in LAYERS else value for key, value in config.items()}


def tokens(vocab_size: int, *shape: int, low: int = 3) -> Callable[[np.random.Generator], np.ndarray]:
  """Random tokens, none of them special."""
  return lambda rng: rng.integers(low, vocab_size, shape).astype(np.int32)


def to_torch(array: Any) -> Any:
  """int64 or float32 tensor."""
  import torch

  array = np.asarray(array)
  return torch.from_numpy(array.astype(np.int64 if array.dtype.kind in "iub" else np.float32))


def lengths(valid: np.ndarray) -> jax.Array:
  """bool for us, from what the reference calls an attention mask."""
  return jax.device_put(valid.astype(bool))
