"""How a published model is meant to be generated with: its generation_config.json as keywords of `zoo.generate`."""

import os
from collections.abc import Mapping
from typing import Any

from zoo.errors import UserError, shown
from zoo.hub.files import CONFIG, is_published, read_json
from zoo.hub.ids import folder_of
from zoo.options import Options

FILE = "generation_config.json"
ENCODER_DECODERS = frozenset("bart marian mt5 t5 umt5 whisper".split())

# Theirs -> ours, and of what kind: those that mean the same.
SAME = {
  "eos_token_id": ("eos", (int, list)),
  "pad_token_id": ("pad", int),
  "num_beams": ("num_beams", int),
  "length_penalty": ("length_penalty", (int, float)),
  "early_stopping": ("early_stopping", (bool, str)),
  "no_repeat_ngram_size": ("no_repeat_ngram", int),
  "repetition_penalty": ("repetition_penalty", (int, float)),
  "min_new_tokens": ("min_new_tokens", int),
  "max_new_tokens": ("max_new_tokens", int),
  "suppress_tokens": ("suppress", list),
  "begin_suppress_tokens": ("suppress_first", list),
}
# Those that count where tokens are drawn, and what they are where the file does not say.
DRAWN = {"temperature": 1.0, "top_k": 50, "top_p": 1.0, "min_p": None}
OTHERS = frozenset(
  """bad_words_ids do_sample forced_bos_token_id forced_decoder_ids forced_eos_token_id max_length min_length
  num_return_sequences""".split()
)
# What changes no token: bookkeeping, how the reference computes and what it returns, guesses of a draft model (which
# leave the distribution as it is), and Whisper's tables of tokens.
HARMLESS = frozenset(
  """_from_model_config alignment_heads assistant_confidence_threshold assistant_early_exit assistant_lookbehind
  bos_token_id cache_config cache_implementation compile_config continuous_batching_config decoder_start_token_id
  disable_compile is_assistant is_multilingual lang_to_id language low_memory max_cache_len max_initial_timestamp_index
  max_matching_ngram_size no_timestamps_token_id num_assistant_tokens num_assistant_tokens_schedule output_attentions
  output_hidden_states output_logits output_scores prefill_chunk_size prev_sot_token_id prompt_lookup_num_tokens
  remove_invalid_values return_dict_in_generate target_lookbehind task task_to_id transformers_version
  use_cache""".split()
)
# What has a value that changes nothing, and is not implemented with another one.
NEUTRAL = {
  "diversity_penalty": 0.0, "encoder_no_repeat_ngram_size": 0, "encoder_repetition_penalty": 1.0, "epsilon_cutoff": 0.0,
  "eta_cutoff": 0.0, "guidance_scale": 1.0, "num_beam_groups": 1, "penalty_alpha": 0.0, "renormalize_logits": False,
  "return_timestamps": False, "token_healing": False, "typical_p": 1.0, "use_mtp": False,
}  # fmt: skip

# What `generate` does where nothing is said.
AS_IT_IS: dict[str, Any] = {
  "num_beams": 1, "length_penalty": 1.0, "early_stopping": False, "no_repeat_ngram": 0, "repetition_penalty": 1.0,
  "top_p": 1.0, "min_new_tokens": 0, "suppress": [], "suppress_first": [], "forced": {},
}  # fmt: skip


def load_generation_options(source: str | os.PathLike) -> dict[str, Any]:
  """How a published model is meant to be generated with, as keywords of `zoo.generate`:

      zoo.generate(model, params, tokens, **{"max_new_tokens": 100, **zoo.load_generation_options(source)})

  Args:
    source: a folder in the hub's layout, an id of the hub, or a run's folder, of which nothing is known.

  Returns:
    what its generation_config.json says (config.json, where older models have it): ends, beams, penalties, forced and
    suppressed tokens, and temperature, top_k, top_p and min_p where it draws (give an `rng` then). max_new_tokens is
    among them if the file has it, or a max_length and the model is an encoder-decoder. Nothing that is as `generate`
    has it anyway.

  Raises:
    UserError: the file is damaged, or asks for what `generate` does not do.
  """
  folder = folder_of(source)
  if not is_published(folder):
    return {}
  config = read_json(folder / CONFIG)
  if (folder / FILE).is_file():
    return options(read_json(folder / FILE), config, str(folder / FILE))
  known = SAME.keys() | DRAWN.keys() | OTHERS | NEUTRAL.keys()
  return options({name: value for name, value in config.items() if name in known}, config, str(folder / CONFIG))


