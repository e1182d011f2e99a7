#!/usr/bin/env bash
# ml_collections 1.1.0: a ConfigDict does not keep the order of the keys of a dict that it is made of. keys(), items(),
# iteration and to_dict() give them by alphabet, in sections too, though a Python dict keeps the order it was written in.
# Seen: ConfigDict({"mesh": {"data": 2, "batch": 4}}).mesh.to_dict() is {"batch": 4, "data": 2}.
# Users care where order has a meaning: `jax.make_mesh(tuple(mesh.values()), tuple(mesh))` of a config's section puts the
# axes by alphabet, so that another axis than the one written last has neighbouring devices, and what was called "model"
# may lie across hosts. The way round: name axes so that the alphabet is the order, or keep the order in a list.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check ml_collections==1.1.0
"$folder/venv/bin/python" - <<'PYTHON'
from ml_collections import ConfigDict

written = {"mesh": {"data": 2, "batch": 4}}
mesh = ConfigDict(written).mesh
print("written:", list(written["mesh"]), "iterated:", list(mesh), "to_dict:", mesh.to_dict(), "items:", mesh.items())
assert list(mesh) == list(mesh.to_dict()) == [name for name, _ in mesh.items()] == ["batch", "data"]
PYTHON
