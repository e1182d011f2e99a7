"""Writes text: python -m zoo.generate --model FOLDER_OR_ID --prompt "Once upon a time"

--model is a run, a folder in the hub's layout or an id of the hub. Without --prompt, every line of standard input is
one.
A decoder's text is printed as it comes, behind its prompt; an encoder-decoder's answer stands alone.
"""

import argparse
import sys
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from zoo.errors import UserError, exits_with_one_line, setting_up
from zoo.generate.decoding import generate
from zoo.generate.steps import encodes
from zoo.hub.files import is_published
from zoo.hub.ids import folder_of
from zoo.hub.tokenizers import load_tokenizer
from zoo.saving import MODEL, load


class Parser(argparse.ArgumentParser):
  """One whose complaints are one line."""

  def error(self, message):
    """Raises a UserError."""
    raise UserError(f"{message}. --help lists the flags.")


def parser() -> argparse.ArgumentParser:
  """The flags."""
  found = Parser(prog="python -m zoo.generate", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
  found.add_argument("--model", required=True, help="a run's folder, a published model's folder, or an id of the hub")
  found.add_argument("--prompt", action="append", help="a text to go on from, or to answer; may be given several times")
  found.add_argument("--tokenizer", help="another than the model's own: a name or a path")
  found.add_argument("--max-new-tokens", type=int, default=100, help="how many tokens at most (100)")
  found.add_argument("--temperature", type=float, default=0.0, help="0 takes the likeliest token (0)")
  found.add_argument("--top-k", type=int, help="draw among the k likeliest tokens")
  found.add_argument("--top-p", type=float, help="draw among the likeliest that hold this much probability")
  found.add_argument("--min-p", type=float, help="draw among those at least this fraction as likely as the likeliest")
  found.add_argument("--repetition-penalty", type=float, help="above 1: says again less often what was said")
  found.add_argument("--no-repeat-ngram", type=int, help="so many tokens in a row do not occur twice")
  found.add_argument("--num-beams", type=int, default=1, help="above 1: beam search (1)")
  found.add_argument("--length-penalty", type=float, default=1.0, help="of beam search (1)")
  found.add_argument("--seed", type=int, default=0, help="of the draws (0)")
  found.add_argument("--dtype", help="of the parameters, e.g. bfloat16")
  found.add_argument("--traceback", action="store_true", help="show where an error comes from")
  return found


@exits_with_one_line
def main(argv: list[str]) -> int:
  """Writes what the arguments ask for; 0 when all is well."""
  flags = parser().parse_args(argv)
  with setting_up():
    model, params = load(flags.model, dtype=flags.dtype)
    tokenizer = load_tokenizer(flags.tokenizer or flags.model)
    folder = folder_of(flags.model)
    # Of a run a text stands behind an end, as in the training stream; else the tokenizer knows what goes around it.
    own = (folder / MODEL).exists() or not is_published(folder)
  options = {
    name: getattr(flags, name)
    for name in ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "no_repeat_ngram", "num_beams")
  }
  options |= {"max_new_tokens": flags.max_new_tokens, "length_penalty": flags.length_penalty}
  for number, prompt in enumerate(prompts(flags.prompt)):
    key = jax.random.fold_in(jax.random.key(flags.seed), number)
    write(model, params, tokenizer, prompt, own, rng=key, **options)
  return 0


def prompts(given: list[str] | None) -> Iterable[str]:
  """Those of the command line, or the lines of standard input as they come."""
  if given is not None:
    return given
  return (line.rstrip("\n") for line in sys.stdin)


def write(model: Any, params: Any, tokenizer: Any, prompt: str, own: bool, **options: Any) -> None:
  """Prints one text, as it comes where it can."""
  eos = tokenizer.eos if tokenizer.eos is not None else tokenizer.sep
  if encodes(model) or not own:
    tokens = tokenizer([prompt])["tokens"]
    if not tokens.shape[1]:
      tokens = np.array([[tokenizer.bos if tokenizer.bos is not None else (eos or 0)]])
  else:
    tokens = np.array([[*(() if eos is None else (eos,)), *tokenizer.encode(prompt)]])
  ends = () if eos is None else (eos,)
  said: list[int] = []
  shown = 0

  def show(new: Iterable[int], last: bool = False) -> None:
    """Prints what is certain: bytes that are no whole letter yet wait for the next token."""
    nonlocal shown
    said.extend(token for token in new if token not in ends)
    text = tokenizer.decode(said)
    if last or not text.endswith("\ufffd"):
      print(text[shown:], end="", flush=True)
      shown = len(text)

  if not encodes(model):
    print(prompt, end="", flush=True)
  stream = None if options["num_beams"] > 1 else (lambda new: show(new.tolist()))
  out = generate(model, params, tokens, eos=eos, stream=stream, **options)
  if stream is None:
    begin = 1 if encodes(model) else tokens.shape[1]
    show(until(np.asarray(out)[0, begin:].tolist(), ends), last=True)
  else:
    show((), last=True)
  print()


def until(tokens: list[int], ends: tuple[int, ...]) -> list[int]:
  """Those before the first of `ends`."""
  return next((tokens[:i] for i, token in enumerate(tokens) if token in ends), tokens)


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