def options(entries: Mapping[str, Any], config: Mapping[str, Any], where: str) -> dict[str, Any]:
  """Keywords of `generate` from the parsed files; `where` names the first of them in a message."""
  entries = {name: value for name, value in entries.items() if value is not None}
  for name, value in entries.items():
    known = name in SAME or name in DRAWN or name in OTHERS or name in HARMLESS
    if not known and not (name in NEUTRAL and value == NEUTRAL[name]):
      raise UserError(
        f"{where}: {name} is {shown(value)}, which zoo.generate does not do. Remove it there, or give generate its "
        "keywords yourself."
      )
  take = Options(entries, where).take

  def tokens(name: str, value: Any) -> list[int]:
    if not all(isinstance(token, int) and not isinstance(token, bool) for token in value):
      raise UserError(f"{where}: {name} is {shown(value)}. It must be a list of tokens.")
    return value

  found = {ours: take(theirs, kind=kind) for theirs, (ours, kind) in SAME.items() if theirs in entries}
  ends = found.get("eos", [])
  ends = tokens("eos_token_id", ends if isinstance(ends, list) else [ends])
  for theirs in ("suppress_tokens", "begin_suppress_tokens"):
    ours, _ = SAME[theirs]
    # A Whisper's list may begin with -1, which is no token.
    found[ours] = [token for token in tokens(theirs, found.get(ours, [])) if token >= 0]
  if found.get("pad", 0) < 0:
    del found["pad"]

  if take("do_sample", False):
    drawn = {name: take(name, default, (int, float)) for name, default in DRAWN.items()}
    found |= drawn | {"top_k": int(drawn["top_k"]) or None}
  for words in take("bad_words_ids", []):
    if not isinstance(words, list) or len(words) != 1:
      raise UserError(
        f"{where}: bad_words_ids has {shown(words)}. zoo.generate suppresses single tokens; write a rule for words of "
        "several (zoo.generate.rules)."
      )
    found["suppress"] += [token for token in tokens("bad_words_ids", words) if token not in ends]

  forced: dict[int, int] = {}
  for pair in take("forced_decoder_ids", []):
    if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[0], int) or pair[0] < 1:
      raise UserError(
        f"{where}: forced_decoder_ids has {shown(pair)}. It must hold pairs of a place from 1 and a token."
      )
    if pair[1] is not None:  # A Whisper chooses its language itself.
      forced[pair[0] - 1] = tokens("forced_decoder_ids", pair)[1]
  for name, place in (("forced_bos_token_id", 0), ("forced_eos_token_id", -1)):
    token = take(name, kind=(int, list))
    if isinstance(token, list) and len(token) != 1:
      raise UserError(f"{where}: {name} is {shown(token)}. zoo.generate forces one token at a place.")
    if token is not None:
      forced[place] = tokens(name, token if isinstance(token, list) else [token])[0]
  found["forced"] = forced

  longest, least = take("max_length", kind=int), take("min_length", 0)
  if config.get("is_encoder_decoder") or config.get("model_type") in ENCODER_DECODERS:
    # Theirs count the token that the answer begins with.
    if longest is not None and longest > 1:
      found.setdefault("max_new_tokens", longest - 1)
    found["min_new_tokens"] = max(found.get("min_new_tokens", 0), least - 1)
  elif least:
    raise UserError(f"{where}: min_length is {least}, which counts the prompt. Use min_new_tokens instead.")
  if take("num_return_sequences", 1) > 1:
    found["num_return"] = entries["num_return_sequences"]
  return {
    name: value
    for name, value in found.items()
    if value is not None and not (name in AS_IT_IS and value == AS_IT_IS[name])
  }
