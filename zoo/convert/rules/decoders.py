"""Shared by conversion tables of decoders: rotary positions, kinds of layers, heads."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from zoo.convert.rules.layouts import Rule, linear
from zoo.convert.rules.options import Options
from zoo.convert.rules.reference import Reference
from zoo.errors import UserError

# Entries that each kind of rotary positions reads in the reference, which ignores the rest.
ROPE = Reference(
  {},
  frozenset(
    """attention_factor beta_fast beta_slow factor high_freq_factor long_factor low_freq_factor mscale mscale_all_dim
    mrope_interleaved mrope_section original_max_position_embeddings partial_rotary_factor rope_theta rope_type
    short_factor truncate type""".split()
  ),
  {},
  {},
)
_KINDS = {"full_attention": "global", "sliding_attention": "local"}


def heads_and_pad(options: Options, sizes: Mapping[str, Any], pad: int | None = None) -> dict[str, Any]:
  """Fills null head counts and head_dim, and reads the padding token; `pad` is the reference's default."""
  filled = {"pad": options.nullable("pad_token_id", pad)}
  if options.nullable("num_key_value_heads", sizes["num_kv_heads"]) is None:
    filled["num_kv_heads"] = sizes["num_heads"]
  if sizes["head_dim"] is None and sizes["num_heads"] > 0:
    filled["head_dim"] = sizes["dim"] // sizes["num_heads"]
  if filled["pad"] is not None and filled["pad"] < 0:  # Not a token id.
    filled["pad"] = None
  return filled


def rope(options: Options, max_length: int, theta: float = 10_000.0) -> dict[str, Any]:
  """`theta` and `rope`, from either spelling: rope_theta and rope_scaling, or rope_parameters.

  Args:
    max_length: max_position_embeddings, the default of the original training length.
    theta: the reference's default.
  """
  theta = options.take("rope_theta", theta, (int, float))
  options.must_be("partial_rotary_factor", 1.0, None)
  trained = options.take("original_max_position_embeddings", None, int)
  new, old = (options.section(name, ROPE) for name in ("rope_parameters", "rope_scaling"))
  return rope_of(old if old.entries else new, max_length, theta, trained)


def rope_of(section: Options, max_length: int, theta: float, trained: int | None = None) -> dict[str, Any]:
  """`theta` and `rope` from one section; `trained`: the original training length, if given elsewhere."""
  kind = section.take("rope_type", section.take("type", "default"))
  rope: dict[str, Any] = {"theta": float(section.take("rope_theta", theta, (int, float)))}
  section.must_be("partial_rotary_factor", 1.0, None)
  length = section.take("original_max_position_embeddings", max_length)
  length = length if trained is None else trained

  def number(name: str, default: float | None = None) -> float:
    value = section.take(name, default, (int, float))
    if value is None:
      raise UserError(f"{section.where}: rope_type {kind!r} needs {name}.")
    return float(value)

  if kind == "default":
    rope["rope"] = None
  elif kind == "linear":
    rope["rope"] = {"name": kind, "factor": number("factor")}
  elif kind == "dynamic":
    rope["rope"] = {"name": kind, "factor": number("factor"), "trained_length": max_length}
  elif kind == "llama3":
    low, high = number("low_freq_factor"), number("high_freq_factor")
    rope["rope"] = {"name": kind, "factor": number("factor"), "trained_length": length, "low": low, "high": high}
  elif kind == "yarn":
    factor = number("factor", max_length / length)
    rope["rope"] = {"name": kind, "factor": factor, "trained_length": length, **_yarn(section, factor)}
  else:
    raise section.refusal("rope_type", kind, ("default", "linear", "dynamic", "llama3", "yarn"))
  section.done()
  return rope


def _yarn(section: Options, factor: float) -> dict[str, Any]:
  amplitude = section.take("attention_factor", None, (int, float))
  up, down = (section.take(name, None, (int, float)) for name in ("mscale", "mscale_all_dim"))
  if amplitude is None and up and down and factor > 1:
    amplitude = (0.1 * up * math.log(factor) + 1) / (0.1 * down * math.log(factor) + 1)
  fast, slow = (section.take(name, default) or default for name, default in (("beta_fast", 32.0), ("beta_slow", 1.0)))
  return {"fast": fast, "slow": slow, "amplitude": amplitude, "truncate": section.take("truncate", True)}


def rope_entries(sizes: Mapping[str, Any]) -> dict[str, Any]:
  """Inverse of `rope`: config entries that all versions of the reference read."""
  return {"rope_theta": sizes["theta"], "rope_scaling": rope_section(sizes["rope"], sizes["max_length"])}


def rope_section(rope: Mapping[str, Any] | None, max_length: int) -> dict[str, Any] | None:
  """A rope_scaling section in the reference's format; None if there is no scaling."""
  if rope is None:
    return None
  if rope["name"] == "dynamic" and rope["trained_length"] != max_length:
    raise UserError(
      f"The hub's dynamic rope is trained at max_length {max_length}, this one is trained at "
      f"{rope['trained_length']}. Make them "
      "the same."
    )
  section = {"rope_type": rope["name"], "factor": rope["factor"]}
  if rope["name"] in ("llama3", "yarn"):
    section["original_max_position_embeddings"] = rope["trained_length"]
  if rope["name"] == "llama3":
    section |= {"low_freq_factor": rope.get("low", 1.0), "high_freq_factor": rope.get("high", 4.0)}
  if rope["name"] == "yarn":
    section |= {"beta_fast": rope.get("fast", 32.0), "beta_slow": rope.get("slow", 1.0)}
    section |= {"attention_factor": rope.get("amplitude"), "truncate": rope.get("truncate", True)}
  return section


def layer_kinds(options: Options, local: Sequence[bool]) -> list[str]:
  """The shortest repeating pattern of "local" and "global" in layer_types; `local`: the default pattern."""
  kinds = options.take("layer_types", None, list)
  if kinds is None:
    kinds = ["sliding_attention" if near else "full_attention" for near in local]
  unknown = [kind for kind in kinds if not isinstance(kind, str) or kind not in _KINDS]
  if unknown:
    raise options.refusal("layer_types", unknown[0], _KINDS)
  if len(kinds) != len(local):
    raise UserError(f"{options.where}: layer_types names {len(kinds)} layers, num_hidden_layers is {len(local)}.")
  return [_KINDS[kind] for kind in shortest_turn(kinds)]


def shortest_turn(kinds: Sequence[str]) -> list[str]:
  """The shortest list that repeats to this one."""
  periods = range(1, len(kinds) + 1)
  period = next((n for n in periods if all(kind == kinds[i % n] for i, kind in enumerate(kinds))), 0)
  return list(kinds[:period])


def layer_types(pattern: Sequence[str], depth: int) -> list[str]:
  """Inverse of `layer_kinds`: the reference's type of each layer."""
  reference_names = {ours: reference_names for reference_names, ours in _KINDS.items()}
  return [reference_names[pattern[i % len(pattern)]] for i in range(depth)]


def head_rules(sizes: Mapping[str, Any]) -> list[Rule]:
  """Rules of the heads of `zoo/models/llama.py`."""
  return {
    "lm": [] if sizes["tied"] else linear("logits", "lm_head", bias=False),
    "classify": linear("classify", "score", bias=False),
    "classify_tokens": linear("classify_tokens", "score"),
    "question_answering": linear("answer", "qa_outputs"),
    None: [],
  }[sizes["head"]]
