#!/usr/bin/env bash
# Runs exported networks on ONNX Runtime's real CUDA provider, on stand-ins for CUDA's libraries: see
# provider.py. Takes the binary `tandem`; keeps the package (256 MB to fetch, 700 MB unpacked) in
# tandem's cache. Where it cannot be had the check is skipped with a message, but fails if CI is set.
set -euo pipefail
tandem="$(realpath "$1")"
shift
here="$(cd "$(dirname "$0")" && pwd)"

unavailable() {
  if [ -n "${CI:-}" ]; then
    echo "cuda_provider: FAILED: $1" >&2
    exit 1
  fi
  echo "cuda_provider: SKIPPED: $1" >&2
  exit 0
}
python="$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
case "$(uname -sm) $python" in
  "Linux x86_64 3.1"[1-4]) ;;
  *) unavailable "onnxruntime-gpu has no package for $(uname -sm) and Python $python" ;;
esac

requirements="$here/requirements.txt"
venv="${TANDEM_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/tandem}/cuda-provider-$(sha256sum "$requirements" | cut -c1-12)-$python"
mkdir -p "$(dirname "$venv")"
# Of two runs at once, one fetches.
exec 9>"$venv.lock"
flock 9
if [ ! -f "$venv/complete" ]; then
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/python" -I -m pip install --quiet --disable-pip-version-check --no-deps --no-cache-dir \
    --only-binary=:all: --require-hashes --requirement "$requirements" ||
    unavailable "onnxruntime-gpu could not be installed"
  touch "$venv/complete"
fi
exec 9>&-

scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
# One library under the names that the provider looks for.
cc -O1 -Wall -Wextra -Wno-unused-parameter -Werror -shared -fPIC -Wl,--version-script="$here/standins.map" \
  -o "$scratch/libcudart.so.13" "$here/standins.c" -lpthread
for name in libcublas.so.13 libcublasLt.so.13 libcurand.so.10 libcudnn.so.9 libcuda.so.1; do
  ln -s libcudart.so.13 "$scratch/$name"
done

export LD_LIBRARY_PATH="$scratch" STANDINS_TRACE="$scratch/trace" ORT_DISABLE_TELEMETRY=1
"$venv/bin/python" "$here/provider.py" "$tandem" "$@"
