"""Answers a file of prompts: `python -m zoo.generate --prompts=FILE.jsonl --out=OUT.jsonl`."""

import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from zoo.errors import UserError, setting_up, shown
from zoo.generate import checks
from zoo.generate.continuous import Answer, Request, continuous
from zoo.generate.decoding import generate
from zoo.generate.prompt_file import AnswerFile, PromptFile, planned
from zoo.generate.rules import Constraints
from zoo.generate.steps import encodes

# Of beam search only; `continuous` has no use for them.
OF_BEAMS = ("num_beams", "length_penalty", "early_stopping")


def answer_file(
  model: Any,
  params: Any,
  prompts_path: str | os.PathLike,
  out: str | os.PathLike,
  *,
  tokens_of: Callable[[str], Sequence[int]],
  options_of: Callable[[int], dict[str, Any]],
  text_of: Callable[[Sequence[int]], str],
  settings: Mapping[str, Any],
  batch_size: int,
  rng: jax.Array,
) -> int:
  """Writes the answers that are not there yet -> how many prompts the file has.

  Args:
    model, params: as of `generate`.
    prompts_path, out: the files, as `zoo.generate.prompt_file` has them.
    tokens_of: a text as tokens.
    options_of: keywords of `generate` for a prompt of so many tokens; they differ in max_new_tokens alone.
    text_of: new tokens as text.
    settings: what the answers depend on: those of a file that was begun must be the same.
    batch_size: texts at a time.
    rng: a key; prompt i draws with `fold_in(rng, i)`.

  Raises:
    UserError: a line is no prompt, a prompt is too long, or the file of answers is of something else.
  """
  if jax.process_count() > 1:
    raise UserError(f"--prompts is for one process, and there are {jax.process_count()}. Give each its own file.")
  with setting_up():
    checks.decodes(model)
    prompts = PromptFile(prompts_path)
    options = dict(options_of(1))
    check_options(model, options, rng, batch_size)
    read = lambda fields: fields["prompt"] if isinstance(fields["prompt"], list) else tokens_of(fields["prompt"])
    lengths, limits = planned(prompts, _checked(model, read), _limit(model, options_of))
    if options_of(int(lengths.max())) | {"max_new_tokens": 0} != options | {"max_new_tokens": 0}:
      raise UserError("The model's min_length counts prompts, which are of several lengths. Give --min-new-tokens.")
    answers = AnswerFile(out, prompts, settings)
  with answers:
    left = np.flatnonzero(~answers.done)
    if len(left):
      order = left[np.argsort(-lengths[left], kind="stable")]
      requests = (Request(int(i), read(prompts[int(i)]), int(limits[i])) for i in order)
      options |= {"rng": rng if options.get("temperature") else None}
      options.pop("max_new_tokens"), options.pop("num_return", None)
      if options.get("num_beams", 1) > 1:
        found = _searched(model, params, order, limits, lambda i: read(prompts[i]), batch_size, options)
      else:
        options = {name: value for name, value in options.items() if name not in OF_BEAMS}
        longest, most = int(lengths[left].max()), int(limits[left].max())
        sizes: dict[str, Any] = {"longest": longest, "max_new_tokens": most, "batch_size": batch_size}
        found = continuous(model, params, requests, **sizes, **options)
      for answer in tqdm(found, total=len(prompts), initial=len(prompts) - len(left), desc="Prompts", file=sys.stderr):
        answers.write(answer.number, text_of(answer.tokens), answer.tokens, answer.ended)
    answers.sort()
  return len(prompts)


def check_options(model: Any, options: Mapping[str, Any], rng: jax.Array, batch_size: int) -> None:
  """UserError for arguments, rng among them, that `generate` or `continuous` would refuse once the file exists."""
  checks.number("batch_size", batch_size, integer=True, minimum=1)
  checks.cache_dtype_is_known(options.get("cache_dtype"))
  temperature, draws = options.get("temperature", 0.0), ("top_k", "top_p", "min_p")
  penalty = options.get("length_penalty", 1.0)
  checks.numbers(
    temperature=temperature, rng=rng, length_penalty=penalty, **{name: options.get(name) for name in draws}
  )  # fmt: skip
  checks.constraints_fit(model, {name: options[name] for name in Constraints.__annotations__ if name in options})
  checks.beams_fit(
    model,
    num_beams=options.get("num_beams", 1),
    num_return=None,
    early_stopping=options.get("early_stopping", False),
    temperature=temperature,
    stream=None,
    return_scores=False,
  )
  checks.vocabulary_holds(model, eos=_ends(options.get("eos")))


def _checked(model: Any, read: Callable) -> Callable:
  """`read`, whose tokens are those of the model."""
  vocab_size = getattr(model, "source_vocab_size", model.vocab_size)

  def tokens(fields: dict[str, Any]) -> Sequence[int]:
    ids = read(fields)
    checks.tokens_fit(np.asarray([ids]), None, "The prompt's tokens", vocab_size=vocab_size)
    return ids

  return tokens


def _limit(model: Any, options_of: Callable[[int], dict[str, Any]]) -> Callable[[int, int | None], int]:
  """(tokens of a prompt, what its line asks for) -> how many new ones it gets, which fit into the model."""

  def limit(length: int, most: int | None) -> int:
    most = options_of(length)["max_new_tokens"] if most is None else most
    if encodes(model):
      longest = model.encoder.max_length
      if longest is not None and length > longest:
        raise UserError(f"An input of {length} tokens exceeds the encoder's max_length {longest}. Crop it.")
      checks.length_fits(model, 1, most)
    else:
      checks.length_fits(model, length, most)
    return most

  return limit


def _searched(
  model: Any, params: Any, order: np.ndarray, limits: np.ndarray, read: Callable, size: int, options: dict[str, Any]
) -> Iterator[Answer]:
  """Answers by beam search, in batches of prompts that get equally many new tokens."""
  ends = _ends(options.get("eos"))
  for most in np.unique(limits[order])[::-1].tolist():
    same = order[limits[order] == most].tolist()
    for start in range(0, len(same), size):
      numbers = same[start : start + size]
      rows = [read(number) for number in numbers]
      shape = (size, max(map(len, rows)))
      tokens, valid = np.zeros(shape, np.int32), np.zeros(shape, bool)
      for place, row in enumerate([*rows, *rows[:1] * (size - len(rows))]):
        tokens[place, : len(row)], valid[place, : len(row)] = row, True
      out = np.asarray(generate(model, params, tokens, valid=valid, max_new_tokens=most, **options))[:, -most:]
      for number, row in zip(numbers, out.tolist()):
        length = next((place for place, token in enumerate(row, start=1) if token in ends), len(row))
        yield Answer(number, row[:length], row[length - 1] in ends)


def _ends(eos: Any) -> tuple[int, ...]:
  return () if eos is None else tuple(eos) if isinstance(eos, Iterable) else (eos,)


def default_out(prompts: str) -> str:
  """Beside the prompts: `questions.jsonl` -> `questions.answers.jsonl`."""
  path = pathlib.Path(prompts)
  if not path.name:
    raise UserError(f"--prompts is {shown(prompts)}, not a file. Name a file of JSON Lines.")
  return str(path.with_name(f"{path.stem}.answers{path.suffix or '.jsonl'}"))
