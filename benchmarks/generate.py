"""Tokens from `zoo.generate` and from torch transformers' `generate`: the same weights and prompts, with caches.

python -m benchmarks.generate                       a GPT-2 of 124 million parameters
python -m benchmarks.generate --family=t5           an encoder-decoder
python -m benchmarks.generate --num-beams=4         beam search

Prompts are of 17 to 32 tokens, another length every time. Ours pads them to 24 or 32, for which it has compiled before.
Without torch and transformers (extra `parity`) ours runs alone.
"""

import contextlib
import dataclasses
import statistics
import sys
from typing import Any

import numpy as np

from benchmarks import sides

WARM_UP = (17, 32)  # Lengths of prompts for which ours compiles.
MODELS = {
  "gpt": {
    "small": dict(vocab_size=50257, max_length=1024, dim=768, depth=12, num_heads=12),
    "published": dict(variant="gpt2-medium"),
  },
  "t5": {
    "small": dict(vocab_size=32128, dim=512, depth=6, num_heads=8, head_dim=64, mlp_dim=2048),
    "published": dict(variant="t5-base"),
  },
}


@dataclasses.dataclass(frozen=True)
class Prompt:
  """What is asked for.

  number: of the prompt, from which its tokens follow.
  first: only the first token is wanted.
  """

  number: int
  batch: int
  length: int
  new_tokens: int
  num_beams: int = 1
  first: bool = False

  def tokens(self, vocab_size: int) -> np.ndarray:
    """int32 [batch, length]"""
    rng = np.random.default_rng(self.number)
    return rng.integers(2, vocab_size, (self.batch, self.length), dtype=np.int32)


class Enough(Exception):
  """The first token is there."""


def ours(folder: str):
  """-> run(prompt): ours, from a folder in the hub's layout."""
  import zoo

  model, params = zoo.load(folder)

  def run(prompt: Prompt) -> dict:
    def stop(tokens: Any) -> None:
      raise Enough

    tokens, streaming = prompt.tokens(model.vocab_size), {"stream": stop} if prompt.first else {}
    options = {"max_new_tokens": prompt.new_tokens, "num_beams": prompt.num_beams}
    with contextlib.suppress(Enough):
      out = np.asarray(zoo.generate(model, params, tokens, **options, **streaming))
      return {"new": out[:, -prompt.new_tokens :]}
    return {}

  return run


def theirs(folder: str):
  """-> run(prompt): torch transformers', from the same folder."""
  import torch
  import transformers

  device = "cuda" if torch.cuda.is_available() else "cpu"
  architecture = transformers.AutoConfig.from_pretrained(folder).architectures[0]
  model = getattr(transformers, architecture).from_pretrained(folder).to(device).eval()
  model.generation_config.eos_token_id = None  # Texts do not end before their time.

  class First:
    """A streamer: of a decoder the prompt comes first, and of an encoder-decoder its start token."""

    seen = 0

    def put(self, value: Any) -> None:
      """Of each step."""
      self.seen += 1
      if self.seen == 2:
        raise Enough

    def end(self) -> None:
      """Never."""

  def run(prompt: Prompt) -> dict:
    tokens = torch.tensor(prompt.tokens(model.config.vocab_size), dtype=torch.long, device=device)
    options: dict = dict(max_new_tokens=prompt.new_tokens, num_beams=prompt.num_beams, do_sample=False, use_cache=True)
    with contextlib.suppress(Enough):
      out = model.generate(
        tokens, attention_mask=torch.ones_like(tokens), pad_token_id=0, streamer=First() if prompt.first else None,
        **options,
      )  # fmt: skip
      return {"new": out[:, -prompt.new_tokens :].cpu().numpy()}
    return {}

  return run


def rows(parts: dict, *, batches: list[int], new_tokens: int, repeats: int, num_beams: int = 1) -> list[dict]:
  """The table's: for each batch the whole text, then the first token. parts: {"ours": run, "theirs": run}, or ours."""
  other = "theirs" if "theirs" in parts else None
  found, number = [], 0
  for batch in batches:
    for first in (False, True) if num_beams == 1 else (False,):
      rounds = []
      for i, length in enumerate([*WARM_UP, *np.random.default_rng(0).integers(17, 33, repeats).tolist()]):
        number += 1
        prompt = Prompt(number, batch, length, new_tokens, num_beams, first)
        measured = next(sides.alternate(parts if i % 2 else dict(reversed(parts.items())), 1, {"prompt": prompt}))
        rounds += [measured] if i >= len(WARM_UP) else []
      row: dict = {"batch": batch, "until": "the first token" if first else f"{new_tokens} tokens"}
      row |= sides.compared(rounds, "ours", other)
      if not first:
        row["ours_per_second"] = batch * new_tokens / row["ours_seconds"]
        if other:
          same = [(one["ours"][1]["new"] == one["theirs"][1]["new"]).mean() for one in rounds]
          row |= {"theirs_per_second": batch * new_tokens / row["theirs_seconds"], "same_tokens": statistics.mean(same)}
      found.append(row)
  return found


def main(argv: list[str]) -> int:
  """Compares, prints the table and writes it."""
  parser = sides.parser(__doc__)
  parser.add_argument("--family", choices=MODELS, default="gpt", help="gpt or t5 (gpt)")
  parser.add_argument("--batches", type=int, nargs="+", default=[1, 8], help="how many prompts at once (1 8)")
  parser.add_argument("--new-tokens", type=int, default=128, help="of each prompt (128)")
  parser.add_argument("--num-beams", type=int, default=1, help="above 1: beam search (1)")
  parser.add_argument("--repeats", type=int, default=5, help="how often both take their turn (5)")
  flags = parser.parse_args(argv)
  device, cpu = sides.devices()
  threads = flags.threads if cpu else None
  size = MODELS[flags.family][flags.size or ("small" if cpu else "published")]
  options = {"family": flags.family, "size": size, "sharp": 3.0}
  with sides.of_one_folder(sides.writer, ours, theirs, threads, **options) as parts:
    found = rows(
      parts, batches=flags.batches, new_tokens=flags.new_tokens, repeats=flags.repeats, num_beams=flags.num_beams
    )
  sides.report(f"generate, {flags.family} {size}", found, device, threads, flags.out)
  return 0


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
