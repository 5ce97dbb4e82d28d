#!/usr/bin/env python3
"""Measures the runtime's cost per tick: everything except network runs and sensor rendering.

Reads the per-tick logs of `tandem eval` and `tandem demo` (`logs/*.json`) and computes, for each tick, the
time of the tick minus that of the BEV encoder and the action expert. Rendering and scoring are not part of
a tick. Usage: runtime_cost.py RESULT_FOLDER… > result.json
"""

import json
import math
import statistics
import sys
from pathlib import Path

import card

WARM_UP_TICKS = 60


def nearest_rank(values, percent):
    return values[max(1, math.ceil(len(values) * percent / 100)) - 1]


def column(runs):
    """Returns entries by tick, in tenths of a microsecond, from runs of (first, count) and their values."""
    values = iter(runs["values"])
    return {tick: next(values) for first, count in runs["runs"] for tick in range(first, first + count)}


def samples(folder, warm_up):
    found = []
    for log in sorted((folder / "logs").glob("*.json")):
        stages = json.loads(log.read_text())["drive"]["stages"]
        if "tick" not in stages or "action" not in stages:
            continue
        tick, bev, action = (column(stages[name]) for name in ("tick", "bev", "action"))
        found += [100 * (tick[at] - bev[at] - action[at]) for at in action if at >= warm_up]
    if not found:
        sys.exit(f"{folder} has no ticks after the first {warm_up} in which a model ran")
    return found


def run(found):
    ordered = sorted(found)
    return {
        "count": len(ordered),
        "p50_us": nearest_rank(ordered, 50) / 1e3,
        "p90_us": nearest_rank(ordered, 90) / 1e3,
        "p99_us": nearest_rank(ordered, 99) / 1e3,
        "max_us": ordered[-1] / 1e3,
        "samples_ns": found,
    }


def main():
    runs = [run(samples(Path(folder), WARM_UP_TICKS)) for folder in sys.argv[1:]]
    print(json.dumps({
        "bench": "runtime cost per tick: tick less BEV encoder less action expert",
        "command": "tandem demo; python3 benchmarks/runtime_cost.py results/demo/automot",
        "machine": card.machine(),
        "percentiles": "nearest rank",
        "warm_up_ticks": WARM_UP_TICKS,
        "median_of_p50_us": statistics.median(run["p50_us"] for run in runs),
        "median_of_p99_us": statistics.median(run["p99_us"] for run in runs),
        "runs": runs,
    }))


main()
