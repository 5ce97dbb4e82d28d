#!/usr/bin/env python3
"""Compares tandem's networks with PyTorch and OpenVINO on the same checkpoint, inputs and machine.

    benchmarks/compare_networks.py --config configs/tiny.json --python PYTHON

Generates and exports the configuration to a temporary folder, runs tandem, PyTorch eager, PyTorch compiled
and OpenVINO one after the other in every round, and writes benchmarks/results/networks-NAME.json with a
machine card, the commands and the percentiles of every round. The machine should be idle: the load average
before every run is in the file, and --max-load waits until it is low enough.

The interpreter given by --python needs a C++ compiler, its own headers (Python.h), and
    pip install torch==2.7.1 openvino==2026.4.1 safetensors==0.8.0 numpy==2.4.6
"""

import argparse
import datetime
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import card
from networks_table import RATIOS, ratios, summary, table

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / "benchmarks" / "peers"
# Seconds between two samples of the memory of a process.
MEMORY_PERIOD = 0.2


def output(command):
    done = subprocess.run([str(word) for word in command], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"failed ({done.returncode}): {shlex.join(str(word) for word in command)}")
    return done.stdout


class Commands:
    """Runs commands and records them with machine-independent paths."""

    def __init__(self, places):
        self.places, self.lines = places, []

    def run(self, *command):
        self.record(command)
        return output(command)

    def record(self, command):
        words = []
        for word in map(str, command):
            for place, name in self.places:
                word = word.replace(str(place), name)
            words.append(word)
        if (line := " ".join(words)) not in self.lines:
            self.lines.append(line)

    def measure(self, *command):
        """Returns the report that the command prints, and the maximum memory of its process."""
        self.record(command)
        words, memory = [str(word) for word in command], {}
        with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            while True:
                for name, kib in memory_kib(process.pid).items():
                    memory[name] = max(memory.get(name, 0), kib)
                try:
                    printed, _ = process.communicate(timeout=MEMORY_PERIOD)
                    break
                except subprocess.TimeoutExpired:
                    continue
        if process.returncode != 0:
            sys.exit(f"failed ({process.returncode}): {shlex.join(words)}")
        return json.loads(printed), memory


def memory_kib(pid):
    """Returns peak resident memory, and current anonymous memory, which excludes file mappings."""
    names = {"VmHWM": "peak_resident_kib", "RssAnon": "peak_anonymous_kib"}
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    fields = (line.split(":", 1) for line in lines if ":" in line)
    return {names[name]: int(value.split()[0]) for name, value in fields if name in names}


def machine():
    return {
        "processor": card.processor(),
        "memory": card.field("/proc/meminfo", "MemTotal"),
        "kernel": platform.release(),
        "architecture": platform.machine(),
    }


def wait_for_quiet(max_load, patience_s):
    """Waits for a low load and returns the one-minute load average, which includes earlier runs."""
    until = time.monotonic() + patience_s
    while max_load is not None and os.getloadavg()[0] > max_load and time.monotonic() < until:
        time.sleep(2)
    return round(os.getloadavg()[0], 2)


def without_samples(networks):
    return {key: value for key, value in networks.items() if key != "samples_us"}


def turn(report, load, memory):
    networks = {}
    for name, found in report["networks"].items():
        is_tandem = "p50_us" in found
        networks[name] = without_samples(found) if is_tandem else {f: without_samples(x) for f, x in found.items()}
    return {"load_before": load, "memory": memory, "networks": networks}


def cargo_metadata():
    return json.loads(output(["cargo", "metadata", "--no-deps", "--format-version", "1"]))


def prepare(commands, binaries, folder, config):
    """Builds the binaries, exports the configuration and dumps the tensors of one run."""
    commands.run("cargo", "build", "--release", "-p", "tandem-cli", "-p", "tandem-benchmarks", "--bins")
    checkpoint, engine, dump = (folder / name for name in ("checkpoint", "engine", "dump"))
    tandem, networks = binaries / "tandem", binaries / "networks"
    commands.run(tandem, "checkpoint", "synth", "--config", config, "--seed", 1, "--out", checkpoint)
    commands.run(tandem, "export", "--checkpoint", checkpoint, "--out", engine)
    commands.run(networks, engine, "--runs", 1, "--fewest", 1, "--dump", dump)
    return checkpoint, engine, dump


