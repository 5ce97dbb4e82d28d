"""Machine card of the committed benchmark results."""

import os
import platform
import subprocess
from pathlib import Path


def field(path, key):
    for line in Path(path).read_text().splitlines():
        if line.startswith(key):
            return line.split(":", 1)[1].strip()
    return "unknown"


# Instruction sets by which CPU libraries select matrix kernels.
INSTRUCTION_SETS = (
    "avx avx2 fma f16c avx_vnni avx512f avx512dq avx512bw avx512vl avx512_vnni avx512_bf16 avx512_fp16 "
    "amx_tile amx_int8 amx_bf16 amx_fp16 asimd asimddp asimdhp sve sve2 bf16 i8mm"
).split()


def processor():
    """Returns the first core's entry of /proc/cpuinfo, with the instruction sets that networks use. A virtual
    machine may hide the model name; family, model and stepping still identify the processor."""
    first = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    entry = {key.strip(): value.strip() for key, value in (line.split(":", 1) for line in first if ":" in line)}
    flags = set(entry.get("flags", entry.get("Features", "")).split())
    number = lambda key: int(entry[key]) if key in entry else None
    return {
        "name": entry.get("model name"),
        "vendor": entry.get("vendor_id", entry.get("CPU implementer")),
        "family": number("cpu family"),
        "model": number("model"),
        "stepping": number("stepping"),
        "microcode": entry.get("microcode"),
        "cache": entry.get("cache size"),
        "instruction_sets": [name for name in INSTRUCTION_SETS if name in flags],
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)),
        "is_virtual": "hypervisor" in flags,
    }


def commit():
    """Returns the commit of the working tree, followed by `+` if there are changes."""
    run = lambda *arguments: subprocess.run(["git", *arguments], capture_output=True, text=True).stdout.strip()
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
