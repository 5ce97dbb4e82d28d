#!/usr/bin/env bash
# Runs the checks and measurements that need a GPU, in steps of at most a minute, smallest first:
#
#   benchmarks/gpu/first_contact.sh --binaries DIR --state DIR [--out DIR] [--seconds N]
#                                   [--device cuda:0] [--again STEP]... [--list]
#   benchmarks/gpu/first_contact.sh --binaries DIR --state DIR --dry-run
#
# --binaries contains bin/ and, if packed, cache/ and lib/ (pack.sh, unpack.sh; binaries.sh creates
# bin/ only). --state keeps checkpoints, engines and the result of every step; the next call continues
# after the last finished step. A step starts only if its time limit fits into the remaining --seconds
# (default 540). --state needs 45 GB; memory such as /dev/shm is faster than a disk.
# --out (default: --state/out) receives steps.tsv and results.tgz after every step: two files at most.
# --again repeats a finished step. --dry-run runs every step on the host and on an emulated device,
# with small networks: it tests the steps and measures nothing.
# Exit code: 0 if all steps finished without failure, 1 if a step failed or is left, 2 if it cannot run.
set -euo pipefail
caller="$PWD"
cd "$(dirname "$0")/../.."
at() { case "$1" in /*) echo "$1" ;; *) echo "$caller/$1" ;; esac; }
usage() {
  sed -n '2,17s/^# \{0,1\}//p' benchmarks/gpu/first_contact.sh >&2
  exit 2
}

dry_run='' binaries='' state='' out='' device='cuda:0' seconds=540 list='' python="${PYTHON:-python3}"
again=()
while [ $# -gt 0 ]; do
  case "$1" in
    --dry-run) dry_run=1; shift; continue ;;
    --list) list=1; shift; continue ;;
    --binaries | --state | --out | --device | --seconds | --again) [ $# -ge 2 ] || usage ;;
    *) usage ;;
  esac
  case "$1" in
    --binaries) binaries="$(at "$2")" ;;
    --state) state="$(at "$2")" ;;
    --out) out="$(at "$2")" ;;
    --device) device="$2" ;;
    --seconds) seconds="$2" ;;
    --again) again+=("$2") ;;
  esac
  shift 2
done

# Name, time limit in seconds, description.
steps='
machine            20 properties of this machine; starts creating the large checkpoints in the background
device             60 device_conformance: memory, streams, events, graphs, green contexts
two-rates          60 device_two_rates: a tick and a prefill without networks
clock              45 event times compared with the host clock, thirty times in half a minute
green-contexts     30 the requested split of multiprocessors, and invalid splits
engine             60 engine_conformance: libraries, runs on a given stream, captures
tiny-export        60 the smallest networks in f32, f16 and bf16, and their golden run on the CPU
tiny-f32           60 every operator once, all arrangements
tiny-f16           60 the same in f16
tiny-bf16          60 the same in bf16
tiny-golden        60 the f32 networks on the device, with the golden run of the CPU
tiny-certificate   60 bf16 compared with f32, both on the device
shallow-action     60 full width, two layers, bf16: ticks alone, then with concurrent prefills
shallow-reference  60 the same checkpoint in f32
shallow-certificate 60 full width, two layers: bf16 compared with f32
full-graphs-split  60 full size: ticks alone, prefills alone, both; graphs, split multiprocessors
full-graphs-priorities 60 the same, streams by priority
full-plain-split   60 the same without graphs, split multiprocessors
full-plain-priorities 60 the same without graphs, streams by priority
peers              60 the same networks in PyTorch eager
'
if [ -n "$list" ]; then
  echo "${steps#?}"
  exit 0
fi
[ -n "$binaries" ] && [ -n "$state" ] || usage
for name in tandem tandem-benchmarks device_conformance device_two_rates engine_conformance; do
  [ -x "$binaries/bin/$name" ] || {
    echo "first_contact.sh: $binaries/bin/$name is missing; create it with benchmarks/gpu/binaries.sh or unpack.sh" >&2
    exit 2
  }
done
for step in ${again[@]+"${again[@]}"}; do
  grep -q "^$step " <<<"$steps" || { echo "first_contact.sh: unknown step $step; --list shows all steps" >&2; exit 2; }
done
results="$state/results" out="${out:-$state/out}"
mkdir -p "$results" "$out" "$state/done"
for step in ${again[@]+"${again[@]}"}; do rm -f "$state/done/$step"; done

# Packed libraries have precedence over those of the machine; without packed ones, the libraries of
# installed Python packages are used.
if [ -d "$binaries/cache" ]; then export TANDEM_CACHE_DIR="$binaries/cache"; fi
if [ -d "$binaries/onnxruntime" ]; then
  export ORT_GPU_DYLIB_PATH="$binaries/onnxruntime/libonnxruntime.so.1.31.1"
  export ORT_DYLIB_PATH="$ORT_GPU_DYLIB_PATH"
fi
if [ -d "$binaries/lib" ]; then
  libraries="$binaries/lib"
else
  libraries="$("$python" -c '
import glob, site
print(":".join(sorted(d for s in site.getsitepackages() for d in glob.glob(s + "/nvidia/*/lib"))))' || true)"
fi
export LD_LIBRARY_PATH="$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
# Test executables read their data from the folder in which they were built.
if [ -f "$binaries/built_at" ]; then
  built_at="$(cat "$binaries/built_at")"
  if [ ! -e "$built_at" ]; then
    mkdir -p "$(dirname "$built_at")" && ln -s "$PWD" "$built_at" ||
      echo "first_contact.sh: cannot create $built_at; tests that read data will fail" >&2
  fi
fi

bin="$binaries/bin"
if [ -n "$dry_run" ]; then
  # Small networks replace the large ones, and time limits only stop steps that hang.
  shallow=configs/soak.json full=configs/soak.json precision=bf16-emulated
  device=emulated on=host few=(--ticks 40 --refreshes 3 --minutes 0.4 --raw 20)
  alone=("${few[@]}") with_both=("${few[@]}") differ=(--prompts 1 --max-point-distance 0.2 --min-cosine 0.99)
  scale=4
else
  shallow=configs/full-shallow.json full=configs/full.json precision=bf16
  on="$device" few=(--ticks 40 --refreshes 3 --minutes 0.3)
  alone=(--ticks 2000 --refreshes 20 --minutes 0.7) with_both=(--minutes 0.6) differ=()
  scale=1
fi

# Folders appear atomically, so an existing folder is complete.
create_once() { # folder command...
  local folder="$1"
  shift
  [ -d "$folder" ] || "$@" --out "$folder"
}
synth() { create_once "$state/checkpoint-$1" "$bin/tandem" checkpoint synth --config "$2" --seed 1; }
exported() { # name precision
  create_once "$state/engine-$1-$2" "$bin/tandem" export --checkpoint "$state/checkpoint-$1" --precision "$2"
}
measure() { # engine result options...
  local engine="$1" result="$2"
  shift 2
  "$bin/tandem-benchmarks" gpu --device "$device" --engine "$state/engine-$engine" \
    --out "$results/$result.json" "$@"
}
certificate() { # name precision result
  "$bin/tandem-benchmarks" certificate --device "$on" --engine "$state/engine-$1-$2" \
    --reference "$state/engine-$1-f32" --out "$results/$3.json" ${differ[@]+"${differ[@]}"}
}
# The large checkpoints are created in the background; a step waits for its own, within its time limit.
in_background() {
  synth shallow "$shallow" && exported shallow "$precision" && synth full "$full" && exported full "$precision"
}
wait_for() { # folder
  until [ -d "$1" ]; do
    if [ -f "$state/background.failed" ]; then
      cat "$state/background.log"
      return 1
    fi
    sleep 1
  done
}

step_machine() {
  if [ ! -d "$state/engine-full-$precision" ] && ! kill -0 "$(cat "$state/background.pid" 2>/dev/null)" 2>/dev/null; then
    rm -f "$state/background.failed"
    declare -f create_once synth exported in_background >"$state/background.sh"
    declare -p bin state shallow full precision >>"$state/background.sh"
    echo 'in_background || touch "$state/background.failed"' >>"$state/background.sh"
    setsid bash "$state/background.sh" >"$state/background.log" 2>&1 </dev/null &
    echo $! >"$state/background.pid"
  fi
  uname -srm
  nproc
  free -g
  df -h "$state"
  echo "LD_LIBRARY_PATH=$LD_LIBRARY_PATH"
  find ${libraries//:/ } -maxdepth 1 -name 'lib*.so*' 2>/dev/null | sort || true
  "$python" -c 'import torch; print("torch", torch.__version__, torch.version.cuda)' || true
  nvidia-smi || echo "no nvidia-smi"
  "$bin/tandem" doctor || true
}
step_device() { "$bin/device_conformance"; }
step_two-rates() { "$bin/device_two_rates"; }
step_clock() {
  local round
  for round in $(seq "${clock_rounds:-30}"); do
    "$bin/device_conformance" --exact events_report_their_completion_time --quiet || return
    sleep "${clock_pause:-1}"
  done
}
step_green-contexts() { "$bin/device_conformance" split --nocapture; }
step_engine() { "$bin/engine_conformance"; }
step_tiny-export() {
  synth tiny configs/soak.json && exported tiny f32 && exported tiny f16 && exported tiny "$precision" &&
    "$bin/tandem" verify --engine "$state/engine-tiny-f32" --reference "$state/engine-tiny-f32" --prompts 1
}
step_tiny-f32() { measure tiny-f32 tiny-f32 "${few[@]}"; }
step_tiny-f16() { measure tiny-f16 tiny-f16 "${few[@]}"; }
step_tiny-bf16() { measure "tiny-$precision" tiny-bf16 "${few[@]}"; }
step_tiny-golden() {
  local where="$device"
  if [ -n "$dry_run" ]; then where=emulated; fi
  # Loading the folder executes its golden run first and rejects different outputs.
  printf 'device: %s\n' "$where" >"$state/golden.yaml"
  "$bin/tandem" profile --engine "$state/engine-tiny-f32" --run "$state/golden.yaml" --phases back-to-back \
    --ticks 20 --warm-up 5 --out "$results/tiny-golden.json"
}
step_tiny-certificate() { certificate tiny "$precision" tiny-certificate; }
step_shallow-action() {
  wait_for "$state/engine-shallow-$precision" &&
    measure "shallow-$precision" shallow-action --arrangement graphs-split "${alone[@]}"
}
step_shallow-reference() { exported shallow f32; }
step_shallow-certificate() {
  certificate shallow "$precision" shallow-certificate && rm -rf "$state/engine-shallow-f32"
}
full() { # arrangement
  wait_for "$state/engine-full-$precision" &&
    measure "full-$precision" "full-$1" --arrangement "$1" "${with_both[@]}"
}
step_full-graphs-split() { full graphs-split; }
step_full-graphs-priorities() { full graphs-priorities; }
step_full-plain-split() { full plain-split; }
step_full-plain-priorities() { full plain-priorities; }
step_peers() {
  local options=(--device "$device" --modes eager)
  if [ -n "$dry_run" ]; then
    options=(--device cpu --dtype float32 --modes eager --runs 2 --seconds 1)
    "$python" -c 'import torch, safetensors' || { echo "skipped: no torch and safetensors"; return 0; }
  fi
  "$python" benchmarks/peers/automot_gpu.py "$state/checkpoint-full" "${options[@]}" --out "$results/peers.json"
}

# Writes one archive and one table, replaced atomically.
publish() {
  tar --create --gzip --file "$out/results.tgz.part" --directory "$state" results
  mv "$out/results.tgz.part" "$out/results.tgz"
  cp "$results/steps.tsv" "$out/steps.tsv"
}

begin=$SECONDS left='' failed=''
touch "$results/steps.tsv"
# Runs a step in its own shell, so that timeout can end it with all of its processes.
run_step() { # name limit
  local code=0
  # Background work of a step has its own session, because timeout would end it with the step.
  timeout --kill-after=5 "$(($2 * scale))" bash -c '
    set -euo pipefail
    source "$1"
    "step_$2"' step "$state/steps.sh" "$1" >"$results/$1.log" 2>&1 || code=$?
  return "$code"
}
{
  declare -f
  declare -p bin state results out device on dry_run shallow full precision few alone with_both differ \
    libraries python
} >"$state/steps.sh"

while read -r name limit about; do
  [ -n "$name" ] || continue
  [ ! -f "$state/done/$name" ] || continue
  if [ $((SECONDS - begin + limit)) -gt "$seconds" ] && [ -z "$dry_run" ]; then
    left="$left $name"
    continue
  fi
  printf '\n=== %s (at most %s s): %s\n' "$name" "$limit" "$about" >&2
  start=$SECONDS code=0 how=passed
  run_step "$name" "$limit" || code=$?
  case $code in
    0) ! grep -q '^skipped: ' "$results/$name.log" || how=skipped ;;
    124 | 137) how="timed out" ;;
    *) how="failed ($code)" ;;
  esac
  tail -n 25 "$results/$name.log" >&2
  printf '%s\t%s\t%s s\n' "$name" "$how" "$((SECONDS - start))" | tee -a "$results/steps.tsv" >&2
  echo "$how" >"$state/done/$name"
  publish
done <<<"$steps"

publish
for over in "$state"/done/*; do
  case "$(cat "$over")" in passed | skipped) ;; *) failed="$failed $(basename "$over")" ;; esac
done
[ -z "$left" ] || echo "left for the next call:$left" >&2
[ -z "$failed" ] || echo "failed (--again STEP repeats a step):$failed" >&2
echo "total time $((SECONDS - begin)) s; results in $out" >&2
[ -z "$left$failed" ]
