"""What old models returned, and what they called their config: read by name, by place or by key."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import jax

from zoo.errors import UserError, shown

OPTIONAL = ("hidden_states", "attentions")  # None, where nobody asked for them.


class Output(dict):
  """Arrays by name, `out.logits` or `out["logits"]`, and by their order, `out[0]` or `out[:2]`; a tree for JAX."""

  def __getitem__(self, key):
    return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

  def __getattr__(self, name):
    if name in self:
      return self[name]
    if name in OPTIONAL:
      return None
    raise AttributeError(f"This output has no {name}. It has: {', '.join(self)}.")

  def to_tuple(self):
    """The values, those of outputs within it too."""
    return tuple(value.to_tuple() if isinstance(value, Output) else value for value in self.values())


def _with_keys(out):
  return [(jax.tree_util.DictKey(name), value) for name, value in out.items()], tuple(out)


jax.tree_util.register_pytree_with_keys(Output, _with_keys, lambda names, values: Output(zip(names, values)))


class Config(SimpleNamespace):
  """The entries of a config.json as attributes, sections as configs of their own."""

  def __init__(self, **entries: Any):
    super().__init__(**{name: Config(**x) if _is_section(name, x) else x for name, x in entries.items()})

  def __getattr__(self, name: str) -> Any:
    entries = vars(self)
    if name == "num_labels":
      return len(entries.get("id2label") or (0, 1))
    other = {"use_return_dict": "return_dict", "hidden_size": "d_model", "num_hidden_layers": "num_layers",
             "num_attention_heads": "num_heads", "head_dim": "d_kv"}.get(name)  # fmt: skip
    if other in entries:
      return entries[other]
    raise AttributeError(f"The config has no entry {name}.")

  def to_dict(self) -> dict[str, Any]:
    """The entries, as config.json has them."""
    return {name: x.to_dict() if isinstance(x, Config) else x for name, x in vars(self).items()}


def entries_of(config: Any) -> dict[str, Any]:
  """The entries of a dict, of a `Config` or of a config of transformers."""
  if isinstance(config, Mapping):
    return dict(config)
  if hasattr(config, "to_dict"):
    return config.to_dict()
  raise UserError(f"config is {shown(config)}. It must be a dict, a zoo.compat.Config or a config of transformers.")


def merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
  """Both, section by section; where both have an entry, the second's."""
  both = {name: merged(first[name], second[name]) for name in first.keys() & second.keys()
          if _is_section(name, first[name]) and _is_section(name, second[name])}  # fmt: skip
  return {**first, **second, **both}


def _is_section(name: str, value: Any) -> bool:
  return name.endswith("_config") and isinstance(value, Mapping)
