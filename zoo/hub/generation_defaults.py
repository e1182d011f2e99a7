"""Default generation settings: those of `generate` and of the reference's config classes."""

from collections.abc import Collection, Mapping
from typing import Any

from zoo.convert.rules import reference

# Defaults of `generate`.
AS_IT_IS: dict[str, Any] = {
  "num_beams": 1, "length_penalty": 1.0, "early_stopping": False, "no_repeat_ngram": 0, "repetition_penalty": 1.0,
  "top_p": 1.0, "min_new_tokens": 0, "suppress": [], "suppress_first": [], "forced": {},
}  # fmt: skip


def class_defaults(config: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
  """Defaults of the reference's config class for generation entries: BART's forced_eos_token_id, Whisper's suppressed
  tokens. Tokens outside the vocabulary are left out: the defaults are those of large vocabularies.

  >>> class_defaults({"model_type": "bart"}, ("eos_token_id", "decoder_start_token_id", "num_beams"))
  {'eos_token_id': 2, 'decoder_start_token_id': 2}
  >>> class_defaults({"model_type": "gpt2", "vocab_size": 257}, ("eos_token_id",))
  {}
  """
  model_type = config.get("model_type")
  known = reference.of(model_type) if isinstance(model_type, str) else None
  fields = {} if known is None else known.fields
  vocab_size = config.get("vocab_size", fields.get("vocab_size"))
  if not isinstance(vocab_size, int):
    return {}
  fits = lambda token: not isinstance(token, int) or token < vocab_size
  defaults = {}
  for name in names:
    value = fields.get(name)
    value = [token for token in value if fits(token)] if isinstance(value, list | tuple) else value
    if value is not None and fits(value):
      defaults[name] = value
  return defaults
