"""Compares the host work per tick of tandem with the same steps in Python, alternating, on one core.

Needs a built benchmark binary and a Python with the packages listed in `peers/host_work.py`. Writes the
raw samples of every round, the percentiles over all rounds and the machine card to
`results/host-work.json`; prints a table.

    cargo build --release -p tandem-benchmarks
    python3 benchmarks/compare_host_work.py --python VENV/bin/python
"""

import argparse
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Limits every library to one thread.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def output(command, fallback="unknown"):
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return fallback


def field(path, name):
    """Returns the first value of `name: value` in a file of /proc."""
    try:
        for line in Path(path).read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    except OSError:
        pass
    return "unknown"


def machine(core):
    governor = Path(f"/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor")
    return {
        "cpu": field("/proc/cpuinfo", "model name"),
        "cores": os.cpu_count(),
        "memory": field("/proc/meminfo", "MemTotal"),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "governor": governor.read_text().strip() if governor.is_file() else "unknown",
        "pinned_to_core": core,
    }


def versions():
    dirty = output(["git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no"])
    return {
        "git_commit": output(["git", "-C", str(ROOT), "rev-parse", "HEAD"]),
        "git_is_dirty": bool(dirty),
        "rustc": output(["rustc", "--version"]),
    }


def distribution(samples):
    ordered = sorted(samples)
    rank = lambda part: ordered[max(1, math.ceil(part * len(ordered))) - 1]
    return {"count": len(ordered), "p50": rank(0.5), "p99": rank(0.99), "max": ordered[-1]}


def run(command):
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **ONE_THREAD}, check=False
    )
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def pooled(rounds, group, name):
    return [sample for result in rounds for sample in result[group].get(name, {}).get("samples", [])]


def rows(tandem, python, group):
    for name, of_first in tandem[0][group].items():
        row = {"runs": of_first["runs"], "tandem": distribution(pooled(tandem, group, name))}
        if name in python[0][group]:
            row["python"] = distribution(pooled(python, group, name))
            row["ratio"] = {
                key: round(row["python"][key] / row["tandem"][key], 2) for key in ("p50", "p99")
            }
            # Spread of the ratio over the rounds.
            row["ratio_p50_by_round"] = [
                round(slow[group][name]["p50"] / fast[group][name]["p50"], 2)
                for fast, slow in zip(tandem, python)
            ]
        yield name, row


def table(result):
    lines = [f"{'':20} {'tandem p50 µs':>14} {'p99 µs':>10} {'python p50 µs':>14} {'p99 µs':>10} {'ratio p50':>10}"]
    for group in ("stages", "totals"):
        for name, row in result[group].items():
            cells = [f"{row['tandem'][key] / 1e3:.1f}" for key in ("p50", "p99")]
            if "python" in row:
                cells += [f"{row['python'][key] / 1e3:.1f}" for key in ("p50", "p99")]
                cells.append(f"{row['ratio']['p50']:.2f}")
            else:
                cells += ["-"] * 3
            widths = (14, 10, 14, 10, 10)
            text = " ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths))
            lines.append(f"{name:20} {text}")
        lines.append("")
    return "\n".join(lines + ["ratio: Python / tandem"])


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--python", default=sys.executable, help="interpreter with the packages of peers/host_work.py")
    arguments.add_argument("--binary", type=Path, default=ROOT / "target/release/tandem-benchmarks")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    arguments.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/host-work.json")
    given = arguments.parse_args()
    if given.rounds < 1 or not given.binary.is_file():
        sys.exit(f"--rounds must be 1 or more, and {given.binary} must exist (see --help)")
    pin = ["taskset", "-c", str(given.core)] if shutil.which("taskset") else []
    if not pin:
        sys.exit("taskset (util-linux) is required to pin both to one core")

    # Both are measured on one temporary recording of about 400 MB.
    with tempfile.TemporaryDirectory() as folder:
        recorded = run([str(given.binary), "host-work", "record", folder])
        peer = str(ROOT / "benchmarks/peers/host_work.py")
        tandem_command = [*pin, str(given.binary), "host-work", "measure", folder]
        python_command = [*pin, given.python, peer, folder]
        tandem, python, load = [], [], []
        for number in range(given.rounds):
            print(f"round {number + 1} of {given.rounds}", file=sys.stderr)
            load.append(os.getloadavg()[0])
            tandem.append(run(tandem_command))
            python.append(run(python_command))
            if not python[-1]["checks"]["ok"]:
                sys.exit(f"the results of the Python peer differ: {json.dumps(python[-1]['checks'], indent=1)}")

    result = {
        "bench": "host-work",
        "made_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(given.core),
        "versions": {**versions(), "tandem": tandem[0]["version"], "python": python[0]["version"]},
        "commands": [
            "tandem-benchmarks host-work record DIR",
            f"taskset -c {given.core} tandem-benchmarks host-work measure DIR",
            f"taskset -c {given.core} python benchmarks/peers/host_work.py DIR",
        ],
        "environment": ONE_THREAD,
        "order": "tandem, Python, tandem, Python, …",
        "load_before_each_round": load,
        "unit": "ns",
        "recording": recorded,
        "checks": python[-1]["checks"],
        "stages": dict(rows(tandem, python, "stages")),
        "totals": dict(rows(tandem, python, "totals")),
        "raw": {
            name: [{stage: of["samples"] for stage, of in one["stages"].items()} for one in rounds]
            for name, rounds in (("tandem", tandem), ("python", python))
        },
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    partial = given.out.with_suffix(".partial")
    partial.write_text(json.dumps(result) + "\n")
    partial.replace(given.out)
    print(table(result))
    print(f"wrote {given.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
