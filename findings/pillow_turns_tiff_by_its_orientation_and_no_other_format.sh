#!/usr/bin/env bash
# Pillow 11.0.0 to 13.0.0: of a TIFF with an orientation the size is that of the turned image as soon as it is opened,
# its pixels are turned when they are loaded, and the tag is then gone. Of a PNG, JPEG or WebP with the same tag nothing
# is turned, before or after loading: the size is that of the stored pixels and the tag stays.
# Seen, 3 x 2 pixels with orientation 6: TIFF opened (2, 3), loaded (2, 3), tag None; PNG opened (3, 2), loaded (3, 2),
# tag 6. ImageOps.exif_transpose gives (2, 3) of all of them.
# Users care who turn photos themselves: code that takes size and tag of a header to know the final size is wrong for
# TIFF, code that reads the tag before loading and turns after it turns a TIFF twice, and a check of "size by header
# equals size of the array" fails for one format alone. The way round: exif_transpose, and sizes after it only.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/turn.py" <<'PYTHON'
import io

import PIL
from PIL import Image, ImageOps

ORIENTATION = 0x0112
for kind, opened, loaded, tag in (("TIFF", (2, 3), (2, 3), None), ("PNG", (3, 2), (3, 2), 6), ("JPEG", (3, 2), (3, 2), 6)):
  exif = Image.Exif()
  exif[ORIENTATION] = 6
  file = io.BytesIO()
  Image.new("L", (3, 2)).save(file, kind, exif=exif)
  image = Image.open(io.BytesIO(file.getvalue()))
  header = image.size, image.getexif().get(ORIENTATION)
  image.load()
  after = image.size, image.getexif().get(ORIENTATION)
  turned = ImageOps.exif_transpose(Image.open(io.BytesIO(file.getvalue()))).size
  print(f"Pillow {PIL.__version__} {kind}: opened {header}, loaded {after}, transposed {turned}")
  assert (header, after, turned) == ((opened, 6), (loaded, tag), (2, 3))
PYTHON
for package in pillow==11.0.0 pillow==13.0.0; do
  python3 -m venv "$folder/$package"
  "$folder/$package/bin/pip" install --quiet --disable-pip-version-check "$package"
  "$folder/$package/bin/python" "$folder/turn.py"
done
