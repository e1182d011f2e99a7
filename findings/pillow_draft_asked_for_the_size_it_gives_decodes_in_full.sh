#!/usr/bin/env bash
# Pillow 13.0.0: Image.draft of a JPEG with an odd side decodes it in full when it is asked for the very size that it gives
# for a half. It divides the sides and rounds down to find the scale, and the size that comes out is rounded up.
# Seen: of 500 x 375 pixels draft(250, 187) gives 250 x 188, and draft(250, 188) gives 500 x 375; likewise with 501 x 375 and
# 499 x 333. The box that it returns, (0, 0, 250.0, 187.5), is what the pixels cover; the image is larger than that.
# Users care who decode photos at half size to save time: sizes that are rounded, as round(375 / 2) = 188 is, cost the full
# decoding without a word, for every photo with an odd side; and boxes that are scaled by new size over old one are off by
# up to half a pixel. The way round: ask for the sides divided and rounded down, and scale boxes by the power of two.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/draft.py" <<'PYTHON'
import io
import sys

import PIL
from PIL import Image

print("Pillow", PIL.__version__)
as_seen = []
for width, height in ((500, 375), (501, 375), (499, 333), (500, 374)):
  file = io.BytesIO()
  Image.linear_gradient("L").convert("RGB").resize((width, height)).save(file, "JPEG")

  def drafted(size):
    image = Image.open(io.BytesIO(file.getvalue()))
    _, box = image.draft("RGB", size)
    return image.size, box

  half, box = drafted((width // 2, height // 2))
  again, _ = drafted(half)
  print(f"{width} x {height}: asked for {width // 2} x {height // 2} it gives {half}, which covers {box}; asked for {half}, {again}")
  odd = width % 2 or height % 2
  as_seen.append(again == ((width, height) if odd else half))
sys.exit(not all(as_seen))
PYTHON
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0
"$folder/venv/bin/python" "$folder/draft.py"
