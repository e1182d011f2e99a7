#!/usr/bin/env bash
# environment.sh PYTHON FOLDER: makes FOLDER an environment with what requirements.lock says, hash by hash, and this
# package as an editable install. uv comes out of the same lock, through pip, and asks the index that pip asks.
# Takes about half a minute where uv has the packages in its cache, and another one where it has not.
set -euo pipefail
python=$1 folder=$2

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "$python is $("$python" -V 2>&1), and the zoo needs Python 3.11 or newer. Choose another one: make PYTHON=python3.12" >&2
  exit 1
}
"$python" -m venv --clear "$folder" || {
  echo "$python cannot make an environment. On Debian: apt-get install python3-venv" >&2
  exit 1
}
export VIRTUAL_ENV="$folder" UV_PYTHON_DOWNLOADS=never
index=$("$folder/bin/python" -m pip config get global.index-url 2> /dev/null) && export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$index}"
sed -n '/^uv==/,/^    # via/p' requirements.lock > "$folder/uv.lock"
"$folder/bin/python" -m pip install --quiet --quiet --disable-pip-version-check --require-hashes -r "$folder/uv.lock"
# Compiled once, here: where Python may not write beside its sources (PYTHONDONTWRITEBYTECODE, as in many containers),
# every process would compile JAX again, for two seconds.
"$folder/bin/uv" pip install --quiet --compile-bytecode --require-hashes -r requirements.lock
"$folder/bin/uv" pip install --quiet --no-deps --no-build-isolation --editable .
touch "$folder/made"
