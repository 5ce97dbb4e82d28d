#!/usr/bin/env bash
# Builds the programs that first_contact.sh runs, and copies them to DIR/bin:
#
#   benchmarks/gpu/binaries.sh DIR [options of cargo, such as --release --features cuda]
set -euo pipefail
caller="$PWD"
cd "$(dirname "$0")/../.."
[ $# -ge 1 ] || { sed -n '2,4s/^# \{0,1\}//p' benchmarks/gpu/binaries.sh >&2; exit 2; }
case "$1" in /*) out="$1" ;; *) out="$caller/$1" ;; esac
shift
mkdir -p "$out/bin"
# One call, so that all programs are built with the same features. Cargo builds `tandem` itself for a test
# of its package, engine_memory. Names of executables contain hashes.
cargo test "$@" --no-run --message-format=json-render-diagnostics --bins \
  --test device_conformance --test device_two_rates --test engine_conformance --test engine_memory --test gpu >"$out/cargo.json"
OUT="$out" python3 - <<'END'
import json, os, shutil
from pathlib import Path

out, found = Path(os.environ["OUT"]), {}
for line in (out / "cargo.json").read_text().splitlines():
    message = json.loads(line)
    if message.get("executable"):
        target = message["target"]
        is_program = target["kind"] == ["bin"] and not message["profile"]["test"]
        if is_program or target["kind"] == ["test"]:
            found[target["name"]] = message["executable"]
(out / "cargo.json").unlink()
for name in ("tandem", "tandem-benchmarks", "device_conformance", "device_two_rates", "engine_conformance"):
    if name not in found:
        raise SystemExit(f"binaries.sh: cargo did not build {name}")
    partial = out / "bin" / f"{name}.partial"
    shutil.copy2(found[name], partial)
    partial.replace(out / "bin" / name)
END
pwd >"$out/built_at"
