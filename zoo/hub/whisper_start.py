"""Start tokens of a Whisper from its generation_config.json: language, task, no timestamps."""

from collections.abc import Mapping
from typing import Any

from zoo.errors import UserError, did_you_mean, shown

TASKS = ("translate", "transcribe")
# Names of languages as in such files, with _ for a space, and their codes.
_NAMED = """
    afrikaans=af albanian=sq amharic=am arabic=ar armenian=hy assamese=as azerbaijani=az bashkir=ba basque=eu
    belarusian=be bengali=bn bosnian=bs breton=br bulgarian=bg burmese=my cantonese=yue castilian=es catalan=ca
    chinese=zh croatian=hr czech=cs danish=da dutch=nl english=en estonian=et faroese=fo finnish=fi flemish=nl
    french=fr galician=gl georgian=ka german=de greek=el gujarati=gu haitian=ht haitian_creole=ht hausa=ha
    hawaiian=haw hebrew=he hindi=hi hungarian=hu icelandic=is indonesian=id italian=it japanese=ja javanese=jw
    kannada=kn kazakh=kk khmer=km korean=ko lao=lo latin=la latvian=lv letzeburgesch=lb lingala=ln lithuanian=lt
    luxembourgish=lb macedonian=mk malagasy=mg malay=ms malayalam=ml maltese=mt mandarin=zh maori=mi marathi=mr
    moldavian=ro moldovan=ro mongolian=mn myanmar=my nepali=ne norwegian=no nynorsk=nn occitan=oc panjabi=pa
    pashto=ps persian=fa polish=pl portuguese=pt punjabi=pa pushto=ps romanian=ro russian=ru sanskrit=sa
    serbian=sr shona=sn sindhi=sd sinhala=si sinhalese=si slovak=sk slovenian=sl somali=so spanish=es
    sundanese=su swahili=sw swedish=sv tagalog=tl tajik=tg tamil=ta tatar=tt telugu=te thai=th tibetan=bo
    turkish=tr turkmen=tk ukrainian=uk urdu=ur uzbek=uz valencian=ca vietnamese=vi welsh=cy yiddish=yi yoruba=yo
"""
CODES = {name: code for name, _, code in (pair.partition("=") for pair in _NAMED.split())}


def start_tokens(entries: Mapping[str, Any], start: int, forced: Any, where: str) -> list[int | list[int]]:
  """The tokens before the transcript, as in the reference's `generate` for one recording.

  Args:
    entries: of generation_config.json, unchecked.
    start: the first token.
    forced: forced_decoder_ids, pairs of an index from 1 and a token or None; used without language and task.
    where: name of the file in messages.

  Returns:
    tokens; a nested list means the likeliest of its tokens.

  Raises:
    UserError: a language or task without token in the file, or invalid tables.
  """
  language, task = entries.get("language"), entries.get("task")
  languages, tasks = (_table(entries, name, where) for name in ("lang_to_id", "task_to_id"))
  tokens: list[Any] = [start]
  if task is None and language is None:
    for expected, (at, token) in enumerate(forced or (), 1):
      if at != expected:
        raise UserError(f"{where}: forced_decoder_ids has position {at} where {expected} is next. Leave none out.")
      tokens.append(token)
  tongue: Any = None
  if language is not None:
    tongue = _language(language, languages, where)
  elif languages is not None and (len(tokens) == 1 or tokens[1] is None):
    tongue = sorted(set(languages.values()))
  if tongue is not None:
    tokens[1:2] = [tongue]
  if task is not None:
    if task not in TASKS or not tasks or task not in tasks:
      raise UserError(f"{where}: task is {shown(task)}. It must be one of {', '.join(TASKS)}, and be in task_to_id.")
    tokens.append(tasks[task])
  elif language is not None and tasks and not any(token in tokens for token in tasks.values()):
    if "transcribe" not in tasks:
      raise UserError(f"{where}: task_to_id has no 'transcribe', which is the default task.")
    tokens.append(tasks["transcribe"])
  timeless = entries.get("no_timestamps_token_id")
  if timeless is not None:
    tokens += [_token(timeless, "no_timestamps_token_id", where)] * (tokens[-1] != timeless)
  return [token for token in tokens if token is not None]


def _language(language: Any, languages: Mapping[str, int] | None, where: str) -> int:
  if not isinstance(language, str) or not languages:
    raise UserError(f"{where}: language is {shown(language)}. It must be the name of a language in lang_to_id.")
  name = language.lower()
  code = CODES.get(name.replace(" ", "_"), name)
  token = languages.get(name, languages.get(f"<|{code}|>"))
  if token is None:
    near = did_you_mean(name, CODES)
    raise UserError(f"{where}: language is {shown(language)}, which is not in lang_to_id.{near}")
  return token


def _table(entries: Mapping[str, Any], name: str, where: str) -> dict[str, int] | None:
  """A table name -> token, if the file has it."""
  table = entries.get(name)
  if table is None:
    return None
  if not isinstance(table, Mapping) or not table:
    raise UserError(f"{where}: {name} is {shown(table)}. It must map names to token ids.")
  return {key: _token(value, name, where) for key, value in table.items()}


def _token(value: Any, name: str, where: str) -> int:
  if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
    raise UserError(f"{where}: {name} has {shown(value)}, not a token id.")
  return value
