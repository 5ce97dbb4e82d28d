#!/usr/bin/env bash
# Exports tiny networks in each way that makes a complete folder, and opens them, as written, with
# pinned releases of onnx and ONNX Runtime. Takes the binary; keeps the packages in tandem's cache.
set -euo pipefail
tandem="$(realpath "$1")"
here="$(cd "$(dirname "$0")" && pwd)"
root="$(dirname "$here")"

python="$("$here/venv.sh" "$here/onnx-requirements.txt")"

scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
"$tandem" checkpoint synth --config "$root/configs/tiny.json" --seed 1 --out "$scratch/checkpoint"
export_to() { "$tandem" export --checkpoint "$scratch/checkpoint" --out "$@" >/dev/null; }
export_to "$scratch/default"
export_to "$scratch/groups" --understanding-groups 2 --probes
export_to "$scratch/f16" --precision f16
export_to "$scratch/bf16" --precision bf16 --weights copy
# Last, with linked weights, which are read from the checkpoint's own file.
export_to "$scratch/checkpoint"

export ORT_DISABLE_TELEMETRY=1
open() { "$python" -I "$here/open_networks.py" "$@"; }
open "$scratch/default" "$scratch/groups" "$scratch/f16" "$scratch/checkpoint"
open --checker-only "$scratch/bf16"
# These tools refuse links that lead out of the folder. If they ever accept them, documents and default
# must change.
export_to "$scratch/links" --weights link
if open "$scratch/links" 2>/dev/null; then
  echo "open_networks: links out of the folder are accepted now; correct engines/README.md" >&2
  exit 1
fi
