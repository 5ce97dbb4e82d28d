#!/usr/bin/env python3
"""The runtime's own cost per tick: everything except engine runs and sensor rendering.

Reads the per-tick logs that `tandem eval` and `tandem demo` leave (`logs/*.json`) and takes, tick by
tick, the time of the whole tick less that of the BEV encoder and the action expert. Rendering and
judging are no part of a tick. Usage: runtime_cost.py RESULT_FOLDER [WARM_UP_TICKS] > result.json
"""

import json
import math
import sys
from pathlib import Path

import card


def nearest_rank(values, percent):
    return values[max(1, math.ceil(len(values) * percent / 100)) - 1]


def main():
    folder = Path(sys.argv[1])
    warm_up = int(sys.argv[2]) if len(sys.argv) > 2 else 40
    samples = []
    for log in sorted((folder / "logs").glob("*.json")):
        for tick in json.loads(log.read_text())["ticks"][warm_up:]:
            stages = tick["stages_ns"]
            if "tick" in stages and "action" in stages:
                samples.append(stages["tick"] - stages["bev"] - stages["action"])
    if not samples:
        sys.exit(f"{folder} has no ticks behind the first {warm_up} in which a model acted")
    ordered = sorted(samples)
    result = {
        "bench": "runtime cost per tick: tick less BEV encoder less action expert",
        "command": "tandem demo; python3 benchmarks/runtime_cost.py results/demo/automot",
        "machine": card.machine(),
        "percentiles": "nearest rank",
        "warm_up_ticks": warm_up,
        "count": len(ordered),
        "p50_us": nearest_rank(ordered, 50) / 1e3,
        "p90_us": nearest_rank(ordered, 90) / 1e3,
        "p99_us": nearest_rank(ordered, 99) / 1e3,
        "max_us": ordered[-1] / 1e3,
        "samples_ns": samples,
    }
    print(json.dumps(result))


main()