def sides(python, networks, checkpoint, engine, dump):
    """Returns the commands that are timed."""
    return {
        "tandem": (networks, engine),
        "pytorch": (python, PEERS / "automot_eager.py", checkpoint, dump),
        "compiled": (python, PEERS / "automot_compiled.py", checkpoint, dump),
        "openvino": (python, PEERS / "openvino_networks.py", engine, dump),
    }


def one_round(commands, timed, threads, options):
    amount = ("--runs", options.runs, "--seconds", options.seconds, "--fewest", options.fewest)
    entry, libraries = {"threads": threads}, {}
    for side, command in timed.items():
        load = wait_for_quiet(options.max_load, options.patience)
        report, memory = commands.measure(*command, "--threads", threads, *amount)
        libraries[side] = report["library"]
        entry[side] = turn(report, load, memory)
    for ratio, what in RATIOS.items():
        entry[ratio] = ratios(entry, what)
    return entry, libraries


def compare(options, folder):
    metadata = cargo_metadata()
    binaries = Path(metadata["target_directory"]) / "release"
    places = [(folder, "$TMP"), (binaries, "target/release"), (ROOT, "."), (options.python, "python")]
    commands = Commands(places)
    # Compiled in the first round and loaded in later ones.
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "inductor")
    checkpoint, engine, dump = prepare(commands, binaries, folder, options.config)
    timed = sides(options.python, binaries / "networks", checkpoint, engine, dump)
    rounds = []
    for number in range(options.rounds):
        for threads in options.threads:
            entry, libraries = one_round(commands, timed, threads, options)
            rounds.append({"round": number, **entry})
            print(f"round {number}, {threads} threads: {entry['ratio_of_medians']}", file=sys.stderr)
    exported = {path.stem for path in engine.glob("*.onnx")}
    return {
        "bench": "networks",
        "config": options.config.name,
        "date": datetime.date.today().isoformat(),
        "commit": output(["git", "rev-parse", "HEAD"]).strip(),
        "uncommitted_changes": bool(output(["git", "status", "--porcelain", "--untracked-files=no"]).strip()),
        "machine": machine(),
        "tandem": metadata["packages"][0]["version"],
        "libraries": libraries,
        "dtype": "float32",
        "commands": commands.lines,
        "forms": "release: as the release runs it. lean: constants folded, unread parts skipped, same results. "
        "compiled: by torch.compile, weights frozen. openvino: the exported ONNX files.",
        "not_compared": sorted(exported - set(rounds[0]["tandem"]["networks"])),
        "summary": summary(rounds),
        "rounds": rounds,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/tiny.json"))
    parser.add_argument("--python", default=sys.executable, help="interpreter with torch and openvino")
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, os.cpu_count() or 1}))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=15.0, help="time limit of a network in a round, seconds")
    parser.add_argument("--fewest", type=int, default=10, help="minimum number of samples")
    parser.add_argument("--max-load", type=float, help="wait until the load average is below this")
    parser.add_argument("--patience", type=float, default=120.0, help="maximum time to wait, seconds")
    parser.add_argument("--out", type=Path, help="result file")
    options = parser.parse_args()
    if options.rounds < 3:
        parser.error("--rounds must be 3 or more to show the spread")
    out = options.out or ROOT / "benchmarks" / "results" / f"networks-{options.config.stem}.json"
    with tempfile.TemporaryDirectory() as folder:
        result = compare(options, Path(folder))
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_suffix(".partial")
    partial.write_text(json.dumps(result, indent=1) + "\n")
    partial.replace(out)
    print(table(result["summary"]))
    if result["not_compared"]:
        print(f"not compared, because `networks` does not report them: {', '.join(result['not_compared'])}")
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
