"""Generates text: python -m zoo.generate --model FOLDER_OR_ID --prompt "Once upon a time"
or, for many prompts: python -m zoo.generate --model FOLDER_OR_ID --prompts FILE.jsonl --out OUT.jsonl
or, of a model that writes about images: python -m zoo.generate --model FOLDER_OR_ID --image PHOTO.jpg

--model is a run, a folder in the hub's layout or a hub id. Without --prompt, each line of standard input is a
prompt. A decoder's text is streamed after its prompt; an encoder-decoder's answer is printed alone. Special tokens are
not printed. Defaults come from the model's generation_config.json; if that asks for several answers, the best is
printed.

A line of --prompts is a JSON object with `prompt`, a str or a list of tokens, and optionally max_new_tokens; its fields
are copied to its answer's line in --out. Run again with the same flags, an interrupted command resumes.
"""

import argparse
import functools
import pathlib
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from zoo import sharding
from zoo.config.overrides import literal
from zoo.errors import UserError, exits_with_one_line, setting_up, shown
from zoo.generate import checks
from zoo.generate.decoding import generate
from zoo.generate.from_file import answer_file, check_options, default_out
from zoo.generate.prompt_file import digest_of_folder
from zoo.generate.steps import encodes
from zoo.hosts.libtpu import silence_libtpu
from zoo.hosts.process import run
from zoo.hub.files import CONFIG, is_published
from zoo.hub.generation import FILE, entries_of, ignored
from zoo.hub.generation import options as stated_options
from zoo.hub.ids import folder_of
from zoo.hub.preprocessing import load_processor
from zoo.hub.tokenizers import load_tokenizer
from zoo.saving import MODEL, load

# The flags that are keywords of `generate`.
KEYWORDS = (
  "max_new_tokens", "min_new_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "no_repeat_ngram",
  "num_beams", "length_penalty", "suppress", "cache_dtype",
)  # fmt: skip

# Entries of the file that count the prompt too, and the flags that replace them.
COUNTS_ALL = {"max_length": "max_new_tokens", "min_length": "min_new_tokens"}

# Flags that do not change the tokens of an answer.
OF_PLACE = ("prompt", "prompts", "image", "out", "batch_size", "mesh", "sharding", "traceback", "model")


class Parser(argparse.ArgumentParser):
  """ArgumentParser whose errors are one line."""

  def error(self, message):
    """Raises a UserError."""
    raise UserError(f"{message}. --help lists the flags.")


