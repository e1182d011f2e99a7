"""A file of prompts of mixed lengths: `zoo.generate --prompts` beside transformers' `generate` in static batches.

python -m benchmarks.generate_file                       500 prompts, a GPT-2 of 124 million parameters, up to 64 tokens
python -m benchmarks.generate_file --prompts 60 --batches 32

The same weights and prompts, greedy. transformers gets the prompts sorted by length, left-padded, in batches of each of
--batches; the best of them counts. In the first row every text has all its tokens; in the second any of --ends tokens
ends a text, so that texts have different lengths, as answers do. The zoo's first run compiles; it is in a column
of its own.
"""

import json
import pathlib
import sys
import tempfile
from collections.abc import Sequence

import numpy as np

from benchmarks import sides
from benchmarks.generate import MODELS


def prompts_of(count: int, longest: int, vocab_size: int) -> list[list[int]]:
  """Prompts of 8 to `longest` tokens."""
  rng = np.random.default_rng(0)
  return [rng.integers(2, vocab_size, length).tolist() for length in rng.integers(8, longest + 1, count)]


def ends_of(count: int, vocab_size: int) -> list[int]:
  """The tokens that end a text."""
  return np.random.default_rng(1).permutation(vocab_size)[:count].tolist()


def ours(folder: str):
  """-> run(...): ours, a file in and a file out."""
  import jax

  import zoo
  from zoo.generate.from_file import answer_file

  model, params = zoo.load(folder)

  def run(prompts: Sequence[list[int]], new_tokens: int, ends: list[int], batch: int) -> dict:
    with tempfile.TemporaryDirectory() as place:
      file, out = pathlib.Path(place) / "prompts.jsonl", pathlib.Path(place) / "answers.jsonl"
      file.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
      options = {"max_new_tokens": new_tokens, "eos": ends or None}
      answer_file(
        model, params, file, out, tokens_of=list, options_of=lambda length: options, text_of=str, settings={},
        batch_size=batch, rng=jax.random.key(0),
      )  # fmt: skip
      return {"new": [json.loads(line)["tokens"] for line in out.read_text().splitlines()]}

  return run


def theirs(folder: str):
  """-> run(...): torch transformers', in static batches of prompts of about one length."""
  import torch
  import transformers

  device = "cuda" if torch.cuda.is_available() else "cpu"
  model = transformers.GPT2LMHeadModel.from_pretrained(folder).to(device).eval()

  def run(prompts: Sequence[list[int]], new_tokens: int, ends: list[int], batch: int) -> dict:
    model.generation_config.eos_token_id = ends or None
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    new: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(order), batch):
      rows = order[start : start + batch]
      width = max(len(prompts[row]) for row in rows)
      tokens = torch.zeros((len(rows), width), dtype=torch.long)
      mask = torch.zeros_like(tokens)
      for place, row in enumerate(rows):
        tokens[place, width - len(prompts[row]) :] = torch.tensor(prompts[row])
        mask[place, width - len(prompts[row]) :] = 1
      with torch.inference_mode():
        out = model.generate(
          tokens.to(device), attention_mask=mask.to(device), max_new_tokens=new_tokens, do_sample=False, pad_token_id=0
        )
      for row, text in zip(rows, out[:, width:].tolist()):
        length = next((place for place, token in enumerate(text, start=1) if token in ends), len(text))
        new[row] = text[:length]
    return {"new": new}

  return run


def same(mine: Sequence[list[int]], other: Sequence[list[int]]) -> dict:
  """How many texts are equal, and how many of the tokens before the first difference of each."""
  agreed = [next((i for i, pair in enumerate(zip(a, b)) if len(set(pair)) > 1), len(a)) for a, b in zip(mine, other)]
  equal = sum(a == b for a, b in zip(mine, other)) / len(mine)
  return {"same_texts": equal, "tokens_before_a_difference": sum(agreed) / sum(map(len, mine))}


def rows(
  parts: dict, prompts: Sequence[list[int]], cases: dict, *, new_tokens: int, batch: int, batches: Sequence[int]
):
  """The table's: one for each of `cases`, name -> tokens that end a text; `parts`: "ours" and maybe "theirs"."""
  found = []
  for name, ends in cases.items():
    case = {"prompts": prompts, "new_tokens": new_tokens, "ends": ends}
    first, _ = parts["ours"](**case, batch=batch)
    seconds, mine = parts["ours"](**case, batch=batch)
    tokens = sum(map(len, mine["new"]))
    row = {"texts": name, "tokens": tokens, "ours_seconds": seconds, "ours_first_seconds": first}
    if "theirs" in parts:
      runs = {size: parts["theirs"](**case, batch=size) for size in batches}
      best = min(runs, key=lambda size: runs[size][0])
      row |= {"theirs_seconds": runs[best][0], "their_batch": best, "ratio": seconds / runs[best][0]}
      row |= {"ratio_first": first / runs[best][0], **same(mine["new"], runs[best][1]["new"])}
    found.append(row)
  return found


def main(argv: list[str]) -> int:
  """Compares, prints the table and writes it."""
  parser = sides.parser(__doc__)
  parser.add_argument("--prompts", type=int, default=500, help="how many (500)")
  parser.add_argument("--longest", type=int, default=128, help="tokens of the longest prompt (128)")
  parser.add_argument("--new-tokens", type=int, default=64, help="of each text at most (64)")
  parser.add_argument("--ends", type=int, default=1500, help="tokens that end a text, of 50,257 (1500)")
  parser.add_argument("--batch", type=int, default=64, help="ours (64)")
  parser.add_argument("--batches", type=int, nargs="+", default=[16, 32, 64], help="theirs (16 32 64)")
  flags = parser.parse_args(argv)
  device, cpu = sides.devices()
  threads = flags.threads if cpu else None
  size = MODELS["gpt"][flags.size or ("small" if cpu else "published")]
  options = {"family": "gpt", "size": size, "sharp": 3.0}
  with sides.of_one_folder(sides.writer, ours, theirs, threads, **options) as parts:
    prompts = prompts_of(flags.prompts, flags.longest, 50257)
    cases = {"all of one length": [], "of several lengths": ends_of(flags.ends, 50257)}
    found = rows(parts, prompts, cases, new_tokens=flags.new_tokens, batch=flags.batch, batches=flags.batches)
  title = f"{flags.prompts} prompts of 8 to {flags.longest} tokens, gpt {size}"
  sides.report(title, found, device, threads, flags.out)
  return 0


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
