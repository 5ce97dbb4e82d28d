#!/usr/bin/env python3
"""Compares tandem's networks with PyTorch eager on the same checkpoint, inputs and machine.

    benchmarks/compare_networks.py --config configs/tiny.json --python PYTHON_WITH_TORCH

Generates and exports the configuration into a temporary folder, lets both sides take turns (tandem,
PyTorch, tandem, PyTorch, ...), and writes benchmarks/results/networks-NAME.json with a machine card,
the commands and the percentiles of every round. Nothing else should run on the machine meanwhile: the
load average before every turn is in the file, and --max-load waits for it to fall.

The interpreter given by --python needs:  pip install torch==2.7.1 safetensors numpy
"""

import argparse
import datetime
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PEER = "benchmarks/peers/automot_eager.py"
FORMS = ("release", "lean")
# With one thread, CPU time per run hardly feels what else runs on the machine; medians do. With more
# threads it also counts PyTorch's threads spinning as they wait for each other, so it compares nothing.
RATIOS = {"ratio_of_medians": "p50_us", "ratio_of_minima": "min_us", "ratio_of_cpu_time": "cpu_us_per_run"}


def output(command):
    done = subprocess.run([str(word) for word in command], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"failed ({done.returncode}): {shlex.join(str(word) for word in command)}")
    return done.stdout


class Commands:
    """Runs commands and keeps them in words that mean the same on another machine."""

    def __init__(self, places):
        self.places, self.said = places, []

    def run(self, *command):
        said = []
        for word in map(str, command):
            for place, name in self.places:
                word = word.replace(str(place), name)
            said.append(word)
        if (line := " ".join(said)) not in self.said:
            self.said.append(line)
        return output(command)


def machine():
    def field(path, name):
        lines = Path(path).read_text().splitlines()
        return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), None)

    return {
        "cpu": field("/proc/cpuinfo", "model name"),
        "cores": os.cpu_count(),
        "memory": field("/proc/meminfo", "MemTotal"),
        "kernel": platform.release(),
        "architecture": platform.machine(),
    }


def wait_for_quiet(max_load, patience_s):
    """Load average of the last minute, after waiting for it to fall. Own turns count in it too."""
    until = time.monotonic() + patience_s
    while max_load is not None and os.getloadavg()[0] > max_load and time.monotonic() < until:
        time.sleep(2)
    return round(os.getloadavg()[0], 2)


def without_samples(networks):
    return {key: value for key, value in networks.items() if key != "samples_us"}


def turn(report, load):
    networks = {}
    for name, found in report["networks"].items():
        is_tandem = "p50_us" in found
        networks[name] = without_samples(found) if is_tandem else {f: without_samples(x) for f, x in found.items()}
    return {"load_before": load, "networks": networks}


def ratios(entry, what):
    own = {name: found[what] for name, found in entry["tandem"]["networks"].items()}
    peers = entry["pytorch"]["networks"]
    if None in own.values():
        return None
    return {name: {f: round(peers[name][f][what] / us, 3) for f in FORMS} for name, us in own.items()}


