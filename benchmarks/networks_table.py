"""Ratios and table of benchmarks/compare_networks.py."""

import math
import statistics

# With one thread, CPU time per run is nearly independent of other load, unlike medians. With more threads
# it includes PyTorch's busy waiting, so it is not comparable.
RATIOS = {"ratio_of_medians": "p50_us", "ratio_of_minima": "min_us", "ratio_of_cpu_time": "cpu_us_per_run"}
PEERS = ("pytorch", "compiled", "openvino")
PYTORCH = PEERS[:2]


def forms(entry, network, peers=PEERS):
    """Returns the reports of all forms of a network in one round."""
    found = {}
    for peer in peers:
        found |= entry[peer]["networks"].get(network, {})
    return found


def ratios(entry, what):
    """Returns network -> form -> value relative to tandem's; None for failed forms and unknown values."""
    result = {}
    for network, own in entry["tandem"]["networks"].items():
        reports = forms(entry, network).items()
        result[network] = {form: quotient(report.get(what), own[what]) for form, report in reports}
    return result


def quotient(value, own):
    return round(value / own, 3) if value and own else None


def summary(rounds):
    """Returns a row per thread count, network and form: medians over rounds, and the spread of ratios."""
    rows = []
    for threads in sorted({entry["threads"] for entry in rounds}):
        entries = [entry for entry in rounds if entry["threads"] == threads]
        for network in entries[0]["tandem"]["networks"]:
            rows += network_rows(entries, network, threads)
    return rows


def network_rows(entries, network, threads):
    p50 = lambda reports: round(statistics.median(report["p50_us"] for report in reports) / 1000, 3)
    own = p50(entry["tandem"]["networks"][network] for entry in entries)
    rows = [{"network": network, "threads": threads, "form": "tandem", "p50_ms": own}]
    for form in forms(entries[0], network):
        row = {"network": network, "threads": threads, "form": form}
        reports = [forms(entry, network)[form] for entry in entries]
        failed = [report["failed"] for report in reports if "failed" in report]
        if failed:
            rows.append(row | {"failed": failed[0]})
            continue
        row |= {"p50_ms": p50(reports), "ratio": spread(entries, "ratio_of_medians", network, form)}
        if threads == 1:
            row["cpu_ratio"] = spread(entries, "ratio_of_cpu_time", network, form)
        rows.append(row)
    return rows + fastest(rows, entries, network)


def spread(entries, ratio, network, form):
    """Returns median, minimum and maximum of the ratio over the rounds."""
    found = [entry[ratio][network][form] for entry in entries if entry[ratio][network][form]]
    return [round(value, 3) for value in (statistics.median(found), min(found), max(found))] if found else None


def fastest(rows, entries, network):
    """Returns the PyTorch form with the smallest ratio as an additional row."""
    pytorch = forms(entries[0], network, PYTORCH)
    candidates = [row for row in rows if row["form"] in pytorch and row.get("ratio")]
    if not candidates:
        return []
    best = min(candidates, key=lambda row: row["ratio"][0])
    return [{**best, "form": "fastest PyTorch", "is": best["form"]}]


def table(rows):
    lines = [f"{'network':14}{'threads':>7}  {'form':18}{'p50 ms':>9}  {'/ tandem (min to max)':24}in CPU time"]
    for row in rows:
        line = f"{row['network']:14}{row['threads']:>7}  {row['form']:18}"
        if "failed" in row:
            lines.append(f"{line}  failed: {row['failed'].splitlines()[0]}")
            continue
        line += f"{significant(row['p50_ms']):>9}  {text(row.get('ratio')):24}{text(row.get('cpu_ratio')):24}"
        lines.append((line + row.get("is", "")).rstrip())
    return "\n".join(lines)


def significant(value):
    """Formats a positive number with three significant digits."""
    return f"{value:.{max(2 - math.floor(math.log10(value)), 0)}f}" if value > 0 else "0"


def text(ratio):
    return "{:.2f} ({:.2f} to {:.2f})".format(*ratio) if ratio else ""
