"""What functions and classes do, in a line, beside the rest of what their docstrings say, out of Python packages.

The first sentence is the summary, everything below it the text. Packages repeat themselves and each other, so
docstrings are grouped before they are split: those with the same summary, the same beginning of the text, or of
functions of the same name share a split.
"""

import ast
import hashlib
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

PACKAGES = ("sympy", "networkx", "jax", "flax", "optax", "keras", "xarray", "dask", "nltk", "django", "numpyro")
PACKAGES += ("tensorflow-probability",)
SUMMARY_WORDS = range(3, 25)
TEXT_WORDS = range(15, 100_000)
VOCAB = 4196  # tokens of the tokenizer, special ones counted
LARGE = 100  # Groups larger than this train: one of them could be most of a split.


def summaries(packages: Iterable[zipfile.ZipFile]) -> dict[str, list[dict]]:
  """split -> rows with source (the text), target (the summary), name and package. A tenth tests, a tenth validates."""
  rows: dict[tuple[str, str], dict] = {}
  for package in packages:
    for row in rows_of(package):
      rows.setdefault((letters(row["source"]), letters(row["target"])), row)
  return split(list(rows.values()), keys)


def split(rows: list[dict], keys: Callable[[dict], list[str]]) -> dict[str, list[dict]]:
  """split -> its rows: a tenth tests, a tenth validates, and rows that share a key stay together."""
  groups = grouped([keys(row) for row in rows])
  sizes = Counter(groups)
  found: dict[str, list[dict]] = {"train": [], "validation": [], "test": []}
  for row, group in zip(rows, groups):
    first = min(keys(rows[group]))
    tenth = int(hashlib.sha256(first.encode()).hexdigest(), 16) % 10
    name = {0: "test", 1: "validation"}.get(tenth, "train")
    found["train" if sizes[group] > LARGE else name].append(row)
  return found


def rows_of(package: zipfile.ZipFile) -> Iterator[dict]:
  """Of every public function, class and method of a wheel that has a summary and a text, tests left out."""
  for name in sorted(package.namelist()):
    if not name.endswith(".py") or re.search(r"(^|/)(tests?|testing|test_\w+|\w+_test|conftest)(/|\.py$)", name):
      continue
    try:
      tree = ast.parse(package.read(name))
    except (SyntaxError, ValueError):
      continue  # Templates, and files for older Pythons.
    for node in ast.walk(tree):
      if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
        summary, text = halves(ast.get_docstring(node) or "")
        if len(summary.split()) in SUMMARY_WORDS and len(text.split()) in TEXT_WORDS and summary.endswith("."):
          yield {"source": text, "target": summary, "name": node.name, "package": name.partition("/")[0]}


def halves(docstring: str) -> tuple[str, str]:
  """The first paragraph and the rest, each with single blanks."""
  summary, _, text = docstring.strip().partition("\n\n")
  return " ".join(summary.split()), " ".join(text.split())


def keys(row: dict) -> list[str]:
  """Docstrings that have one of these in common are of one group."""
  beginning = " ".join(letters(row["source"]).split()[:12])
  return [f"name {row['name'].lower()}", f"summary {letters(row['target'])}", f"text {beginning}"]


def grouped(all_keys: list[list[str]]) -> list[int]:
  """For each entry the first entry that it is connected with by keys in common, directly or over others."""
  parents, owner = list(range(len(all_keys))), {}

  def root(entry: int) -> int:
    while parents[entry] != entry:
      parents[entry] = entry = parents[parents[entry]]
    return entry

  for entry, names in enumerate(all_keys):
    for name in names:
      first, second = sorted((root(entry), root(owner.setdefault(name, entry))))
      parents[second] = first
  return [root(entry) for entry in range(len(all_keys))]


def tokenizer(texts: Iterable[str], vocab: int = VOCAB, spans: int = 100) -> str:
  """A tokenizer.json: byte pairs learnt from texts, and T5's special tokens, of which `spans` are sentinels."""
  import tokenizers

  learner = tokenizers.Tokenizer(tokenizers.models.BPE())
  learner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
  learner.decoder = tokenizers.decoders.ByteLevel()
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=vocab - spans,
    special_tokens=["<pad>", "</s>"],
    initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
    show_progress=False,
  )
  learner.train_from_iterator(texts, trainer)
  learner.add_special_tokens(
    [f"<extra_id_{number}>" for number in reversed(range(spans))]
  )  # T5: the first is the last.
  return learner.to_str()


def letters(text: str) -> str:
  """What two texts have in common that differ in signs and capitals alone."""
  return re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()
