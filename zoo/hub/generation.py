"""A published model's generation_config.json as keywords of `zoo.generate`."""

import os
import pathlib
import warnings
from collections.abc import Collection, Mapping
from typing import Any

from zoo.convert.rules import reference
from zoo.convert.rules.options import Options, check_ignored, has_entry, offer
from zoo.errors import UserError, shown
from zoo.hub.files import CONFIG, is_published, read_json
from zoo.hub.files import GENERATION as FILE
from zoo.hub.generation_defaults import AS_IT_IS, class_defaults
from zoo.hub.generation_numbers import DRAWN, NEUTRAL_DRAWN, add_lengths, drawn, unused_drawn, whisper_places
from zoo.hub.ids import folder_of
from zoo.hub.whisper_start import start_tokens

ENCODER_DECODERS = frozenset("bart marian mt5 t5 umt5 whisper".split())

# Entries with the same meaning: name there -> (name here, type).
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
OTHERS = frozenset(
  """bad_words_ids bos_token_id cache_implementation decoder_start_token_id do_sample forced_bos_token_id
  forced_decoder_ids forced_eos_token_id max_length min_length num_return_sequences""".split()
)
# Entries that only Whisper reads: its start tokens.
WHISPER = frozenset("lang_to_id language no_timestamps_token_id task task_to_id".split())
# Entries that do not affect tokens: bookkeeping, computation and outputs of the reference, speculative decoding (which
# preserves the distribution), and Whisper's timestamps and long-form decoding.
HARMLESS = frozenset(
  """_from_model_config alignment_heads assistant_confidence_threshold assistant_early_exit assistant_lookbehind
  cache_config compile_config continuous_batching_config disable_compile is_assistant is_multilingual low_memory
  max_cache_len max_initial_timestamp_index max_matching_ngram_size median_filter_width num_assistant_tokens
  num_assistant_tokens_schedule output_attentions output_hidden_states output_logits output_scores prefill_chunk_size
  prev_sot_token_id prompt_lookup_num_tokens remove_invalid_values return_dict_in_generate target_lookbehind
  transformers_version use_cache""".split()
)
# Entries supported only with their neutral value.
NEUTRAL = {
  **NEUTRAL_DRAWN, "diversity_penalty": 0.0, "encoder_no_repeat_ngram_size": 0, "encoder_repetition_penalty": 1.0,
  "guidance_scale": 1.0, "num_beam_groups": 1, "penalty_alpha": 0.0, "renormalize_logits": False,
  "return_timestamps": False, "token_healing": False, "use_mtp": False,
}  # fmt: skip


def load_generation_options(
  source: str | os.PathLike, *, prompt_length: int | None = None, ignore: Collection[str] = ()
) -> dict[str, Any]:
  """A published model's recommended generation settings, as keywords of `zoo.generate`:

      stated = zoo.load_generation_options(source, prompt_length=tokens.shape[1])
      zoo.generate(model, params, tokens, **stated)

  Args:
    source: a folder in the hub's layout, a hub id, or a run's folder, which has none.
    prompt_length: for a decoder, the length of its prompt, which the file's max_length and min_length include.
    ignore: entries of the file to ignore.

  Returns:
    the settings in its generation_config.json (in older models config.json): start and end tokens,
    beams, penalties, forced and suppressed tokens, and temperature, top_k, top_p and min_p if it samples (pass an
    `rng` then). max_new_tokens is included if the file has it, or a max_length: a decoder's less the prompt; otherwise
    the default of `generate` applies. Defaults of `generate` are omitted.

  Raises:
    UserError: the file is corrupt, has unsupported entries, or its max_length leaves no space.

  Warns:
    of entries that the reference does not read, and of a decoder's max_length if prompt_length is None.

  >>> import jax
  >>> import zoo
  >>> model = zoo.build("gpt", vocab_size=7, max_length=8, dim=8, depth=1, num_heads=2)
  >>> zoo.save_hf("gpt_of_options", model, model.init(jax.random.key(0), *model.example())["params"])
  >>> _ = pathlib.Path("gpt_of_options/generation_config.json").write_text('{"num_beams": 3, "max_length": 9}')
  >>> zoo.load_generation_options("gpt_of_options", prompt_length=5)
  {'num_beams': 3, 'max_new_tokens': 4}
  """
  entries, config, where = entries_of(folder_of(source), ignore)
  if os.path.basename(where) == CONFIG and "eos_token_id" not in {*config, *ignore}:
    entries |= class_defaults(config, ("eos_token_id",))
  return options(entries, config, where, prompt_length)


