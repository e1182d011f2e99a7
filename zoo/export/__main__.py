"""Writes a model as programs that run without the zoo: python -m zoo.export --model=FOLDER_OR_ID --out=FOLDER"""

import sys

from zoo.config.overrides import help_text, literal, require, split
from zoo.errors import exits_with_one_line, setting_up
from zoo.export.programs import PLATFORMS, export
from zoo.hosts.libtpu import silence_libtpu
from zoo.hosts.process import run

FLAGS = {
  "model": "a run's folder, a published model's folder, or a hub id",
  "out": "folder for the files",
  "what": "embed or generate; by default what the model is for",
  "platforms": f"with commas between them ({','.join(PLATFORMS)})",
  "max_length": "tokens at most, of a model that writes: prompt and answer",
  "dtype": "of the weights, e.g. bfloat16",
  "ignore": "entries of a published model's config.json to leave unread, with commas between them",
}


@exits_with_one_line
def main(argv: list[str]) -> int:
  """Exports the model that the arguments name; returns 0 on success."""
  silence_libtpu()
  flags, _ = split(argv, FLAGS)
  flags.pop("traceback")
  if flags.pop("help"):
    print(help_text("python -m zoo.export --model=FOLDER_OR_ID --out=FOLDER [--OPTION=VALUE ...]", FLAGS))
    return 0
  require(flags, ("model", "out"), FLAGS)
  words = lambda name: [word for word in flags.get(name, "").split(",") if word]
  with setting_up():
    signature = export(
      flags["model"],
      flags["out"],
      what=flags.get("what"),
      platforms=words("platforms") or PLATFORMS,
      max_length=literal(flags.get("max_length", "None")),
      dtype=flags.get("dtype"),
      ignore=words("ignore"),
    )
  print(f"{flags['out']} has {', '.join(signature['programs'])} for {', '.join(signature['platforms'])}.")
  return 0


if __name__ == "__main__":
  run(main, sys.argv[1:])
