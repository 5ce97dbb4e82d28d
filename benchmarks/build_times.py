#!/usr/bin/env python3
"""Time and processor time of builds, of this checkout and of another of before, in one run.

    benchmarks/build_times.py BEFORE AFTER SCRATCH > benchmarks/results/build-times.json

BEFORE and AFTER are clean checkouts whose crates are fetched; SCRATCH gets a target folder for each
(some 15 GB). Cold builds are made once, rebuilds after a change of one line three times, in turn.
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

# For each place of a change: the file, and the command that builds the tests of that place.
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
    """Runs cargo; returns seconds and seconds of processor time."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CARGO_PROFILE")}
    environment["CARGO_TARGET_DIR"] = str(target)
    used = lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    began, processor = time.monotonic(), used()
    subprocess.run(["cargo", *arguments], cwd=checkout, env=environment, check=True, stdout=sys.stderr)
    took = {"s": round(time.monotonic() - began, 1), "processor_s": round(used() - processor, 1)}
    print(checkout, arguments, took, file=sys.stderr)
    return took


def change(file, round_number):
    """Adds a line that a compiler cannot skip, and returns what the file was."""
    text = file.read_text()
    file.write_text(text + f"\n#[allow(dead_code, missing_docs)]\npub fn changed_{round_number}() {{}}\n")
    return text


def main():
    before, after, scratch = sys.argv[1:]
    sides = {"before": pathlib.Path(before), "after": pathlib.Path(after)}
    target = lambda side: pathlib.Path(scratch) / side
    taken = {}
    for what, arguments in COLD.items():
        taken[what] = {side: [cargo(sides[side], target(side) / what.split(",")[0], arguments)] for side in sides}
    rebuilds = [(f"{place}, its own tests", place, None) for place in CHANGES["after"]]
    rebuilds += [(f"{place}, all tests", place, ["test"]) for place in CHANGES["after"]]
    for what, place, everything in rebuilds:
        taken[what] = {side: [] for side in sides}
        for round_number in range(ROUNDS if everything is None else 1):
            for side, checkout in sides.items():
                file, own = CHANGES[side][place]
                was = change(checkout / file, round_number)
                arguments = [*(everything or own), "--no-run"]
                try:
                    taken[what][side].append(cargo(checkout, target(side) / "all tests", arguments))
                finally:
                    (checkout / file).write_text(was)
        # What the next place begins with.
        for side, checkout in sides.items():
            cargo(checkout, target(side) / "all tests", [*(everything or CHANGES[side][place][1]), "--no-run"])
    commit = lambda checkout: subprocess.run(
        ["git", "-C", checkout, "rev-parse", "--short", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    rows = {
        what: {
            "median_s": {side: statistics.median(run["s"] for run in runs) for side, runs in by_side.items()},
            "after_over_before": {
                key: round(
                    statistics.median(run[key] for run in by_side["after"])
                    / statistics.median(run[key] for run in by_side["before"]),
                    2,
                )
                for key in ("s", "processor_s")
            },
            "runs": by_side,
        }
        for what, by_side in taken.items()
    }
    print(json.dumps({
        "bench": "build_times",
        "command": "benchmarks/build_times.py BEFORE AFTER SCRATCH",
        "commits": {side: commit(checkout) for side, checkout in sides.items()},
        "changes": {side: {place: file for place, (file, _) in places.items()} for side, places in CHANGES.items()},
        "own_tests": {
            side: {place: "cargo " + " ".join(own) for place, (_, own) in places.items()}
            for side, places in CHANGES.items()
        },
        "machine": {**card.machine(), "processor": card.processor()},
        "rustc": subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.strip(),
        "rows": rows,
    }, indent=1))


main()
