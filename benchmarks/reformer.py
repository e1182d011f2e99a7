"""A Reformer's training step, forward, backward and AdamW, beside torch transformers': the same weights, one batch.

python -m benchmarks.reformer                 one row of 4,096 tokens, one thread each, CPU time
python -m benchmarks.reformer --steps 4

Ours in a scan, theirs in training mode, which their backward pass needs; neither drops anything. Theirs draws its
rotations anew at every step, so losses are close, not equal.
"""

import functools
import sys

from benchmarks import sides, train_step

LENGTH = 4096
# Of google/reformer-crime-and-punishment, for shorter rows.
SIZE = dict(
  vocab_size=320, max_length=LENGTH, dim=256, depth=6, num_heads=2, head_dim=64, mlp_dim=512,
  axial_shape=[64, LENGTH // 64], axial_dims=[64, 192],
)  # fmt: skip


def theirs(folder: str, batch: dict):
  """-> run(steps): torch transformers', which trains on."""
  import torch
  import transformers

  architecture = transformers.AutoConfig.from_pretrained(folder).architectures[0]
  model = getattr(transformers, architecture).from_pretrained(folder).train()
  optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, fused=True)
  tokens = torch.as_tensor(batch["tokens"]).long()

  def run(steps: int) -> dict:
    losses = []
    for _ in range(steps):
      optimizer.zero_grad(set_to_none=True)
      logits = model(tokens[:, :-1], use_cache=False).logits
      loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
      loss.backward()
      optimizer.step()
      losses.append(loss.detach())
    return {"losses": [float(loss) for loss in losses]}

  return run


def row(parts: dict, *, steps: int, repeats: int) -> dict:
  """The table's row; parts: {"ours", "theirs"}, or ours alone.

  Raises:
    ValueError: the losses of the first step are further apart than hashing explains.
  """
  first = {part: run(steps=1)[1]["losses"][0] for part, run in parts.items()}  # Compiles.
  if max(first.values()) > 1.01 * min(first.values()):
    raise ValueError(f"The sides start at the losses {first}. They are not the same model.")
  rounds = [
    {part: (seconds / steps, found) for part, (seconds, found) in one.items()}
    for one in sides.alternate(parts, repeats, {"steps": steps})
  ]
  return {"model": "reformer", **sides.compared(rounds, "ours", "theirs" if "theirs" in parts else None)}


def main(argv: list[str]) -> int:
  """Compares, prints the table and writes it."""
  parser = sides.parser(__doc__)
  parser.add_argument("--steps", type=int, default=2, help="of each turn (2)")
  parser.add_argument("--repeats", type=int, default=3, help="how often both take their turn (3)")
  flags = parser.parse_args(argv)
  batch = train_step.batch_of("gpt", SIZE, 1, LENGTH)
  ours = functools.partial(train_step.ours, batch=batch, family="reformer", scan=True, dtype=None)
  options = dict(family="reformer", size=SIZE)
  with sides.of_one_folder(
    sides.writer, ours, functools.partial(theirs, batch=batch), flags.threads, **options
  ) as parts:
    found = row(parts, steps=flags.steps, repeats=flags.repeats)
  sides.report("One training step of a Reformer", [found], sides.devices()[0], flags.threads, flags.out)
  return 0


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
