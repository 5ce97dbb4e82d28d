#!/usr/bin/env bash
# Exports tiny networks in each way that makes a complete folder, and opens them, as written, with
# pinned releases of onnx and ONNX Runtime. Takes the binary; keeps the packages in tandem's cache.
set -euo pipefail
tandem="$(realpath "$1")"
here="$(cd "$(dirname "$0")" && pwd)"
root="$(dirname "$here")"

requirements="$here/onnx-requirements.txt"
pin="$(sha256sum "$requirements" | cut -c1-12)-$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
venv="${TANDEM_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/tandem}/onnx-tools-$pin"
mkdir -p "$(dirname "$venv")"
# Of two runs at once, one fetches.
exec 9>"$venv.lock"
flock 9
if [ ! -f "$venv/complete" ]; then
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/python" -I -m pip install --quiet --disable-pip-version-check --no-deps \
    --only-binary=:all: --require-hashes --requirement "$requirements"
  touch "$venv/complete"
fi
exec 9>&-

scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
"$tandem" checkpoint synth --config "$root/configs/tiny.json" --seed 1 --out "$scratch/checkpoint"
export_to() { "$tandem" export --checkpoint "$scratch/checkpoint" --out "$@" >/dev/null; }
export_to "$scratch/default"
export_to "$scratch/groups" --understanding-groups 2 --probes
export_to "$scratch/f16" --precision f16
export_to "$scratch/bf16" --precision bf16 --weights copy
# Last: beside the weights, which are then read from the checkpoint's own file.
export_to "$scratch/checkpoint"

export ORT_DISABLE_TELEMETRY=1
open() { "$venv/bin/python" -I "$here/open_networks.py" "$@"; }
open "$scratch/default" "$scratch/groups" "$scratch/f16" "$scratch/checkpoint"
open --checker-only "$scratch/bf16"
# Links that lead out of the folder are what these tools refuse: if they ever take them, the
# documents and the default have to change.
export_to "$scratch/links" --weights link
if open "$scratch/links" 2>/dev/null; then
  echo "open_networks: links out of the folder are accepted now; correct engines/README.md" >&2
  exit 1
fi
