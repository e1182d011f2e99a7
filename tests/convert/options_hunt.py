"""Every entry of a config is changed, and the reference, which reads the same config.json, is compared with ours.

Ours refuses the entry by name, or computes what the reference computes. `python -m tests.convert.options_hunt` hunts
through every class and every entry; the tests take a part of that.
"""

import copy
import dataclasses
import functools
import importlib
import importlib.util
import json
import operator
import pathlib
import sys
import tempfile
import traceback
import warnings
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

import zoo
from tests.convert import parity
from tests.convert.option_values import changed, entries, values
from zoo.build import build
from zoo.convert.rules import reference
from zoo.convert.rules.options import Options
from zoo.errors import UserError
from zoo.hub import tables
from zoo.hub.files import open_tensors

BESIDE = ("siglip_towers",)  # Tests of two families: a tower has none of its own, or one with another.
RELATIVES = {
  "Llama": ("Mistral", "Qwen2", "Qwen3"),
  "Mixtral": ("Qwen3Moe",),
  "Roberta": ("XLMRoberta", "Camembert"),
  "T5": ("MT5",),
}
RIGHT = ("invalid", "refused", "equal", "honoured")


class Change(NamedTuple):
  """An entry of a config, given by its path, with another value, and what that changes in `spec` of our model."""

  path: tuple[str, ...]
  value: Any
  differences: dict[str, Any]


def cases() -> list[parity.Case]:
  """One of each class and config class, and of those that have the same config under another name."""
  by_class: dict[str, parity.Case] = {}
  read = [family for family in tables.families() if tables.of_family(family).MODEL_TYPES]
  modules = [f"tests.convert.test_{name}" for name in sorted({*read, *BESIDE})]
  for module in filter(importlib.util.find_spec, modules):
    for case in getattr(importlib.import_module(module), "CASES", ()):
      by_class.setdefault(case.cls, case)
  for case in list(by_class.values()):
    for front, others in RELATIVES.items():
      for other in others if case.cls.startswith(front) else ():
        cls, config_cls = (name.replace(front, other, 1) for name in (case.cls, case.config_cls))
        by_class.setdefault(cls, dataclasses.replace(case, cls=cls, config_cls=config_cls))
  return list(by_class.values())