def entries_of(folder: pathlib.Path, ignore: Collection[str] = ()) -> tuple[dict[str, Any], dict[str, Any], str]:
  """Reads a published model's generation entries, config.json, and path of the former: arguments of `options`.

  Without a generation_config.json the entries are those of config.json over its class's defaults, except the default
  end-of-text token: a tokenizer knows better.
  """
  if not is_published(folder):
    return {}, {}, ""
  config = read_json(folder / CONFIG)
  if (folder / FILE).is_file():
    entries, where = read_json(folder / FILE), str(folder / FILE)
    check_ignored(ignore, {where: entries})
  else:
    read_names = SAME.keys() | DRAWN.keys() | OTHERS | NEUTRAL.keys()
    entries, where = class_defaults(config, read_names - {"eos_token_id"}), str(folder / CONFIG)
    entries |= {name: value for name, value in config.items() if name in read_names}
  return {name: value for name, value in entries.items() if name not in ignore}, config, where


def ignored(folder: os.PathLike, names: Collection[str]) -> dict[str, list[str]]:
  """Splits names to ignore by the published file that has them, for `zoo.load` and `load_generation_options`."""
  path = pathlib.Path(folder)
  if not names or not is_published(path):
    return {CONFIG: list(names), FILE: []}
  files = {name: read_json(path / name) if (path / name).is_file() else {} for name in (CONFIG, FILE)}
  check_ignored(names, files)
  return {file: [name for name in names if has_entry(entries, name)] for file, entries in files.items()}


def options(
  entries: Mapping[str, Any], config: Mapping[str, Any], where: str, prompt_length: int | None = None
) -> dict[str, Any]:
  """Keywords of `generate` from the parsed files; `where` names the first file in messages."""
  entries = {name: value for name, value in entries.items() if value is not None}
  entries = unused_drawn(entries, where)
  _check_names(entries, where)
  take = Options(entries, where).take
  answers = bool(config.get("is_encoder_decoder")) or config.get("model_type") in ENCODER_DECODERS
  whisper = config.get("model_type") == "whisper"

  keywords = {ours: take(theirs, kind=kind) for theirs, (ours, kind) in SAME.items() if theirs in entries}
  _check_values(keywords, where)
  eos = keywords.get("eos", [])
  eos = [token for token in _tokens("eos_token_id", eos if isinstance(eos, list) else [eos], where, low=None)]
  if any(token < 0 for token in eos):  # These end no text.
    eos = [token for token in eos if token >= 0]
    keywords["eos"] = eos or None
  for theirs in ("suppress_tokens", "begin_suppress_tokens"):
    ours, _ = SAME[theirs]
    # Whisper's list may begin with -1, which is not a token.
    keywords[ours] = [token for token in _tokens(theirs, keywords.get(ours, []), where, low=None) if token >= 0]
  if keywords.get("pad", 0) < 0:
    del keywords["pad"]

  if take("do_sample", False):
    keywords |= drawn(take, where)
  for words in take("bad_words_ids", []):
    if not isinstance(words, list) or len(words) != 1:
      raise UserError(
        f"{where}: bad_words_ids has {shown(words)}. zoo.generate suppresses single tokens only; write a rule for "
        "words of several tokens (zoo.generate.rules)."
      )
    keywords["suppress"] += [token for token in _tokens("bad_words_ids", words, where) if token not in eos]

  keywords["forced"] = _forced(take, where)
  pairs = _pairs(take("forced_decoder_ids", None, list), where)
  if pairs and not whisper:
    raise UserError(
      f"{where}: forced_decoder_ids is {shown(pairs)}, which only Whisper uses. {offer(['forced_decoder_ids'])} Or "
      "give generate `forced`."
    )
  start_token = _start(entries, config, take, pairs, where) if answers else None
  if start_token is not None and start_token != config.get("decoder_start_token_id"):
    keywords["start_token"] = start_token
  num_start_tokens = len(start_token) if isinstance(start_token, list) else 1
  if 0 in keywords["forced"] and not answers and prompt_length is None:
    raise UserError(
      f"{where}: forced_bos_token_id is {shown(entries['forced_bos_token_id'])}. The reference uses it only after a "
      f"prompt of one token: give load_generation_options prompt_length. {offer(['forced_bos_token_id'])}"
    )
  before = num_start_tokens if answers else prompt_length
  if before != 1:  # Likewise only after the first token of an answer.
    keywords["forced"].pop(0, None)

  lengths = take("max_length", kind=int), take("min_length", 0)
  if whisper and lengths[0] is not None:
    lengths = min(lengths[0] + num_start_tokens, whisper_places(config, where)), lengths[1]
  # Their lengths include the start tokens, except Whisper's max_length, and a decoder's prompt.
  add_lengths(keywords, *lengths, before, where)
  if take("num_return_sequences", 1) > 1:
    keywords["num_return"] = entries["num_return_sequences"]
  return {
    name: value
    for name, value in keywords.items()
    if value is not None and not (name in AS_IT_IS and value == AS_IT_IS[name])
  }


