"""Dropout rates of a published config.json that training does not use."""

from collections.abc import Iterator, Mapping
from typing import Any

from zoo.convert.rules import reference


def other_rates(config: Mapping[str, Any], sizes: Mapping[str, Any]) -> dict[str, float]:
  """Dropout entries of a parsed config.json that differ from the model's.

  The zoo drops values at one rate, `dropout`, and layers at `drop_path`; the reference has a rate for attention
  weights, one for a classifier, one for whole layers and others, which change nothing but training.

  Args:
    config: as the file has it; what it leaves out is the reference's default.
    sizes: of the model, with `dropout` and `drop_path`.

  >>> other_rates({"model_type": "bert", "attention_probs_dropout_prob": 0.0}, {"dropout": 0.1, "drop_path": 0.0})
  {'attention_probs_dropout_prob': 0.0}
  """
  known = reference.of(str(config.get("model_type")))
  rates = dict(_rates({**({} if known is None else known.fields), **config}))
  used = lambda name: sizes["drop_path"] if "drop_path" in name else 0.0 if "layerdrop" in name else sizes["dropout"]
  return {name: rate for name, rate in sorted(rates.items()) if rate != used(name)}


def _rates(config: Mapping[str, Any], front: str = "") -> Iterator[tuple[str, float]]:
  for name, value in config.items():
    if isinstance(value, Mapping) and name.endswith("_config"):
      yield from _rates(value, f"{front}{name}.")
    elif "drop" in name and isinstance(value, int | float) and not isinstance(value, bool):
      yield front + name, value
