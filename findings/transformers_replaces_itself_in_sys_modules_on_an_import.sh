#!/usr/bin/env bash
# transformers 5.23.0: importing transformers.processing_utils puts a new module object at sys.modules["transformers"].
# What was set on the module before is gone for everybody who imports transformers later, without a word; who holds the
# old object keeps it, so that two modules of one name are in use.
# Seen: an attribute set after `import transformers` is missing after `import transformers.processing_utils`, and
# sys.modules["transformers"] is another object. With 4.48.3 likewise.
# Users care who add or replace classes (libraries that bring back classes which version 5 removed, monkeypatches in
# tests and notebooks): they work until something imports that file, as loading a processor does.
# The way round: import transformers.processing_utils first, then set what is to be set.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/replace.py" <<'PYTHON'
import sys

import transformers

held = transformers
held.MINE = 1
import transformers.processing_utils  # noqa: E402

now = sys.modules["transformers"]
print(f"transformers {now.__version__}: the same module {now is held}, the attribute is there {hasattr(now, 'MINE')}")
sys.exit(now is held or hasattr(now, "MINE"))
PYTHON
for version in 5.23.0 4.48.3; do
  python3 -m venv "$folder/$version"
  "$folder/$version/bin/pip" install --quiet --disable-pip-version-check "transformers==$version" numpy==2.2.6 pillow==11.0.0
  "$folder/$version/bin/python" "$folder/replace.py"
done
