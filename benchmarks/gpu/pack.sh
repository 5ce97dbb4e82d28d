#!/usr/bin/env bash
# Packs the files that first_contact.sh needs on a GPU machine without network, in parts of up to 60 MB:
#
#   benchmarks/gpu/pack.sh OUT            builds (release), downloads the libraries, packs
#   benchmarks/gpu/pack.sh OUT --slim 90  the same without NVIDIA's libraries, TensorRT and device code for
#                                         compute capabilities other than 9.0: two parts
#   benchmarks/gpu/pack.sh OUT --from DIR packs the content of DIR
#
# Options: --part-bytes N (default 60000000). OUT receives part-000 and so on, SHA256SUMS, and unpack.sh.
# Weights are not included, because they are synthesized on the GPU machine; nor is the checkout.
set -euo pipefail
caller="$PWD"
cd "$(dirname "$0")/../.."
at() { case "$1" in /*) echo "$1" ;; *) echo "$caller/$1" ;; esac; }

usage() { sed -n '2,10s/^# \{0,1\}//p' benchmarks/gpu/pack.sh >&2; exit 2; }
out='' from='' slim='' part_bytes=60000000
while [ $# -gt 0 ]; do
  case "$1" in
    --from | --part-bytes | --slim) [ $# -ge 2 ] || usage ;;
    -*) usage ;;
    *) [ -z "$out" ] || usage; out="$(at "$1")"; shift; continue ;;
  esac
  case "$1" in
    --from) from="$(at "$2")" ;;
    --part-bytes) part_bytes="$2" ;;
    --slim) slim="$2" ;;
  esac
  shift 2
done
[ -n "$out" ] || usage
mkdir -p "$out"
[ -z "$(ls -A "$out")" ] || { echo "pack.sh: $out is not empty; give a new folder" >&2; exit 2; }
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT

# Pinned libraries: those of tandem as pinned by its library finder (src/engine), and the parts of CUDA 13
# that the CUDA provider needs (cuBLAS, cuRAND, the runtime, and NVRTC for cuDNN) with cuDNN 9.
own_packages='
onnxruntime==1.32.0 --hash=sha256:99e1074c4b2197accd5073052a465361be17b89c093b8ffb6e6bd8f986c52df8
onnxruntime-gpu==1.31.1 --hash=sha256:05d548956197b9d01f59b625de740e0d6be3593f874e241a12dc0362650ecdf7
tensorrt-rtx-cu13-libs==1.7.1.116 --hash=sha256:e3fd45fed001240d63304e77a2d4006319b839994237cb294b6e7ad72acaabcd'
vendor_packages='
nvidia-cublas==13.10.0.20 --hash=sha256:dcc6d63884c53d07e267ce7e6feac17b2538cebaafec5db865736c3e28e4dc84
nvidia-cuda-runtime==13.5.37 --hash=sha256:df2b79a8852f10d1fef8c848489c49eebb5754051bf870202a862831412b179d
nvidia-curand==10.4.5.25 --hash=sha256:22bb226a857e5888fe6b54ae465fc4371296bcff13a35f79e19691bcf454f529
nvidia-cudnn-cu13==9.28.0.42 --hash=sha256:7358353c75bb121a58e5f7712fe6d588883dc1df8ba00f428237e44e97543c4d
nvidia-cuda-nvrtc==13.5.37 --hash=sha256:86b4d68058807988b7d9af5b44917a0601e9c337f35ccd657bfb3c759ff8d8bc'

# Downloads the wheels and extracts each to its own folder.
fetch() {
  local hash
  for hash in $(sed -n 's/.*sha256://p' <<<"$own_packages"); do
    grep -rqF "$hash" src/engine || {
      echo "pack.sh: sha256 $hash is not pinned by the library finder (src/engine); use the same pins in both" >&2
      exit 1
    }
  done
  if [ -n "$slim" ]; then
    grep 'onnxruntime-gpu' <<<"$own_packages" >"$scratch/requirements.txt"
  else
    printf '%s\n' "$own_packages" "$vendor_packages" >"$scratch/requirements.txt"
  fi
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
    --require-hashes --dest "$scratch/wheels" --requirement "$scratch/requirements.txt"
  for wheel in "$scratch"/wheels/*.whl; do
    python3 -m zipfile -e "$wheel" "$scratch/files/$(basename "$wheel" | cut -d- -f1)"
    rm "$wheel"
  done
}

# Moves libraries of an extracted wheel to the folder in which they are searched.
place() { # wheel folder patterns...
  local wheel="$1" folder="$2" pattern
  shift 2
  mkdir -p "$scratch/pack/$folder"
  for pattern in "$@"; do
    find "$scratch/files/$wheel" -name "$pattern" -type f -exec mv {} "$scratch/pack/$folder/" \;
    compgen -G "$scratch/pack/$folder/$pattern" >/dev/null || {
      echo "pack.sh: the package $wheel does not contain $pattern" >&2
      exit 1
    }
  done
}

collect() {
  local features='tandem-cli/cuda,tandem-benchmarks/cuda' arch
  arch="$(uname -m)"
  [ "$arch" = x86_64 ] || { echo "pack.sh: packages are pinned for x86_64, but this machine is $arch" >&2; exit 1; }
  if [ -n "$slim" ]; then
    :
  elif [ -n "${LIBCLANG_PATH:-}" ]; then
    features="$features,tandem-cli/tensorrt,tandem-benchmarks/tensorrt"
  else
    echo "pack.sh: LIBCLANG_PATH is not set, so TensorRT is omitted (engines/README.md)" >&2
  fi
  benchmarks/gpu/binaries.sh "$scratch/pack" --release --features "$features"
  fetch
  if [ -n "$slim" ]; then
    strip "$scratch/pack/bin"/*
    # Not in the cache, which holds unmodified files only; first_contact.sh sets its path, also for CPUs.
    place onnxruntime_gpu onnxruntime 'libonnxruntime.so.1.31.1' \
      'libonnxruntime_providers_shared.so' 'libonnxruntime_providers_cuda.so'
    local provider="$scratch/pack/onnxruntime/libonnxruntime_providers_cuda.so"
    benchmarks/gpu/slim_provider.py "$provider" "$provider.slim" "$slim"
    mv "$provider.slim" "$provider"
    return
  fi
  place onnxruntime "cache/onnxruntime-1.32.0-$arch" 'libonnxruntime.so.1.32.0'
  place onnxruntime_gpu "cache/onnxruntimegpu-1.31.1-$arch" 'libonnxruntime.so.1.31.1' \
    'libonnxruntime_providers_shared.so' 'libonnxruntime_providers_cuda.so'
  place tensorrt_rtx_cu13_libs "cache/tensorrt-rtx-1.7.1.116-$arch" 'libtensorrt_rtx.so.1' \
    'libtensorrt_onnxparser_rtx.so.1'
  place nvidia_cublas lib 'libcublas.so.13' 'libcublasLt.so.13'
  place nvidia_cuda_runtime lib 'libcudart.so.13'
  place nvidia_curand lib 'libcurand.so.10'
  place nvidia_cudnn_cu13 lib 'libcudnn*.so.9'
  place nvidia_cuda_nvrtc lib 'libnvrtc*.so.13*'
}

if [ -z "$from" ]; then
  collect
  from="$scratch/pack"
fi
(cd "$from" && find . -type f ! -name CONTENTS.sha256 -print0 | sort -z | xargs -0 sha256sum) >"$scratch/CONTENTS.sha256"
# Of two files with the same name the later one is extracted, so an unpacked folder can be packed again.
tar --create --directory "$from" . --directory "$scratch" ./CONTENTS.sha256 |
  xz -3 --threads=0 | split --bytes="$part_bytes" --numeric-suffixes --suffix-length=3 - "$out/part-"
cp benchmarks/gpu/unpack.sh "$out/"
(cd "$out" && sha256sum part-* unpack.sh >SHA256SUMS)
echo "packed $(wc -l <"$scratch/CONTENTS.sha256") files into $(ls "$out"/part-* | wc -l) parts, total size $(du -sh "$out" | cut -f1)" >&2
