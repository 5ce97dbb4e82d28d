#!/usr/bin/env python3
"""Measures the effect of packed matrices on the CPU: load time, memory and run time of every network.

    benchmarks/packing.py NETWORKS_BINARY NAME=ENGINE_DIR... > benchmarks/results/packing.json

Runs the binary `networks` alternately with and without packing, three rounds each, on one thread. Load time
and memory are those of loading one network; memory excludes mapped files.
"""

import json
import statistics
import subprocess
import sys

import card

ROUNDS = 3
AMOUNT = ("--threads", "1", "--runs", "20", "--seconds", "2", "--fewest", "3")


def turn(binary, folder, options):
    printed = subprocess.run([binary, folder, *AMOUNT, *options], stdout=subprocess.PIPE, check=True, text=True)
    report = json.loads(printed.stdout)
    for network in report["networks"].values():
        del network["samples_us"]
    return report


def medians(turns):
    keys = ("p50_us", "cpu_us_per_run", "load_us", "load_anonymous_bytes")
    names = turns[0]["networks"]
    return {name: {key: statistics.median(t["networks"][name][key] for t in turns) for key in keys} for name in names}


def main():
    binary, folders = sys.argv[1], dict(argument.split("=", 1) for argument in sys.argv[2:])
    sizes, library = {}, None
    for size, folder in folders.items():
        turns = {"packed": [], "unpacked": []}
        for _ in range(ROUNDS):
            for form, options in (("packed", ()), ("unpacked", ("--no-prepack",))):
                turns[form].append(turn(binary, folder, options))
                library = turns[form][-1]["library"]
        sizes[size] = {"medians": {form: medians(found) for form, found in turns.items()}, "turns": turns}
        print(size, json.dumps(sizes[size]["medians"]), file=sys.stderr)
    print(json.dumps({
        "bench": "packing",
        "command": "benchmarks/packing.py target/release/networks " + " ".join(f"{size}=ENGINE_DIR" for size in folders),
        "commit": card.commit(),
        "machine": {**card.machine(), "processor": card.processor()},
        "library": library,
        "percentiles": "nearest rank; medians of the rounds",
        "sizes": sizes,
    }, indent=1))


main()