def knows(name: str) -> bool:
  """Whether `generate` or the reference reads an entry of this name."""
  read, tables = reference.of_generation(), (SAME, DRAWN, OTHERS, WHISPER, HARMLESS, NEUTRAL)
  return any(name in names for names in (*tables, read.defaults, read.reads))


def _check_names(entries: Mapping[str, Any], where: str) -> None:
  """UserError for entries that `generate` does not support; warns about those that the reference ignores too."""
  generation_entries, passed = reference.of_generation(), []
  for name, value in entries.items():
    if name in SAME or name in DRAWN or name in OTHERS or name in WHISPER or name in HARMLESS:
      continue
    if name in NEUTRAL and value == NEUTRAL[name]:
      continue
    if name in NEUTRAL or generation_entries.changes(name, value):
      raise UserError(
        f"{where}: {name} is {shown(value)}, which zoo.generate does not support. {offer([name])} Or pass the "
        "keywords of generate yourself."
      )
    passed.append(f"{shown(name)[1:-1]}={shown(value)}")
  if entries.get("cache_implementation") == "quantized":
    raise UserError(
      f"{where}: cache_implementation is 'quantized', which zoo.generate does not support. "
      f"{offer(['cache_implementation'])}"
    )
  if passed:
    warnings.warn(f"{where} has {', '.join(passed[:8])}: ignored, since the reference does not use them.", stacklevel=4)


def _check_values(keywords: Mapping[str, Any], where: str) -> None:
  """UserError for values out of range."""
  if keywords.get("early_stopping", False) not in (True, False, "never"):
    raise UserError(
      f"{where}: early_stopping is {shown(keywords['early_stopping'])}. It must be true, false or 'never'."
    )
  least = {"num_beams": 1, "max_new_tokens": 1, "min_new_tokens": 0, "no_repeat_ngram": 0}
  theirs = {ours: name for name, (ours, _) in SAME.items()}
  for ours, value in keywords.items():
    if ours in least and value is not None and value < least[ours]:
      raise UserError(f"{where}: {theirs[ours]} is {value}. It must be at least {least[ours]}.")
  if keywords.get("repetition_penalty", 1) <= 0:
    raise UserError(f"{where}: repetition_penalty is {keywords['repetition_penalty']}. It must be above 0.")


def _forced(take: Any, where: str) -> dict[int, int]:
  """step -> forced token; -1 is the last step."""
  forced: dict[int, int] = {}
  for name, step in (("forced_bos_token_id", 0), ("forced_eos_token_id", -1)):
    token = take(name, kind=(int, list))
    if isinstance(token, list) and len(token) != 1:
      raise UserError(f"{where}: {name} is {shown(token)}. zoo.generate forces one token per step.")
    if token is not None:
      forced[step] = _tokens(name, token if isinstance(token, list) else [token], where)[0]
  return forced


def _start(entries: Mapping[str, Any], config: Mapping[str, Any], take: Any, pairs: list | None, where: str) -> Any:
  """The start token or tokens of an answer; None: the model's own."""
  start = take("decoder_start_token_id", kind=(int, list))
  if isinstance(start, list):
    raise UserError(
      f"{where}: decoder_start_token_id is {shown(start)}, one token per row. Pass decoder_tokens to generate instead."
    )
  start = take("bos_token_id", kind=int) if start is None else start
  if start is None:
    start = config.get("decoder_start_token_id")
  if start is not None:
    _tokens("decoder_start_token_id", [start], where)
  if config.get("model_type") != "whisper":
    return start
  forced = _pairs(config.get("forced_decoder_ids"), where) if pairs is None else pairs
  if start is None:
    start = _whisper_start()
  start_sequence = start_tokens(entries, start, forced, where)
  return start if len(start_sequence) == 1 else start_sequence


def _whisper_start() -> int:
  """The default decoder_start_token_id of Whisper's config."""
  whisper = reference.of("whisper")
  return whisper.defaults["decoder_start_token_id"] if whisper else 50257


def _pairs(pairs: Any, where: str) -> list[tuple[int, int | None]] | None:
  """Validates forced_decoder_ids."""
  for pair in () if pairs is None else pairs if isinstance(pairs, list) else [pairs]:
    if not isinstance(pair, list) or len(pair) != 2 or not _is_token(pair[0], 1):
      raise UserError(
        f"{where}: forced_decoder_ids has {shown(pair)}. It must be a pair of a position from 1 on and a token id."
      )
    if pair[1] is not None:  # Whisper detects the language itself.
      _tokens("forced_decoder_ids", [pair[1]], where)
  return pairs


def _tokens(name: str, value: list, where: str, low: int | None = 0) -> list[int]:
  if not all(_is_token(token, -(2**31) if low is None else low) for token in value):
    raise UserError(f"{where}: {name} is {shown(value)}. It must be a list of token ids.")
  return value


def _is_token(value: Any, low: int) -> bool:
  return isinstance(value, int) and not isinstance(value, bool) and low <= value < 2**31
