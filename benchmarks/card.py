"""The machine card that stands in every committed result."""

import os
import platform
import subprocess
from pathlib import Path


def field(path, key):
    for line in Path(path).read_text().splitlines():
        if line.startswith(key):
            return line.split(":", 1)[1].strip()
    return "unknown"


def commit():
    """Commit of the working tree, with `+` if it has changes."""
    run = lambda *words: subprocess.run(["git", *words], capture_output=True, text=True).stdout.strip()
    return run("rev-parse", "--short", "HEAD") + ("+" if run("status", "--porcelain", "-uno") else "")


def machine():
    return {
        "cpu": field("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "memory": field("/proc/meminfo", "MemTotal"),
        "kernel": platform.release(),
        "gpu": "none",
        "load_average": os.getloadavg()[0],
        "commit": commit(),
    }
