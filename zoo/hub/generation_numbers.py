"""Sampling parameters and lengths of a generation_config.json."""

import warnings
from collections.abc import Mapping
from typing import Any

from zoo.convert.rules.options import Options, offer
from zoo.errors import UserError, shown

# Sampling parameters and their defaults.
DRAWN = {"temperature": 1.0, "top_k": 50, "top_p": 1.0, "min_p": None}
# Others, which `generate` does not have, and the values with which they change nothing.
NEUTRAL_DRAWN = {"epsilon_cutoff": 0.0, "eta_cutoff": 0.0, "top_h": None, "typical_p": 1.0}


def unused_drawn(entries: Mapping[str, Any], where: str) -> dict[str, Any]:
  """The entries without those that only sampling reads, if there is no sampling; warns about what they would change."""
  neutral = DRAWN | NEUTRAL_DRAWN
  if entries.get("do_sample", False) is not False:
    return dict(entries)
  ignored = [f"{name}={shown(value)}" for name, value in entries.items() if name in neutral and value != neutral[name]]
  if ignored:
    warnings.warn(f"{where} has {', '.join(ignored)}: ignored, since do_sample is not true.", stacklevel=4)
  return {name: value for name, value in entries.items() if name not in neutral}


def drawn(take: Any, where: str) -> dict[str, Any]:
  """The sampling parameters, as keywords of `generate`."""
  values = {name: take(name, default, (int, float)) for name, default in DRAWN.items()}
  if values["temperature"] <= 0:
    raise UserError(f"{where}: temperature is {values['temperature']}. It must be above 0 for sampling.")
  if values["top_k"] < 0 or values["top_k"] != int(values["top_k"]):
    raise UserError(f"{where}: top_k is {values['top_k']}. It must be an int of at least 0; 0 means all tokens.")
  for name in ("top_p", "min_p"):
    if values[name] is not None and not 0 <= values[name] <= 1:
      raise UserError(f"{where}: {name} is {values[name]}. It must be a probability, from 0 to 1.")
  if not values["min_p"]:
    del values["min_p"]
  return values | {"top_k": int(values["top_k"]) or None}


def add_lengths(keywords: dict[str, Any], longest: int | None, least: int, before: int | None, where: str) -> None:
  """Adds max_new_tokens and min_new_tokens; lengths in the file include `before` tokens, None: unknown."""
  if least and "min_new_tokens" not in keywords:
    if before is None:
      raise UserError(
        f"{where}: min_length is {least}, which includes the prompt. Give load_generation_options prompt_length. Or "
        f"use min_new_tokens: {offer(['min_length'])}"
      )
    keywords["min_new_tokens"] = max(0, least - before)
  if longest is None or "max_new_tokens" in keywords:
    return
  if before is None:
    warnings.warn(
      f"{where}: max_length is {longest}, which includes the prompt, so it is ignored. Give load_generation_options "
      "prompt_length, or choose max_new_tokens.",
      stacklevel=4,
    )
  elif longest <= before:
    raise UserError(
      f"{where}: max_length is {longest}, but there are {before} tokens before the first new one. "
      f"{offer(['max_length'])} Then choose max_new_tokens."
    )
  else:
    keywords["max_new_tokens"] = longest - before


def whisper_places(config: Mapping[str, Any], where: str) -> int:
  """The maximum number of target positions of a Whisper."""
  return Options(config, where).take("max_target_positions", 448)