def compare(options, folder):
    target = json.loads(output(["cargo", "metadata", "--no-deps", "--format-version", "1"]))["target_directory"]
    binaries = Path(target) / "release"
    places = [(folder, "$TMP"), (binaries, "target/release"), (ROOT, "."), (options.python, "python")]
    commands = Commands(places)
    commands.run("cargo", "build", "--release", "-p", "tandem", "-p", "tandem-benchmarks", "--bins")
    checkpoint, engine, dump = (folder / name for name in ("checkpoint", "engine", "dump"))
    tandem, networks = binaries / "tandem", binaries / "networks"
    commands.run(tandem, "checkpoint", "synth", "--config", options.config, "--seed", 1, "--out", checkpoint)
    commands.run(tandem, "export", "--checkpoint", checkpoint, "--out", engine)
    commands.run(networks, engine, "--runs", 1, "--fewest", 1, "--dump", dump)

    amount = ("--runs", options.runs, "--seconds", options.seconds, "--fewest", options.fewest)
    rounds, libraries = [], {}
    for number in range(options.rounds):
        for threads in options.threads:
            entry = {"round": number, "threads": threads}
            for side, command in (
                ("tandem", (networks, engine)),
                ("pytorch", (options.python, ROOT / PEER, checkpoint, dump)),
            ):
                load = wait_for_quiet(options.max_load, options.patience)
                report = json.loads(commands.run(*command, "--threads", threads, *amount))
                libraries[side] = report["library"]
                entry[side] = turn(report, load)
            for ratio, what in RATIOS.items():
                entry[ratio] = ratios(entry, what)
            rounds.append(entry)
            print(f"round {number}, {threads} threads: {entry['ratio_of_medians']}", file=sys.stderr)
    return {
        "bench": "networks",
        "config": options.config.name,
        "date": datetime.date.today().isoformat(),
        "commit": output(["git", "rev-parse", "HEAD"]).strip(),
        "uncommitted_changes": bool(output(["git", "status", "--porcelain", "--untracked-files=no"]).strip()),
        "machine": machine(),
        "tandem": json.loads(output(["cargo", "metadata", "--no-deps", "--format-version", "1"]))["packages"][0]["version"],
        "libraries": libraries,
        "dtype": "float32",
        "commands": commands.said,
        "forms": "release: as the release runs it. lean: constants folded, unread parts skipped, same results.",
        "rounds": rounds,
    }


def table(result):
    title = f"{'network':14}{'threads':>8}{'tandem p50':>13}{'release p50':>13}{'lean p50':>12}"
    lines = [f"{title}{'release/tandem':>17}{'lean/tandem':>15}{'the same in CPU time':>30}"]
    for threads in sorted({entry["threads"] for entry in result["rounds"]}):
        entries = [entry for entry in result["rounds"] if entry["threads"] == threads]

        def span(ratio, name, form):
            found = [entry[ratio][name][form] for entry in entries if entry[ratio]]
            return f"{min(found):.2f} to {max(found):.2f}" if found else "-"

        for name in entries[0]["tandem"]["networks"]:
            own = statistics.median(entry["tandem"]["networks"][name]["p50_us"] for entry in entries)
            line = f"{name:14}{threads:>8}{own / 1000:>10.2f} ms"
            for form, width in zip(FORMS, (10, 9)):
                peer = statistics.median(e["pytorch"]["networks"][name][form]["p50_us"] for e in entries)
                line += f"{peer / 1000:>{width}.2f} ms"
            spans = [span(ratio, name, form) for ratio in ("ratio_of_medians", "ratio_of_cpu_time") for form in FORMS]
            lines.append(line + f"{spans[0]:>17}{spans[1]:>15}{spans[2]:>15}{spans[3]:>15}")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/tiny.json"))
    parser.add_argument("--python", default=sys.executable, help="interpreter that has torch")
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, os.cpu_count() or 1}))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=15.0, help="stop a network after this long in a round")
    parser.add_argument("--fewest", type=int, default=10, help="samples that even a slow network gets")
    parser.add_argument("--max-load", type=float, help="wait until the load average is below this")
    parser.add_argument("--patience", type=float, default=120.0, help="wait no longer than this, seconds")
    parser.add_argument("--out", type=Path, help="result file")
    options = parser.parse_args()
    if options.rounds < 3:
        parser.error("fewer than three rounds show no spread")
    out = options.out or ROOT / "benchmarks" / "results" / f"networks-{options.config.stem}.json"
    with tempfile.TemporaryDirectory() as folder:
        result = compare(options, Path(folder))
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_suffix(".partial")
    partial.write_text(json.dumps(result, indent=1) + "\n")
    partial.replace(out)
    print(table(result))
    print(f"written to {out}")


if __name__ == "__main__":
    main()
