#!/usr/bin/env python3
"""Reports the cost of the profiler, and the time that stages and operators do not cover.

Reads the output of `tandem profile --json --operators`. Prints, per phase, the time of the tick and of the
prefill that no stage covers, per network the share of ONNX Runtime's total that its operators cover, and
the profiler's cost as measured by that process.
Usage: tandem profile --engine DIR --operators --json > FILE; profile.py FILE > result.json
"""

import json
import sys
from pathlib import Path

import card


def shares(phase):
    rests, stages = phase["rests"], phase["stages"]
    of = lambda name: {
        "rest_p50_ns": rests[name]["p50_ns"],
        "rest_p99_ns": rests[name]["p99_ns"],
        "whole_p50_ns": stages[name]["p50_ns"],
        "rest_share_of_p50": rests[name]["p50_ns"] / stages[name]["p50_ns"],
    }
    return {name: of(name) for name in ("response", "tick", "refresh") if name in rests}


def operators(network):
    parts = sum(part["total_ns"] for part in network["parts"])
    return {
        "network": network["network"],
        "runs": network["runs"],
        "operators_share_of_run": parts / network["run_total_ns"],
        "operators": sum(part["operators"] for part in network["parts"]),
    }


def main():
    profile = json.loads(Path(sys.argv[1]).read_text())
    print(json.dumps({
        "bench": "what the profiler costs, and whether its parts add up",
        "command": profile["command"],
        "machine": card.machine(),
        "machine_card": profile["machine"],
        "percentiles": profile["percentiles"],
        "profiler": profile["profiler"],
        "rests": {phase["name"]: shares(phase) for phase in profile["phases"]},
        "operators": [operators(network) for network in profile["operators"] or []],
        "phases": profile["phases"],
    }, indent=1))


main()
