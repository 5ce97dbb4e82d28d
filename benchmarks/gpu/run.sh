#!/usr/bin/env bash
# Everything that is owed on a GPU, in under ten minutes, on a machine that needs no network:
#
#   benchmarks/gpu/run.sh --binaries DIR [--out DIR] [--device cuda:0] [--library onnxruntime|tensorrt]
#   benchmarks/gpu/run.sh --binaries DIR --dry-run
#
# DIR holds bin/tandem, bin/tandem-benchmarks, bin/device_conformance and bin/engine_conformance, and
# beside them cache/ and lib/ where they were packed (pack.sh, unpack.sh; binaries.sh makes bin/ alone).
# A part that fails or runs out of its time is told so and the others go on; the exit code is 1 then.
# Needs 40 GB for checkpoint and reference in SCRATCH (default /tmp; memory, such as /dev/shm, is faster).
# --dry-run does the same on the host and on an emulated device, with the smallest checkpoint and few
# ticks: it shows that the parts run, and measures nothing.
set -euo pipefail
caller="$PWD"
cd "$(dirname "$0")/../.."
at() { case "$1" in /*) echo "$1" ;; *) echo "$caller/$1" ;; esac; }

usage() {
  sed -n '2,13s/^# \{0,1\}//p' benchmarks/gpu/run.sh >&2
  exit 2
}

dry_run='' binaries='' device='cuda:0' library='onnxruntime' out="${OUT:+$(at "$OUT")}" python="${PYTHON:-python3}"
while [ $# -gt 0 ]; do
  case "$1" in
    --dry-run) dry_run=1; shift; continue ;;
    --binaries | --out | --device | --library) [ $# -ge 2 ] || usage ;;
    *) usage ;;
  esac
  case "$1" in
    --binaries) binaries="$(at "$2")" ;;
    --out) out="$(at "$2")" ;;
    --device) device="$2" ;;
    --library) library="$2" ;;
  esac
  shift 2
done
[ -n "$binaries" ] || usage
for name in tandem tandem-benchmarks device_conformance engine_conformance; do
  [ -x "$binaries/bin/$name" ] || {
    echo "run.sh: there is no $binaries/bin/$name; benchmarks/gpu/binaries.sh or unpack.sh puts it there" >&2
    exit 2
  }
done
[ -n "$out" ] || out="$PWD/benchmarks/gpu/results-$(date -u +%Y-%m-%d)"
mkdir -p "$out"

# Seconds of each part at most. In all 570, and the rest of ten minutes is for what lies between.
if [ -n "$dry_run" ]; then
  config=configs/soak.json
  # Only so that nothing hangs: a busy machine takes its time.
  limit_conformance=120 limit_checkpoint=120 limit_reference=120 limit_certificate=120
  limit_measurement=120
else
  config=configs/full.json
  limit_conformance=40 limit_checkpoint=110 limit_reference=60 limit_certificate=90
  limit_measurement=170 limit_peers=100
fi

# What was packed is found before anything that the machine has.
if [ -d "$binaries/cache" ]; then export TANDEM_CACHE_DIR="$binaries/cache"; fi
if [ -d "$binaries/lib" ]; then export LD_LIBRARY_PATH="$binaries/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"; fi
# Test executables look for their data where they were built.
if [ -f "$binaries/built_at" ]; then
  built_at="$(cat "$binaries/built_at")"
  if [ ! -e "$built_at" ]; then
    mkdir -p "$(dirname "$built_at")" && ln -s "$PWD" "$built_at" ||
      echo "run.sh: cannot make $built_at; tests that read data will fail" >&2
  fi
fi

scratch="$(mktemp -d -p "${SCRATCH:-/tmp}")"
trap 'rm -rf "$scratch"' EXIT
begin=$SECONDS
failed=0
: >"$out/parts.tsv"

# Runs a part within its limit; its words go to a log beside the results.
part() { # name limit command...
  local name="$1" limit="$2" start=$SECONDS code=0 how=done
  shift 2
  printf '\n=== %s (at most %s s)\n' "$name" "$limit" >&2
  timeout --kill-after=5 "$limit" "$@" >"$out/$name.log" 2>&1 || code=$?
  case $code in
    0) ;;
    124 | 137) how="out of time" ;;
    *) how="failed ($code)" ;;
  esac
  [ "$how" = done ] || failed=1
  tail -n "${shown:-12}" "$out/$name.log" >&2
  printf '%s\t%s\t%s s\n' "$name" "$how" "$((SECONDS - start))" | tee -a "$out/parts.tsv" >&2
  return 0
}

skipped() { # name reason
  printf '%s\tskipped\t%s\n' "$1" "$2" | tee -a "$out/parts.tsv" >&2
}

checkpoint() { # precision
  local exported="$scratch/engine"
  if [ "$library" = tensorrt ]; then exported="$scratch/exported"; fi
  "$binaries/bin/tandem" checkpoint synth --config "$config" --seed 1 --out "$scratch/checkpoint" &&
    "$binaries/bin/tandem" export --checkpoint "$scratch/checkpoint" --precision "$1" --out "$exported" ||
    return
  # TensorRT runs engines that were built for this very GPU.
  if [ "$library" = tensorrt ]; then
    "$binaries/bin/tandem" build --network "$exported" --backend tensorrt-rtx --target native \
      --out "$scratch/engine"
  fi
}

# Twice as large as the checkpoint, since every number is converted.
reference() {
  "$binaries/bin/tandem" export --checkpoint "$scratch/checkpoint" --precision f32 --out "$scratch/f32"
}
export -f checkpoint reference
export binaries config scratch library

# Holds the engine against the reference if there is one.
certificate() { # tandem-benchmarks' options
  if [ -f "$scratch/f32/export.json" ]; then
    part certificate "$limit_certificate" "$binaries/bin/tandem-benchmarks" certificate "$@" \
      --engine "$scratch/engine" --reference "$scratch/f32" --out "$out/certificate.json"
  else
    skipped certificate "there is no f32 reference"
  fi
  rm -rf "$scratch/f32"
}

conformance() {
  local code=0
  "$binaries/bin/device_conformance" || code=$?
  "$binaries/bin/engine_conformance" || code=$?
  return "$code"
}
export -f conformance

if [ -n "$dry_run" ]; then
  part conformance "$limit_conformance" bash -c conformance
  part checkpoint "$limit_checkpoint" bash -c 'checkpoint bf16-emulated'
  part reference "$limit_reference" bash -c reference
  # The smallest networks have few numbers to a sum: they may differ by more than real ones.
  certificate --device host --prompts 1 --max-point-distance 0.2 --min-cosine 0.99
  for device in host emulated; do
    shown=80 part "measurement-$device" "$limit_measurement" "$binaries/bin/tandem-benchmarks" gpu \
      --device "$device" --engine "$scratch/engine" --ticks 40 --refreshes 3 --minutes 0.4 --raw 20 \
      --out "$out/measurement-$device.json"
  done
  if "$python" -c 'import torch, safetensors' 2>/dev/null; then
    part peers 60 "$python" benchmarks/peers/automot_gpu.py "$scratch/checkpoint" --device cpu \
      --dtype float32 --modes eager --runs 2 --seconds 1 --out "$out/peers.json"
  else
    skipped peers "$python has no torch and safetensors"
  fi
else
  { nvidia-smi -q || echo "no nvidia-smi"; } >"$out/nvidia-smi.txt" 2>&1
  shown=40 part conformance "$limit_conformance" bash -c conformance
  part checkpoint "$limit_checkpoint" bash -c 'checkpoint bf16'
  part reference "$limit_reference" bash -c reference
  certificate --device "$device" --library "$library"
  shown=120 part measurement "$limit_measurement" "$binaries/bin/tandem-benchmarks" gpu \
    --device "$device" --library "$library" --engine "$scratch/engine" --minutes 2.5 \
    --out "$out/measurement.json"
  if "$python" -c 'import torch, safetensors; assert torch.cuda.is_available()' 2>/dev/null; then
    shown=20 part peers "$limit_peers" "$python" benchmarks/peers/automot_gpu.py "$scratch/checkpoint" \
      --device "$device" --out "$out/peers.json"
  else
    skipped peers "$python has no torch that sees a GPU, or no safetensors"
  fi
fi

printf '\nin all %s s; results in %s\n' "$((SECONDS - begin))" "$out" >&2
cat "$out/parts.tsv" >&2
exit "$failed"
