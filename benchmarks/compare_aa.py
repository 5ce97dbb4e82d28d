#!/usr/bin/env python3
"""Measures false alarms and detection rate of `tandem compare` on profiles of one engine.

Takes short profiles of one engine folder, half of them while busy processes run, and compares them with
each other: one per side (adjacent profiles, each in one pair only) and four per side, alternating. Every
verdict "faster" or "slower" is a false alarm. Then the times of the second profile or group are
multiplied by 1.2 and 1.5, and the verdicts "slower" on the median of the tick are counted. Everything is
repeated with the load removed from the files, to test the intervals without that information.
Usage: compare_aa.py BINARY ENGINE FOLDER > result.json
FOLDER keeps the profiles; existing ones are not taken again.
"""

import argparse
import itertools
import json
import multiprocessing
import random
import subprocess
import sys
import time
from pathlib import Path

import card

PHASE = "back_to_back"


def spin(seed, stop):
    """Alternates between work and sleep for random times of up to some seconds, like compilers."""
    rng = random.Random(seed)
    while not stop.is_set():
        until = time.monotonic() + rng.uniform(0.05, 4)
        while time.monotonic() < until and not stop.is_set():
            sum(range(5000))
        time.sleep(rng.uniform(0, 3))


def take(args, kind, number):
    out = args.folder / f"{kind}-{number}.json"
    if out.exists():
        return out
    stop, busy = multiprocessing.Event(), []
    if kind == "loaded":
        busy = [multiprocessing.Process(target=spin, args=(10 * number + n, stop)) for n in range(args.busy)]
    for process in busy:
        process.start()
    try:
        subprocess.run(
            [args.binary, "profile", "--engine", args.engine, "--phases", "back-to-back", "--warm-up", "10",
             "--observations", "10", "--ticks", str(args.ticks), "--out", out],
            check=True, capture_output=True)
    finally:
        stop.set()
        for process in busy:
            process.join()
    return out


def changed(path, folder, name, factor=1.0, erase=False):
    """Writes a copy with all times of ticks and prefills multiplied, or without load information."""
    profile = json.loads(path.read_text())
    if erase:
        profile["machine"]["load_1min"] = None
    for phase in profile["phases"]:
        if erase:
            phase["others_share"] = None
        for samples in (phase["ticks"], phase["refreshes"]):
            for column in samples["stages"].values():
                column["took_ns"] = [took if took is None else int(took * factor) for took in column["took_ns"]]
    out = folder / f"{name}-{path.name}"
    out.write_text(json.dumps(profile))
    return out


def compare(args, a, b):
    sides = [a[0], b[0]] if len(a) == 1 else ["--a", *a, "--b", *b]
    command = [args.binary, "compare", *sides, "--phase", PHASE, "--json", "--check"]
    found = subprocess.run(command, capture_output=True, text=True)
    if found.returncode not in (0, 1):
        sys.exit(f"{found.stderr}")
    return json.loads(found.stdout)


def summary(comparisons):
    rows = [row for comparison in comparisons for row in comparison["rows"]]
    count = lambda change: sum(row["change"] == change for row in rows)
    has_change = lambda comparison, changes: any(row["change"] in changes for row in comparison["rows"])
    tick = lambda comparison: next(
        row["change"] for row in comparison["rows"] if (row["what"], row["percentile"]) == ("tick", "p50"))
    return {
        "comparisons": len(comparisons),
        "not_judged_at_all": sum(comparison["not_judged"] is not None for comparison in comparisons),
        "tick_p50_judged": sum(
            any(row["what"] == "tick" and row["percentile"] == "p50" and row["interval"] for row in comparison["rows"])
            for comparison in comparisons),
        "with_a_row_faster_or_slower": sum(has_change(comparison, ("faster", "slower")) for comparison in comparisons),
        "tick_p50_slower": sum(tick(comparison) == "slower" for comparison in comparisons),
        "check_slower": sum(comparison["check"] == "slower" for comparison in comparisons),
        "rows": {change: count(change) for change in ("faster", "slower", "alike", "cannot_tell")},
    }


def evaluate(args, profiles, factor=1.0, erase=False):
    """Compares disjoint pairs of adjacent profiles, and alternating groups of four."""
    scratch = args.folder / "changed"
    scratch.mkdir(exist_ok=True)
    as_a = [changed(path, scratch, "a", erase=erase) for path in profiles]
    as_b = [changed(path, scratch, "b", factor, erase) for path in profiles]
    pairs = [([as_a[n]], [as_b[n + 1]]) for n in range(0, len(profiles) - 1, 2)]
    # The groups of a comparison are disjoint; windows of eight profiles start four apart.
    windows = range(0, len(profiles) - 7, 4)
    groups = [([as_a[n + k] for k in (0, 2, 4, 6)], [as_b[n + k] for k in (1, 3, 5, 7)]) for n in windows]
    return {
        "one_a_side": summary([compare(args, a, b) for a, b in pairs]),
        "four_a_side": summary([compare(args, a, b) for a, b in groups]) if groups else None,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("engine")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--profiles", type=int, default=40, help="number of profiles of each kind")
    parser.add_argument("--ticks", type=int, default=220)
    parser.add_argument("--busy", type=int, default=3, help="busy processes during half of the profiles")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    machine, began = card.machine(), time.time()
    taken = {"no_load_of_ours": [], "loaded": []}
    for number, kind in itertools.product(range(args.profiles), taken):
        taken[kind].append(take(args, kind, number))
        print(f"{kind} {number}", file=sys.stderr)
    result = {
        "bench": "verdicts of tandem compare on profiles of one engine",
        "command": " ".join(["compare_aa.py", "BINARY", "ENGINE", "FOLDER", *sys.argv[4:]]),
        "machine": machine,
        "ticks": args.ticks,
        "busy_processes": args.busy,
        "pairs": "neighbors, each profile in one pair; groups of four a side in turn, every profile in two",
        "kinds": {},
    }
    for kind, profiles in taken.items():
        read = [json.loads(path.read_text()) for path in profiles]
        result["kinds"][kind] = {
            "profiles": len(profiles),
            "load_at_start": sorted(profile["machine"]["load_1min"] for profile in read),
            "others_share": sorted(round(profile["phases"][0]["others_share"], 3) for profile in read),
            "same": evaluate(args, profiles),
            "same_load_erased": evaluate(args, profiles, erase=True),
            "times_1.2": evaluate(args, profiles, 1.2),
            "times_1.2_load_erased": evaluate(args, profiles, 1.2, erase=True),
            "times_1.5": evaluate(args, profiles, 1.5),
            "times_1.5_load_erased": evaluate(args, profiles, 1.5, erase=True),
        }
    result["took_s"] = round(time.time() - began)
    print(json.dumps(result, indent=1))


main()