def parser() -> argparse.ArgumentParser:
  """The command's argument parser."""
  flags = Parser(prog="python -m zoo.generate", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
  flags.add_argument("--model", required=True, help="a run's folder, a published model's folder, or a hub id")
  flags.add_argument("--prompt", action="append", help="a prompt to continue or answer; may be repeated")
  flags.add_argument("--image", action="append", metavar="FILE", help="an image to write about; may be repeated")
  flags.add_argument("--prompts", metavar="FILE", help="a file of prompts: JSON Lines with a field prompt")
  flags.add_argument("--out", metavar="FILE", help="where the answers to --prompts go (FILE.answers.jsonl)")
  flags.add_argument("--batch-size", type=int, default=32, help="how many of --prompts at a time (32)")
  flags.add_argument("--mesh", help='devices, as in {"data": 4, "model": 2}; by default the first one')
  flags.add_argument("--sharding", default="replicated", help="strategy of the parameters on --mesh (replicated)")
  flags.add_argument("--tokenizer", help="another than the model's own: a name or a path")
  flags.add_argument("--max-new-tokens", type=int, help="how many tokens at most (100, or as fit in max_length)")
  flags.add_argument("--min-new-tokens", type=int, help="no end-of-sequence token before this many (0)")
  flags.add_argument("--temperature", type=float, help="0 takes the likeliest token (0)")
  flags.add_argument("--top-k", type=int, help="draw among the k likeliest tokens")
  flags.add_argument("--top-p", type=float, help="draw among the likeliest that hold this much probability")
  flags.add_argument("--min-p", type=float, help="draw among those at least this fraction as likely as the likeliest")
  flags.add_argument("--repetition-penalty", type=float, help="above 1: makes repeated tokens less likely")
  flags.add_argument("--no-repeat-ngram", type=int, help="no n-gram of this length occurs twice")
  flags.add_argument("--num-beams", type=int, help="above 1: beam search (1)")
  flags.add_argument("--length-penalty", type=float, help="of beam search (1)")
  flags.add_argument("--suppress", type=int, nargs="+", metavar="TOKEN", help="tokens that are never chosen")
  flags.add_argument(
    "--force",
    type=forced_step,
    nargs="+",
    metavar="STEP=TOKEN",
    help="0=7 last=2: the first new token is 7, the last 2",
  )
  flags.add_argument("--cache-dtype", help="of cached keys and values, e.g. bfloat16 or int8")
  flags.add_argument("--ignore", help="entries of the model's files to leave unread, with commas between them")
  flags.add_argument("--plain", action="store_true", help="leave the model's generation_config.json unread")
  flags.add_argument("--seed", type=seed, default=0, help="of the draws (0)")
  flags.add_argument("--dtype", help="of the parameters, e.g. bfloat16")
  flags.add_argument("--traceback", action="store_true", help="show where an error comes from")
  return flags


def forced_step(text: str) -> tuple[int, int]:
  """STEP=TOKEN, where the step may be `last`."""
  step, token = text.split("=")
  return -1 if step == "last" else int(step), int(token)


def seed(text: str) -> int:
  """A 64-bit int, as `jax.random.key` takes it."""
  value = int(text)
  if not -(2**63) <= value < 2**63:
    raise argparse.ArgumentTypeError(f"{text} has more than 64 bits")
  return value


@exits_with_one_line
def main(argv: list[str]) -> int:
  """Generates text as the arguments say; returns 0 on success."""
  silence_libtpu()
  flags = parser().parse_args(argv)
  with setting_up():
    check_flags(flags)
    folder = folder_of(flags.model)
    ignore = ignored(folder, [] if flags.ignore is None else flags.ignore.split(","))
    mesh = None if flags.mesh is None else sharding.make_mesh(literal(flags.mesh))
    strategy = literal(flags.sharding)
    if mesh is not None:
      sharding.check_axes(mesh, strategy)
    model, params = load(flags.model, dtype=flags.dtype, ignore=ignore[CONFIG], mesh=mesh, strategy=strategy)
    check_source(model, flags)
    # No prompt is cut: what is too long for the model is refused.
    tokenizer = load_tokenizer(flags.tokenizer or flags.model).changed(max_length=None)
    # For a run the prompt follows an end token, as in the training stream; else the tokenizer adds its special tokens.
    is_run = (folder / MODEL).exists() or not is_published(folder)
    keywords = {name: getattr(flags, name) for name in KEYWORDS if getattr(flags, name) is not None}
    if flags.force is not None:
      keywords["forced"] = dict(flags.force)
    entries, config, where = ({}, {}, "") if flags.plain else entries_of(folder, ignore[FILE])
    over = {file_name for file_name, keyword in COUNTS_ALL.items() if keyword in keywords}
    entries = {name: value for name, value in entries.items() if name not in over}
    stated_options(entries, config, where, prompt_length=0)  # Fails and warns before it waits for a prompt.
    rng = jax.random.key(flags.seed)

  def options_of(length: int) -> dict[str, Any]:
    """Keywords of `generate` for a prompt of so many tokens."""
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")  # Already shown above.
      stated = stated_options(entries, config, where, prompt_length=length)
    stated["max_new_tokens"] = length_limit(model, length, stated)
    return {**stated, **keywords}

  if flags.prompts is not None:
    return write_file(model, params, tokenizer, flags, folder, is_run, options_of, rng)
  sources = ((prompt, tokens_of(model, tokenizer, prompt, is_run)) for prompt in prompts(flags.prompt))
  if flags.image is not None:
    processor = load_processor(flags.model)
    sources = ((image, processor([image])["image"]) for image in flags.image)
  for number, (prompt, tokens) in enumerate(sources):
    options = options_of(1 if flags.image else tokens.shape[1])
    # Before the prompt is shown.
    check_options(model, options, rng, flags.batch_size)
    if not encodes(model):
      checks.length_fits(model, tokens.shape[1], options["max_new_tokens"])
    write(model, params, tokenizer, prompt, tokens, rng=jax.random.fold_in(rng, number), **options)
  return 0


def check_flags(flags: argparse.Namespace) -> None:
  """UserError for flags that are empty or exclude each other."""
  if empty := next(
    (name for name, value in vars(flags).items() if value == "" and name not in ("prompt", "out")), None
  ):
    raise UserError(f"--{empty.replace('_', '-')} is empty. Give it a value, or leave it out.")
  if sum(flag is not None for flag in (flags.prompt, flags.prompts, flags.image)) > 1:
    raise UserError("--prompt, --prompts and --image exclude each other. Choose one.")
  if flags.prompts is None and flags.out is not None:
    raise UserError(f"--out is {shown(flags.out)}, but only the answers to --prompts are written to a file.")


def check_source(model: Any, flags: argparse.Namespace) -> None:
  """UserError for images of a model that reads text, or text for another."""
  reads_text, images = np.issubdtype(model.example()[0].dtype, np.integer), hasattr(model, "image_size")
  if flags.image is not None and not images:
    raise UserError(f"--image is {shown(flags.image[0])}, but {flags.model} does not read images. Leave it out.")
  if reads_text or flags.image is not None:
    return
  way_out = "Pass --image." if images else "Sounds: python -m zoo.transcribe."
  raise UserError(f"{flags.model} takes {'images' if images else 'sounds'}, but a prompt is text. {way_out}")


def write_file(
  model: Any,
  params: Any,
  tokenizer: Any,
  flags: argparse.Namespace,
  folder: pathlib.Path,
  is_run: bool,
  options_of: Callable[[int], dict[str, Any]],
  rng: jax.Array,
) -> int:
  """Generates for the file --prompts; returns 0 on success."""
  eos = end_of(tokenizer)

  @functools.cache
  def with_end(length: int) -> dict[str, Any]:
    """`options_of` with the end-of-sequence tokens."""
    options = options_of(length)
    return options | {"eos": options.get("eos", eos)}

  def text_of(tokens: Any) -> str:
    """Decodes new tokens as they are printed for one prompt."""
    stated = with_end(1)["eos"]
    ends = () if stated is None else tuple(stated) if isinstance(stated, list) else (stated,)
    return tokenizer.text_of([token for token in tokens if token not in ends], special=False)

  said = {name: value for name, value in vars(flags).items() if name not in OF_PLACE}
  out = flags.out or default_out(flags.prompts)
  count = answer_file(
    model,
    params,
    flags.prompts,
    out,
    tokens_of=lambda prompt: tokens_of(model, tokenizer, prompt, is_run)[0].tolist(),
    options_of=with_end,
    text_of=text_of,
    settings={"weights": digest_of_folder(folder), **said},
    batch_size=flags.batch_size,
    rng=rng,
  )
  print(f"{out} has the answers to {count:,} prompts.")
  return 0


def prompts(flags: list[str] | None) -> Iterable[str]:
  """The prompts of the command line, or the lines of standard input as they arrive."""
  if flags is not None:
    return flags
  return (line.rstrip("\n") for line in sys.stdin)


def tokens_of(model: Any, tokenizer: Any, prompt: str, is_run: bool) -> np.ndarray:
  """Token ids of a prompt, int [1, length]; is_run: whether it is a run, whose documents follow an end token."""
  eos = end_of(tokenizer)
  if is_run and not encodes(model):
    return np.array([[*(() if eos is None else (eos,)), *tokenizer.encode(prompt)]])
  tokens = tokenizer([prompt])["tokens"]
  return tokens if tokens.shape[1] else np.array([[tokenizer.bos if tokenizer.bos is not None else (eos or 0)]])


def length_limit(model: Any, length: int, stated: dict[str, Any]) -> int:
  """max_new_tokens: from generation_config.json, or the default; limited by the model's max_length."""
  start = stated.get("start_token", 0)
  before = (len(start) if isinstance(start, list) else 1) if encodes(model) else length
  return checks.room(model, before, stated.get("max_new_tokens", checks.NEW_TOKENS))


def end_of(tokenizer: Any) -> int | None:
  """The end-of-text token of a tokenizer."""
  return tokenizer.eos if tokenizer.eos is not None else tokenizer.sep


def write(model: Any, params: Any, tokenizer: Any, prompt: str, tokens: np.ndarray, **options: Any) -> None:
  """Generates and prints the answer to `prompt`, tokens int [1, length]; streams where possible."""
  eos = end_of(tokenizer)
  stated = options.pop("eos", eos)
  ends = () if stated is None else tuple(stated) if isinstance(stated, list) else (stated,)
  options.pop("num_return", None)  # The best one is shown.
  tokens_so_far: list[int] = []
  shown = 0

  def show(new: Iterable[int], last: bool = False) -> None:
    """Prints complete characters; the bytes of an incomplete one wait for the next token."""
    nonlocal shown
    tokens_so_far.extend(token for token in new if token not in ends)
    text = tokenizer.text_of(tokens_so_far, special=False)
    if last or not text.endswith("\ufffd"):
      print(text[shown:], end="", flush=True)
      shown = len(text)

  if not encodes(model):
    print(prompt, end="", flush=True)
  stream = None if options.get("num_beams", 1) > 1 else (lambda new: show(new.tolist()))
  out = generate(model, params, tokens, eos=ends or None, stream=stream, **options)
  if stream is None:
    begin = out.shape[1] - options["max_new_tokens"]
    show(until(np.asarray(out)[0, begin:].tolist(), ends), last=True)
  else:
    show((), last=True)
  print()


def until(tokens: list[int], ends: tuple[int, ...]) -> list[int]:
  """The tokens before the first of `ends`."""
  return next((tokens[:i] for i, token in enumerate(tokens) if token in ends), tokens)


if __name__ == "__main__":
  run(main, sys.argv[1:])
