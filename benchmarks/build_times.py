#!/usr/bin/env python3
"""Compares build times and processor times of two checkouts in one run.

    benchmarks/build_times.py BEFORE AFTER SCRATCH OUT.json

BEFORE and AFTER are clean checkouts with fetched crates. SCRATCH receives a target folder for each
(about 15 GB); SCRATCH/*/tests of an earlier call is reused. Rebuilds after a one-line change are
measured three times, alternating between the checkouts; cold builds once. OUT.json is rewritten after
every row, so an interrupted call keeps its results.
"""

import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time

import card

ROUNDS = 3

# For each changed place: the file, and the command that builds the tests of that place.
CHANGES = {
    "before": {
        "world": ("src/world/embedded/mod.rs", ["test", "--package", "tandem", "--lib"]),
        "engine": ("src/engine/session.rs", ["test", "--package", "tandem", "--lib"]),
        "command line": ("src/cli/eval.rs", ["test", "--package", "tandem", "--test", "cli"]),
    },
    "after": {
        "world": ("crates/world/src/world.rs", ["test", "--package", "tandem-world"]),
        "engine": ("src/engine/session.rs", ["test", "--package", "tandem", "--lib"]),
        "command line": ("crates/cli/src/eval.rs", ["test", "--package", "tandem-cli", "--test", "it"]),
    },
}

COLD = {
    "demo, cold": ["build", "--release", "--bin", "tandem"],
    "all tests, cold": ["test", "--no-run"],
}


def cargo(checkout, target, arguments):
    """Runs cargo; returns wall time and processor time in seconds."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CARGO_PROFILE")}
    environment["CARGO_TARGET_DIR"] = str(target)
    used = lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    began, processor = time.monotonic(), used()
    subprocess.run(["cargo", *arguments], cwd=checkout, env=environment, check=True, stdout=sys.stderr)
    took = {"s": round(time.monotonic() - began, 1), "processor_s": round(used() - processor, 1)}
    print(checkout, arguments, took, file=sys.stderr)
    return took


def change(file, round_number):
    """Adds a public function to a file, and returns the previous content."""
    text = file.read_text()
    file.write_text(text + f"\n#[allow(dead_code, missing_docs)]\npub fn changed_{round_number}() {{}}\n")
    return text


def main():
    before, after, scratch, out = sys.argv[1:]
    sides = {"before": pathlib.Path(before), "after": pathlib.Path(after)}
    target = lambda side, what: pathlib.Path(scratch) / side / what
    own = {side: {place: [*command, "--no-run"] for place, (_, command) in CHANGES[side].items()} for side in sides}
    rows = {}
    for place in CHANGES["after"]:
        runs = {side: [] for side in sides}
        # Initial build, not measured.
        for side, checkout in sides.items():
            cargo(checkout, target(side, "tests"), own[side][place])
        for round_number in range(ROUNDS):
            for side, checkout in sides.items():
                file = checkout / CHANGES[side][place][0]
                was = change(file, round_number)
                try:
                    runs[side].append(cargo(checkout, target(side, "tests"), own[side][place]))
                finally:
                    file.write_text(was)
        add(rows, f"a line in the {place}, to its own tests", runs, sides, out)
    for what, command in COLD.items():
        runs = {side: [cargo(sides[side], target(side, "cold"), command)] for side in sides}
        add(rows, what, runs, sides, out)


def add(rows, what, runs, sides, out):
    """Adds a row and writes the result file."""
    median = lambda side, key: statistics.median(run[key] for run in runs[side])
    rows[what] = {
        "median_s": {side: median(side, "s") for side in runs},
        "after_over_before": {key: round(median("after", key) / median("before", key), 2) for key in ("s", "processor_s")},
        "runs": runs,
    }
    commit = lambda checkout: subprocess.run(
        ["git", "-C", checkout, "rev-parse", "--short", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    result = {
        "bench": "build_times",
        "command": "benchmarks/build_times.py BEFORE AFTER SCRATCH OUT.json",
        "commits": {side: commit(checkout) for side, checkout in sides.items()},
        "changed": {side: {place: file for place, (file, _) in places.items()} for side, places in CHANGES.items()},
        "own_tests": {
            side: {place: "cargo " + " ".join(command) for place, (_, command) in places.items()}
            for side, places in CHANGES.items()
        },
        "cold": {what: "cargo " + " ".join(command) for what, command in COLD.items()},
        "machine": {**card.machine(), "processor": card.processor()},
        "rustc": subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.strip(),
        "rows": rows,
    }
    pathlib.Path(out).write_text(json.dumps(result, indent=1) + "\n")


main()