class Hunt:
  """One class: what its config.json says, its tensors, its outputs."""

  def __init__(self, case: parity.Case, folder: pathlib.Path):
    import torch
    import transformers

    torch.set_num_threads(1)
    self.case, self.folder = case, folder
    self.kind, self.config_kind = getattr(transformers, case.cls), getattr(transformers, case.config_cls)
    there = parity.reference(case)
    there.save_pretrained(folder)
    self.written = json.loads((folder / "config.json").read_text())
    full = there.config.to_dict()
    self.full = json.loads(json.dumps({**full, **self.written}, default=str))
    self.state = {name: x.clone() for name, x in there.state_dict().items()}
    self.shapes = {name: tuple(x.shape) for name, x in self.state.items()}
    self.tensors = open_tensors(folder)
    self.table = tables.of_model_type(self.written["model_type"], str(folder))
    self.plain = self.theirs(folder)
    self.model, self.params = self.ours(folder)
    self.plain_ours = self.computed(self.model, self.params)
    assert self.far(self.plain_ours, self.plain) < 1e-4

  def theirs(self, folder: pathlib.Path) -> dict[str, np.ndarray]:
    """The outputs of the reference that reads this folder."""
    import torch

    plain = dict.fromkeys(self.case.plain, "eager")
    return self.outputs(self.kind.from_pretrained(folder, dtype=torch.float32, **plain).eval())

  def outputs(self, model: Any) -> dict[str, np.ndarray]:
    """Of the reference."""
    import torch

    with torch.no_grad():
      out = model(**self.case.theirs(np.random.default_rng(1)), return_dict=True)
    return {name: pick(out).detach().numpy() for name, (_, pick) in self.case.outputs.items()}

  def ours(self, folder: pathlib.Path) -> tuple[Any, Any]:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      return zoo.load(folder, **self.case.options)

  def computed(self, model: Any, params: Any) -> dict[str, np.ndarray]:
    args, kwargs = self.case.ours(np.random.default_rng(1))
    out = parity.applied(model, params, *args, **kwargs)
    return {name: np.asarray(pick(out)) for name, (pick, _) in self.case.outputs.items()}

  def far(self, a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> float:
    if any(a[name].shape != b[name].shape for name in b):
      return np.inf
    return max(parity.distance(a[name], b[name]) if np.isfinite(b[name]).all() else 0.0 for name in b)

  def spec(self, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """How ours would be built, or None if it refuses."""
    where, head = str(self.folder), self.case.options.get("head")
    try:
      with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = Options(config, where, len(self.tensors), reference=reference.of(config["model_type"]))
        sizes = self.table.sizes(options, tables.choose_head(self.table, config, head, where), self.tensors)
        options.done()
        return build(tables.family_of(self.table), **sizes).spec
    except UserError:
      return None

  def built(self, config: Mapping[str, Any]) -> Any:
    """The reference of a config, with numbers of its own."""
    import torch

    torch.manual_seed(0)
    config = self.config_kind.from_dict(copy.deepcopy(dict(config)))
    return self.kind._from_config(config, **dict.fromkeys(self.case.plain, "eager")).eval()

  def judge(self, change: Change) -> str | None:
    """What happens with a change: 'invalid' to the reference, 'refused', 'equal', or what is wrong.

    None: it makes another model, for `together` to compare.
    """
    import torch

    config = self.changed([change])
    try:
      spec = self.spec(config)
    except Exception:
      return f"traceback: {traceback.format_exc(limit=-3)}"
    if spec is None:
      return "refused"
    change.differences.update({name: x for name, x in spec.items() if x != self.model.spec.get(name)})
    try:
      model = self.built(config)
      shapes = {name: tuple(x.shape) for name, x in model.state_dict().items()}
      if not change.differences and shapes == self.shapes:
        with torch.no_grad():
          self.case.prepare(model)
        model.load_state_dict(self.state)
        far = self.far(self.outputs(model), self.plain)
        return "equal" if far < 1e-6 else f"SILENT {far:.1e}"
      self.outputs(model)
    except Exception:
      return "invalid"

  def changed(self, changes: Iterable[Change]) -> dict[str, Any]:
    """The config with these changes; a section of it is written in full if one of them is in it."""
    config = self.written
    for path, value, _ in changes:
      if len(path) > 1 and path[0] not in config:
        config = {**config, path[0]: self.full[path[0]]}
      config = changed(config, path, value)
    return config

  def apart(self, changes: Sequence[Change]) -> bool:
    """Whether our model of all these changes differs in what each of them changes alone, and in nothing else."""
    names = [name for change in changes for name in change.differences]
    if len({change.path for change in changes}) < len(changes) or len(set(names)) < len(names):
      return False
    merged = functools.reduce(operator.or_, (change.differences for change in changes), dict(self.model.spec))
    return self.spec(self.changed(changes)) == merged

  def together(self, changes: Sequence[Change], folder: pathlib.Path) -> Iterator[tuple[Change, str]]:
    """Verdicts on changes that are `apart`: of all of them at once, and of halves where that is not 'honoured'."""
    verdict = self.compare(self.changed(changes), folder)
    if verdict == "honoured" or len(changes) == 1:
      yield from ((change, verdict) for change in changes)
    else:
      middle = len(changes) // 2
      yield from self.together(changes[:middle], folder)
      yield from self.together(changes[middle:], folder)

  def compare(self, config: Mapping[str, Any], folder: pathlib.Path) -> str:
    """Both read the same files, with this config.json: 'honoured', 'refused', 'invalid', or what is wrong."""
    import torch

    folder.mkdir(exist_ok=True)
    try:
      model = self.built(config)
      shapes = {name: tuple(x.shape) for name, x in model.state_dict().items()}
      with torch.no_grad():
        if shapes == self.shapes:
          self.case.prepare(model)
          model.load_state_dict(self.state)
        else:
          for parameter in model.parameters():
            fan_in = max(parameter.numel() // max(len(parameter), 1), 4) if parameter.ndim > 1 else 10
            parameter.copy_(fan_in**-0.5 * torch.randn_like(parameter))
          self.case.prepare(model)
      model.save_pretrained(folder)
      (folder / "config.json").write_text(json.dumps(config))
      theirs = self.theirs(folder)
    except Exception:
      return "invalid"
    try:
      far = self.far(self.computed(*self.ours(folder)), theirs)
    except ValueError:  # Of our own checks, of inputs too: the reference takes images of another size where it can.
      return "refused"
    except Exception:
      return f"traceback: {traceback.format_exc(limit=-3)}"
    return "honoured" if far < 1e-4 else f"DIFFERENT {far:.1e}"

  def run(self, everything: bool = True, alone: Container[str] = ()) -> Iterator[tuple[str, Any, str]]:
    """(name, value, verdict) of every entry of such a config, with `everything` of what the reference knows.

    Changes that make another model take long to compare, so those that are `apart` are made at once, but for those of
    entries named in `alone`.
    """
    groups: list[list[Change]] = []
    for path, value in entries(self.full, everything):
      done: list[Any] = [value]
      for other in map(copy.deepcopy, values(path[-1], value)):
        if any(other == one and type(other) is type(one) for one in done):
          continue
        done.append(other)
        change = Change(path, other, {})
        verdict = self.judge(change)
        if verdict is not None:
          yield ".".join(path), other, verdict
          continue
        group = next((group for group in groups if path[-1] not in alone and self.apart([*group, change])), None)
        if group is None:
          groups.append([change])
        else:
          group.append(change)
    for group in groups:
      for change, verdict in self.together(group, self.folder.parent / f"{self.folder.name}-other"):
        yield ".".join(change.path), change.value, verdict


def main(arguments: list[str]) -> None:
  """Hunts through all classes, or those whose names the arguments begin."""
  import transformers

  transformers.logging.set_verbosity(transformers.logging.CRITICAL)
  transformers.logging.disable_progress_bar()
  met: set[str] = set()
  for case in cases():
    if arguments and not case.cls.startswith(tuple(arguments)):
      continue
    with tempfile.TemporaryDirectory() as folder:
      hunt = Hunt(case, pathlib.Path(folder) / "base")
      counts: dict[str, int] = {}
      for name, value, verdict in hunt.run(everything=hunt.written["model_type"] not in met):
        kind = verdict.split()[0]
        counts[kind] = counts.get(kind, 0) + 1
        if kind not in RIGHT:
          print(f"{case.cls} {name}={value!r}: {verdict}", flush=True)
      met.add(hunt.written["model_type"])
      print(f"## {case.cls}: {counts}", flush=True)


if __name__ == "__main__":
  main(sys.argv[1:])
