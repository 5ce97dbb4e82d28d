"""Common part of the peers of `networks`: arguments, validation against the dump, timing, report.

A peer yields cases. Each is validated against the outputs that tandem dumped, then timed. The report is one
line of JSON: networks -> forms -> percentiles, as `benchmarks/src/networks.rs` reports its own networks.
A form that its library cannot run is reported as {"failed": reason}.
"""

import argparse
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

import numpy as np
from safetensors import safe_open

TOLERANCE = 2e-3
WARM_UP = 3


@dataclass
class Case:
    network: str
    form: str
    function: Callable
    inputs: tuple
    # Returns {name: (found, expected)} for a result of the function.
    check: Callable
    # Further fields of the report.
    about: dict[str, Any] = field(default_factory=dict)

    def call(self):
        return self.function(*self.inputs)


class Wrong(Exception):
    """Raised if a result differs from tandem's."""


def arguments(doc, folder="checkpoint"):
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(folder, type=Path, help=f"{folder} folder")
    parser.add_argument("dump", type=Path, help="folder that `networks --dump` wrote")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=15.0, help="stop a network after this long")
    parser.add_argument("--fewest", type=int, default=10, help="minimum number of samples")
    return parser.parse_args()


def dump_path(folder, network):
    return folder / f"{network}.safetensors"


def dumped(folder, network, framework):
    """Tensors and sizes of a dump; `framework` is "pt" or "np"."""
    with safe_open(dump_path(folder, network), framework) as file:
        sizes = {key: float(value) for key, value in file.metadata().items()}
        return {name: file.get_tensor(name) for name in file.keys()}, sizes


def difference(pairs):
    """Largest difference of all outputs."""
    worst = 0.0
    for name, (found, expected) in pairs.items():
        found, expected = np.asarray(found), np.asarray(expected)
        if found.shape != expected.shape:
            raise Wrong(f"{name} has shape {found.shape}, tandem's has {expected.shape}")
        largest = float(np.abs(found.astype(np.float64) - expected.astype(np.float64)).max())
        allowed = TOLERANCE if found.dtype.kind == "f" else 0
        if not largest <= allowed:
            raise Wrong(f"{name} differs from tandem's by {largest:.3g}, more than {allowed}")
        worst = max(worst, largest)
    return worst


def validated(case):
    """The case's report before timing. The first call loads or compiles what is loaded lazily."""
    start = time.perf_counter()
    result = case.call()
    first_call_s = round(time.perf_counter() - start, 3)
    worst = difference(case.check(result))
    return {**case.about, "first_call_s": first_call_s, "largest_difference": worst}


def sample(call, options):
    for _ in range(WARM_UP):
        call()
    samples, begin, cpu = [], time.perf_counter(), time.process_time()
    while len(samples) < options.runs:
        if len(samples) >= options.fewest and time.perf_counter() - begin > options.seconds:
            break
        start = time.perf_counter_ns()
        call()
        samples.append(round((time.perf_counter_ns() - start) / 1000, 1))
    return samples, (time.process_time() - cpu) * 1e6


def summary(samples, cpu_us):
    ranked = sorted(samples)
    rank = lambda percent: ranked[max(-(-len(ranked) * percent // 100), 1) - 1]
    return {
        "count": len(ranked),
        "p50_us": rank(50),
        "p99_us": rank(99),
        "min_us": ranked[0],
        "cpu_us_per_run": round(cpu_us / len(ranked)),
        "samples_us": samples,
    }


def measure(cases, options, may_fail=False):
    """Validates all cases, then times them. With `may_fail`, an error of the library or a wrong result is
    reported as the failure of one form; without it, it ends the run."""
    networks, failures = {}, Exception if may_fail else ()
    valid = []
    for case in cases:
        forms = networks.setdefault(case.network, {})
        try:
            forms[case.form] = validated(case)
            valid.append(case)
        except failures as error:
            forms[case.form] = {"failed": f"{type(error).__name__}: {error}"}
        except Wrong as wrong:
            raise SystemExit(f"{case.network}, {case.form}: {wrong}") from wrong
    for case in valid:
        networks[case.network][case.form] |= summary(*sample(case.call, options))
    return networks


def report(library, networks, options):
    print(json.dumps({
        "bench": "networks",
        "library": library,
        "threads": options.threads,
        "tolerance": TOLERANCE,
        "warm_up": WARM_UP,
        "networks": networks,
    }))
