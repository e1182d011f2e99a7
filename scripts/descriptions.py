"""What Debian's packages are, in English and in another language, from the translations that apt fetches.

Translations are matched by the checksum of the English text, paragraphs by their number. Packages repeat each other
("This package holds the header files of ..."), so pairs are grouped before they are split: those that say the same in
either language, but for names and numbers, and those of packages that are built together.
"""

import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import docstrings

LANGUAGES = ("de", "fr", "it")
VOCAB = 8192  # tokens of the tokenizer
WORDS = range(2, 120)
# Read after the machine's own settings, of which images for containers say: no languages.
SETTINGS = """\
Dir::State "{folder}/state";
Dir::State::status "/var/lib/dpkg/status";
Dir::Cache "{folder}/cache";
APT::Sandbox::User "";
APT::Update::Post-Invoke-Success "";
Acquire::GzipIndexes "false";
#clear Acquire::Languages;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
Acquire::Languages {{"en"; "{language}";}};
"""


def fetch(folder: Path, language: str) -> tuple[str, str]:
  """The English descriptions and the translated ones, of the archive that this machine's apt knows.

  apt keeps what it fetches in `folder` and nothing else changes, so anybody may run it, not root alone.
  """
  if shutil.which("apt-get") is None:
    raise SystemExit("translations come from Debian by apt-get, and there is none here. Fetch the other parts.")
  folder = folder.resolve()
  for part in ("state/lists/partial", "cache/archives/partial"):
    (folder / part).mkdir(parents=True, exist_ok=True)
  settings = folder / "apt.conf"
  settings.write_text(SETTINGS.format(folder=folder, language=language))
  done = subprocess.run(["apt-get", f"-c={settings}", "-q", "update"], capture_output=True, text=True)
  if done.returncode:
    raise SystemExit(f"apt-get update failed: {(done.stderr.strip() or 'no reason given').splitlines()[-1]}")
  found = []
  for name in ("en", language):
    files = sorted((folder / "state" / "lists").glob(f"*_i18n_Translation-{name}"))
    if not files:
      raise SystemExit(
        f"The sources of apt on this machine have no descriptions in '{name}'. Add Debian's main archive."
      )
    found.append("\n".join(file.read_text(encoding="utf-8") for file in files))
  return found[0], found[1]


def translations(english: str, other: str, language: str) -> dict[str, list[dict]]:
  """split -> rows with source (English), target, package and kind (title, paragraph). A tenth tests, one validates."""
  rows: dict[tuple[str, str], dict] = {}
  for row in pairs(english, other, language):
    rows.setdefault((row["source"], row["target"]), row)
  return docstrings.split(list(rows.values()), keys)


def pairs(english: str, other: str, language: str) -> Iterator[dict]:
  """Aligned titles and paragraphs, if both descriptions have the same number of them."""
  originals = {checksum: description for checksum, _, description in entries(english, "en")}
  seen = set()
  for checksum, package, translated in entries(other, language):
    original = originals.get(checksum)
    if original is None or len(original) != len(translated) or checksum in seen:
      continue
    seen.add(checksum)
    for place, (source, target) in enumerate(zip(original, translated)):
      words = len(source.split()), len(target.split())
      fits = all(count in WORDS for count in words) and max(words) <= 3 * min(words)
      if source != target and fits and "\n" not in source + target:  # Lists have lines of their own.
        yield {"source": source, "target": target, "package": package, "kind": "paragraph" if place else "title"}


def entries(text: str, language: str) -> Iterator[tuple[str, str, list[str]]]:
  """(checksum, package, title and paragraphs) of each stanza of a file as Debian's archive has them."""
  for stanza in text.split("\n\n"):
    heads = dict(re.findall(r"^([\w-]+): (.*)$", stanza, re.MULTILINE))
    _, found, body = stanza.partition(f"Description-{language}: ")
    if found and "Description-md5" in heads:
      title, _, lines = body.partition("\n")
      yield heads["Description-md5"], heads.get("Package", ""), [title.strip(), *paragraphs(lines)]


def paragraphs(lines: str) -> Iterator[str]:
  """Runs of lines between those that hold a dot alone, each with single blanks; a line of a list keeps its break."""
  for part in re.split(r"^ \.\s*$\n?", lines, flags=re.MULTILINE):
    text = re.sub(r"\n (?=\S)", " ", "\n" + part.rstrip("\n"))
    if text.strip():
      yield "\n".join(" ".join(line.split()) for line in text.strip().split("\n"))


def keys(row: dict) -> list[str]:
  """Pairs that have one of these in common are of one group."""
  alike = [f"{side} {plain(row[side], row['package'])}" for side in ("source", "target")]
  return [f"family {family(row['package'])}", *alike]


def family(package: str) -> str:
  """What packages of one source mostly have in common: `foo` of libfoo2, libfoo-dev and foo-doc."""
  name = re.sub(r"^lib", "", package.lower())
  parts = [part for part in re.split(r"[-+.]", name) if part]
  common = (
    "python3",
    "python",
    "node",
    "ruby",
    "golang",
    "r",
    "haskell",
    "php",
    "perl",
    "java",
    "ghc",
    "gir1",
    "fonts",
  )
  kept = parts[:3] if parts[:1] and parts[0] in common else parts[:1]
  return "-".join(re.sub(r"\d+$", "", part) or part for part in kept)


def plain(text: str, package: str) -> str:
  """Without the names in it that the package's name has, words with digits or signs inside, signs, and capitals."""
  own = set(re.split(r"[-+.\d]+", package.lower()))
  words: Iterable[str] = (word.strip(".,:;()'\"!?").lower() for word in text.split())
  return " ".join(word for word in words if re.fullmatch(r"[^\W\d_]+", word) and word not in own)
