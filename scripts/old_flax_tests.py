"""Counts which tests of transformers 4's own Flax classes pass with those of zoo.compat.

    git clone --depth 1 --branch v4.48.3 https://github.com/huggingface/transformers TREE
    pip install --target PACKAGES --no-deps tokenizers==0.21.4 huggingface_hub==0.36.0 timeout-decorator parameterized
    PYTHONPATH=PACKAGES python scripts/old_flax_tests.py TREE clip bert t5 --keep FOLDER

TREE is a checkout of a version with the Flax classes (4.44 to 4.52): its src, tests and utils; PACKAGES are the
dependencies of that version and its tests. Each model's test file runs in two processes: with their classes, and after
`zoo.compat.install()`. Prints a row per test class, and the tests that pass with theirs alone. Tests that download from
the hub fail with both if there is no network (at once with HF_HUB_OFFLINE=1). With --keep, outcomes and pytest's
output are cached in FOLDER and not run again: after a change remove FOLDER/*.ours.json. Set
JAX_COMPILATION_CACHE_DIR to save time.
"""

import argparse
import collections
import json
import os
import pathlib
import subprocess
import sys
import tempfile


class Outcomes:
  """A pytest plugin that records the outcome of each test."""

  def __init__(self):
    self.found: dict[str, str] = {}

  def pytest_runtest_logreport(self, report):
    """Called by pytest, for each phase of each test."""
    name = "::".join(report.nodeid.split("::")[1:3])
    if report.when == "call" or report.outcome != "passed":
      before = self.found.get(name)
      self.found[name] = report.outcome if before in (None, "passed") else before


def run(kind: str, tree: pathlib.Path, model: str, chosen: str, out: pathlib.Path) -> None:
  """Runs a model's tests with the classes "ours" or "theirs", in its own process, and writes their outcomes."""
  import pytest

  sys.path[:0] = [str(tree / "src"), str(tree)]
  import zoo.compat.installing

  if kind == "ours":
    zoo.compat.install()
  else:
    with_old_names()
  os.chdir(tree)
  outcomes = Outcomes()
  options = ["-q", "-p", "no:cacheprovider", "--rootdir", str(tree), "-W", "ignore", "--tb=short", "-k", chosen]
  pytest.main([*options, f"tests/models/{model}/test_modeling_flax_{model}.py"], plugins=[outcomes])
  out.write_text(json.dumps(outcomes.found))


def with_old_names() -> None:
  """Restores removed names of JAX, without which their classes do not import."""
  import jax
  import jax.numpy as jnp

  import zoo.compat.installing

  jnp.clip = zoo.compat.installing.clip_with_old_keywords()
  array = jnp.zeros(0)
  for kind in (type(array), type(jax.typeof(array))):  # Tracers have the methods of their type.
    if not hasattr(kind, "split"):
      kind.split = kind._split


def both(tree: pathlib.Path, model: str, chosen: str, keep: pathlib.Path) -> dict[str, dict[str, str]]:
  """{"theirs": test -> outcome, "ours": likewise}"""
  found = {}
  for kind in ("theirs", "ours"):
    out = keep / f"{model}.{kind}.json"
    if not out.is_file():
      command = [sys.executable, __file__, str(tree), model, "-k", chosen, "--one", kind, "--out", str(out)]
      with out.with_suffix(".txt").open("w") as said:
        subprocess.run(command, check=False, stdout=said)
    if not out.is_file():
      sys.exit(f"The tests of {model} did not run with {kind}: {' '.join(command)}")
    found[kind] = json.loads(out.read_text())
  return found


def main() -> None:
  """Runs the tests and prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("tree", type=lambda path: pathlib.Path(path).resolve())
  parser.add_argument("models", nargs="+")
  parser.add_argument("-k", dest="chosen", default="", help="of pytest: which tests")
  parser.add_argument("--keep", type=pathlib.Path, help="a folder for what became of each test")
  parser.add_argument("--one", choices=("ours", "theirs"), help=argparse.SUPPRESS)
  parser.add_argument("--out", type=pathlib.Path, help=argparse.SUPPRESS)
  options = parser.parse_args()
  if options.one:
    return run(options.one, options.tree, options.models[0], options.chosen, options.out)
  with tempfile.TemporaryDirectory() as folder:
    keep = pathlib.Path(folder) if options.keep is None else options.keep.resolve()
    keep.mkdir(parents=True, exist_ok=True)
    print_table(options.tree, options.models, options.chosen, keep)
  return None


def print_table(tree: pathlib.Path, models: list[str], chosen: str, keep: pathlib.Path) -> None:
  """Prints a row per test class, and the total."""
  passed: collections.Counter = collections.Counter()
  print("class of tests | theirs: passed, failed, skipped | ours | of theirs that pass, ours pass")
  for model in models:
    found = both(tree, model, chosen, keep)
    for name in sorted({test.partition("::")[0] for test in found["theirs"]}):
      counts = {kind: collections.Counter(outcome for test, outcome in tests.items() if test.startswith(f"{name}::"))
                for kind, tests in found.items()}  # fmt: skip
      good = [test for test, outcome in found["theirs"].items() if test.startswith(f"{name}::") and outcome == "passed"]
      lost = [test for test in good if found["ours"].get(test) != "passed"]
      passed.update(theirs=len(good), ours=len(good) - len(lost))
      rows = (" ".join(str(counts[kind][o]) for o in ("passed", "failed", "skipped")) for kind in ("theirs", "ours"))
      print(name, *rows, f"{len(good) - len(lost)} of {len(good)}", sep=" | ", flush=True)
      print(*(f"  only with theirs: {test}" for test in lost), sep="\n", end="\n" * bool(lost), flush=True)
  print(f"in all {passed['ours']} of {passed['theirs']}: {100 * passed['ours'] / max(passed['theirs'], 1):.1f} %")


if __name__ == "__main__":
  main()
