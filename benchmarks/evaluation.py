#!/usr/bin/env python3
"""Measures scores of drivers in the embedded world over a route file, and their wall time.

Runs `tandem eval` without sensors: the autopilot twice (result files are compared byte by byte), five
times with different seeds, with a latency of two seconds, and two drivers that ignore other actors.
Usage: evaluation.py BINARY ROUTES.xml > result.json, then evaluation.py --table result.json for the table
by scenario type.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from statistics import mean, stdev

import card

# Two-sided 95 % quantile of Student's t with 4 degrees of freedom, for means of five seeds.
T_5 = 2.776
REPETITIONS = 5


def drive(binary, routes, out, driver, *more):
    command = [binary, "eval", "--routes", routes, "--driver", driver, "--out", str(out), *more]
    start = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - start


def records(folder):
    return json.loads((folder / "merged.json").read_text())["_checkpoint"]["records"]


def is_success(record):
    faults = [kind for kind, found in record["infractions"].items() if found]
    return record["status"] in ("Completed", "Perfect") and faults in ([], ["min_speed_infractions"])


def score(binary, routes, folder):
    command = [binary, "score", str(folder), "--routes", routes, "--json"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    card = json.loads(text)
    names = ("finished", "total", "driving_score", "success_rate", "abilities_0_0_4", "statuses")
    found = {name: card[name] for name in names}
    found["infractions"] = {kind: n for kind, n in card["infractions"].items() if n}
    return found


def by_scenario(routes, found):
    types = {
        route.get("id"): route.find("scenarios")[0].get("type")
        for route in ElementTree.parse(routes).getroot().iter("route")
    }
    table = {}
    for record in found:
        kind = types[record["route_id"].split("_")[1]]
        row = table.setdefault(kind, {"routes": 0, "successes": 0, "scores": [], "infractions": {}})
        row["routes"] += 1
        row["successes"] += is_success(record)
        row["scores"].append(record["scores"]["score_composed"])
        for name, events in record["infractions"].items():
            if events and name != "min_speed_infractions":
                row["infractions"][name] = row["infractions"].get(name, 0) + len(events)
    for row in table.values():
        row["driving_score"] = round(mean(row.pop("scores")), 2)
    return dict(sorted(table.items()))


def same_bytes(one, other):
    names = sorted(str(p.relative_to(one)) for p in one.glob("routes/*.json")) + ["merged.json"]
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


def spread(folder):
    scores = {}
    for record in records(folder):
        repetition = re.search(r"_rep(\d+)$", record["route_id"])[1]
        scores.setdefault(repetition, []).append(record)
    per_seed = [
        {
            "routes": len(found),
            "driving_score": mean(r["scores"]["score_composed"] for r in found),
            "success_rate": mean(is_success(r) for r in found),
        }
        for _, found in sorted(scores.items())
    ]
    interval = {}
    for name in ("driving_score", "success_rate"):
        values = [seed[name] for seed in per_seed]
        half = T_5 * stdev(values) / len(values) ** 0.5
        interval[name] = {"mean": mean(values), "half_width_95": half, "sd": stdev(values)}
    return {"per_seed": per_seed, "over_seeds": interval}


def main():
    binary, routes = sys.argv[1:]
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        walls = [drive(binary, routes, scratch / name, "autopilot") for name in ("one", "two")]
        found = records(scratch / "one")
        result = {
            "command": f"benchmarks/evaluation.py {os.path.basename(binary)} {os.path.basename(routes)}",
            "machine": card.machine(),
            "note": "Scores of the embedded world are not CARLA scores.",
            "autopilot": score(binary, routes, scratch / "one"),
            "wall_s": [round(wall, 2) for wall in walls],
            "two_runs_have_the_same_bytes": same_bytes(scratch / "one", scratch / "two"),
        }
        result["autopilot"]["by_scenario"] = by_scenario(routes, found)
        drive(binary, routes, scratch / "five", "autopilot", "--repetitions", str(REPETITIONS))
        result["five_seeds"] = spread(scratch / "five")
        others = {
            "autopilot, 2 s late": ("autopilot", "--latency", "fast=2000"),
            "constant speed, blind": ("constant-speed",),
            "idle": ("idle",),
        }
        for number, (name, arguments) in enumerate(others.items()):
            folder = scratch / f"other{number}"
            drive(binary, routes, folder, *arguments)
            result[name] = score(binary, routes, folder)
            result[name]["by_scenario"] = by_scenario(routes, records(folder))
    print(json.dumps(result, indent=1))


def table(file):
    result = json.loads(Path(file).read_text())
    drivers = ["autopilot", "autopilot, 2 s late", "constant speed, blind", "idle"]
    print("| scenario type | routes | " + " | ".join(drivers) + " |")
    print("|---|---:|" + "---:|" * len(drivers))
    for kind, row in result["autopilot"]["by_scenario"].items():
        cells = [result[driver]["by_scenario"][kind] for driver in drivers]
        texts = [f"{cell['driving_score']:.1f}, {cell['successes']}/{cell['routes']}" for cell in cells]
        print(f"| {kind} | {row['routes']} | " + " | ".join(texts) + " |")


if sys.argv[1] == "--table":
    table(sys.argv[2])
else:
    main()
