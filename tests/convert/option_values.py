"""Other values of the entries of a config.json, for a hunt through what they change."""

from collections.abc import Iterator, Mapping
from typing import Any

from zoo.convert.rules import reference

ACTIVATIONS = ("relu", "gelu", "gelu_new", "silu", "quick_gelu", "tanh", "gelu_pytorch_tanh")
STRINGS = {
  "feed_forward_proj": ("relu", "gated-gelu", "gated-silu", "gelu"),
  "dense_act_fn": ACTIVATIONS,
  "summary_type": ("first", "mean", "last"),
  "summary_activation": ("tanh",),
  "classifier_pooling": ("cls", "mean"),
  "position_embedding_type": ("absolute", "relative_key"),
  "problem_type": ("regression", "multi_label_classification"),
  "pooler_act": ("tanh", "relu"),
}
# What says where files are, which of them to read, or how they are read, and is looked at elsewhere.
ELSEWHERE = frozenset(
  """architectures attn_implementation _attn_implementation configuration_files dtype model_type output_attentions
  return_dict torch_dtype transformers_version transformers_weights quantization_config auto_map""".split()
)
# What the reference's classes hold beside fields.
OF_CLASSES = (
  "attribute_map", "base_", "config_class", "default_", "extra_", "has_no_defaults", "ignore_keys", "init_kwargs",
  "keys_to_ignore", "per_layer", "push_to_hub", "serialize", "sub_configs", "validate", "allow_global",
)  # fmt: skip
ROPES = (
  {"rope_type": "linear", "factor": 3.0, "rope_theta": 500.0},
  {"rope_type": "dynamic", "factor": 3.0, "rope_theta": 10000.0},
  {"rope_type": "default", "rope_theta": 77.0, "partial_rotary_factor": 0.5},
  {"rope_type": "default", "rope_theta": 77, "factor": 4.0},
  {"type": "linear", "factor": 2},
  {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8,
  },
  {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8},
  {"rope_type": "longrope", "factor": 4.0, "short_factor": [1.0], "long_factor": [2.0]},
)  # fmt: skip


def values(name: str, value: Any) -> Iterator[Any]:
  """Other values of an entry, valid ones among them."""
  if name in STRINGS:
    yield from STRINGS[name]
  elif name in ("rope_parameters", "rope_scaling"):
    yield from ROPES
  elif name == "layer_types" or isinstance(value, list) and value and isinstance(value[0], str):
    for kinds in (["full_attention"], ["sliding_attention"], ["sliding_attention", "full_attention"]):
      yield [kinds[i % len(kinds)] for i in range(len(value) if isinstance(value, list) else 3)]
  elif name in ("id2label", "label2id"):
    yield {"0": "a", "1": "b", "2": "c"} if name == "id2label" else {"a": 0}
  elif name.endswith("act") or "activation" in name and "dropout" not in name or isinstance(value, str):
    yield from ACTIVATIONS
  elif isinstance(value, bool):
    yield not value
  elif isinstance(value, int):
    yield from (value + 1, value * 2, max(value // 2, 1), 0)
  elif isinstance(value, float):
    yield from (3 * value + 0.1, value / 2, 2)
  elif isinstance(value, list):
    yield from ([0], [1, 2])
  elif isinstance(value, dict):
    yield from ({"0": [1]}, {})
  else:
    yield from (True, 2)
  if value is not None:
    yield None


def entries(config: Mapping[str, Any], everything: bool) -> Iterator[tuple[tuple[str, ...], Any]]:
  """(path of an entry, its value) of a config as it is written in full.

  With `everything` also of all that the reference knows of such a config and that is not in it.
  """
  known = reference.of(config["model_type"]) if isinstance(config.get("model_type"), str) else None
  more = {**known.defaults, **dict.fromkeys(known.reads)} if everything and known else {}
  for name, value in sorted({**more, **config}.items()):
    if name in ELSEWHERE:
      continue
    if isinstance(value, dict) and "model_type" in value:
      yield from (((name, *path), inner) for path, inner in entries(value, False))
    elif not name.startswith("_") and not name.startswith(OF_CLASSES):
      yield (name,), value


def changed(config: Mapping[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
  """The config with another value at this path."""
  name, *rest = path
  return {**config, name: changed(config[name], tuple(rest), value) if rest else value}
