#!/usr/bin/env bash
# Measures the wall time of the demo from a clean clone by step, including libraries.
# Downloads crates and ONNX Runtime to temporary folders. Usage: benchmarks/clean_clone.sh > result.json
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export CARGO_HOME=$work/cargo TANDEM_CACHE_DIR=$work/cache
mkdir -p "$CARGO_HOME"
[ -f "$HOME/.cargo/config.toml" ] && cp "$HOME/.cargo/config.toml" "$CARGO_HOME/"
now() { date +%s.%N; }

git clone -q "$here" "$work/tandem"
cd "$work/tandem"
start=$(now)
cargo fetch --locked -q
fetched=$(now)
cargo build --release --locked -q
built=$(now)
cargo run --release -q -- demo >"$work/demo.log" 2>&1
end=$(now)
steps=$(grep '^wall time' "$work/demo.log")
python3 - "$start" "$fetched" "$built" "$end" "$steps" <<'PY'
import json, sys
sys.path.insert(0, "benchmarks")
import card
start, fetched, built, end = map(float, sys.argv[1:5])
print(json.dumps({
    "bench": "demo from a clean clone, libraries included",
    "command": "benchmarks/clean_clone.sh",
    "machine": card.machine(),
    "seconds": {"fetch crates": round(fetched - start, 1), "compile": round(built - fetched, 1),
                "demo": round(end - built, 1), "total": round(end - start, 1)},
    "demo_says": sys.argv[5],
}, indent=1))
PY
