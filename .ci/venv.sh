#!/usr/bin/env bash
# Installs the packages of a requirements file, pinned by hash, in a virtual environment of its own in
# tandem's cache folder, and prints its Python.
# venv.sh NAME-requirements.txt
set -euo pipefail
requirements="$1"
pin="$(sha256sum "$requirements" | cut -c1-12)-$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
venv="${TANDEM_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/tandem}/$(basename "$requirements" -requirements.txt)-tools-$pin"
mkdir -p "$(dirname "$venv")"
# If two runs start at once, one of them fetches.
exec 9>"$venv.lock"
flock 9
if [ ! -f "$venv/complete" ]; then
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/python" -I -m pip install --quiet --disable-pip-version-check --no-deps \
    --only-binary=:all: --require-hashes --requirement "$requirements" >&2
  touch "$venv/complete"
fi
echo "$venv/bin/python"
