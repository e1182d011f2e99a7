"""Writes the weights of a finished run into the package, in half precision: zoo/weights/NAME.

    python train.py --config=configs/clip_emoji.py
    python scripts/ship_weights.py runs/clip_emoji

They lie beside their model.json, the run's config.json and their SHA-256.
"""

import argparse
import hashlib
import pathlib
import shutil

import jax
import jax.numpy as jnp

import zoo
from zoo.errors import exits_with_one_line

WEIGHTS = pathlib.Path(zoo.__file__).parent / "weights"


@exits_with_one_line
def main(arguments: list[str] | None = None) -> int:
  """Copies what the arguments say; returns the exit status."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
  parser.add_argument("run", type=pathlib.Path, help="the folder of a finished run")
  parser.add_argument("--to", type=pathlib.Path, help="the new folder (zoo/weights/NAME)")
  options = parser.parse_args(arguments)
  folder = options.to or WEIGHTS / options.run.name
  model, params = zoo.load(options.run)
  zoo.save(folder, model, jax.tree.map(lambda array: array.astype(jnp.float16), params))
  shutil.copy(options.run / "config.json", folder)
  digest = hashlib.sha256((folder / "params.safetensors").read_bytes()).hexdigest()
  (folder / "SHA256SUMS").write_text(f"{digest}  params.safetensors\n")
  return 0


if __name__ == "__main__":
  raise SystemExit(main())
