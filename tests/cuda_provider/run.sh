#!/usr/bin/env bash
# Runs exported networks on ONNX Runtime's real CUDA provider with stubs of CUDA's libraries (see
# provider.py). The argument is the binary `tandem`. The package (256 MB download, 700 MB unpacked) is
# kept in tandem's cache. If it is not available, the check is skipped, or fails if CI is set.
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
# Only one of several concurrent runs downloads the package.
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
# One library with links for all names that the provider loads.
cc -O1 -Wall -Wextra -Wno-unused-parameter -Werror -shared -fPIC -Wl,--version-script="$here/stubs.map" \
  -o "$scratch/libcudart.so.13" "$here/stubs.c" -lpthread
for name in libcublas.so.13 libcublasLt.so.13 libcurand.so.10 libcudnn.so.9 libcuda.so.1; do
  ln -s libcudart.so.13 "$scratch/$name"
done

export LD_LIBRARY_PATH="$scratch" STUBS_TRACE="$scratch/trace" ORT_DISABLE_TELEMETRY=1
"$venv/bin/python" "$here/provider.py" "$tandem" "$@"
