#!/usr/bin/env python3
"""Runs the tandem binary on damaged files: whatever a file contains, it must end with an exit code and one error.

Every case damages one good file (bytes, or values of JSON, YAML and XML), runs one command on it with
limits on memory, time and file size, and checks: exit code 0, 1 or 2; no panic; no signal; no hang;
with exit code 2 exactly one error, below 4 kB. A case is determined by the seed and its number.
Usage: TANDEM=BINARY fuzz.py [--cases 2000] [--seed 1] [--only KIND,…] [--keep FOLDER] > counts.json
Exit code 1 if any case failed; --keep collects their files. Run in the root of the repository.
"""

import argparse
import ctypes
import ctypes.util
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MEMORY_BYTES = 2 << 30
SECONDS = 20
FILE_BYTES = 256 << 20
ERROR_BYTES = 4096

TANDEM = Path(os.environ.get("TANDEM", "target/debug/tandem")).resolve()

NUMBERS = ["0", "-1", "1", "1e308", "-1e308", "1e-320", "0.1", "2147483648", "4294967296", "9223372036854775807",
           "18446744073709551615", "18446744073709551616", "-9223372036854775809", "1e999", "NaN", "inf", "-0.0"]
VALUES = [None, True, False, 0, -1, 1, 2**31, 2**53, 2**63 - 1, 2**64 - 1, 2**64, -2**63 - 1, 1e308, -1e308, 1e-320,
          0.5, "", "x", "../../x", "/", "\u0000", "é" * 50, "x" * 5000, [], {}, [[]], [None], {"": {}}, [0] * 2000]


def damage_bytes(rng, data):
    """Makes one to eight small changes at random positions."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 8))):
        at, size = rng.randrange(len(data) + 1), rng.choice((1, 1, 2, 4, 8, 64, 1000))
        way = rng.randrange(7)
        if way == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif way == 1 and at < len(data):
            data[at] = rng.randrange(256)
        elif way == 2:
            del data[at:at + size]
        elif way == 3:
            data[at:at] = rng.randbytes(size)
        elif way == 4:
            data[at:at] = data[at:at + size] * rng.choice((1, 2, 50))
        elif way == 5:
            data[at:at + 8] = rng.choice((b"\xff" * 8, b"\0" * 8, (2**63).to_bytes(8, "little"), (2**31).to_bytes(8, "little")))
        else:
            del data[at:]
        if not data:
            break
    return bytes(data)


def damage_text(rng, data):
    """Replaces numbers, identifiers or lines of a text."""
    text = data.decode(errors="replace")
    for _ in range(rng.choice((1, 1, 2, 4))):
        way = rng.randrange(4)
        if way < 2:
            found = list(re.finditer(r"-?\d+(\.\d+)?([eE][-+]?\d+)?", text))
            new = rng.choice(NUMBERS)
        elif way == 2:
            found = list(re.finditer(r"\w+", text))
            new = rng.choice(["", "null", "true", "x", "é", "1", "[]", "{}", "x" * 3000])
        else:
            found = list(re.finditer(r"[^\n]*\n", text))
            new = None
        if not found:
            continue
        match = rng.choice(found)
        if new is None:
            new = rng.choice(["", match.group() * 2, match.group() * 300])
        text = text[:match.start()] + new + text[match.end():]
    return text.encode()


def places(value, path=()):
    """Paths of all values in a JSON value; of long arrays only the first two elements and the last."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list):
        for index in range(len(value)) if len(value) < 8 else (0, 1, len(value) - 1):
            yield from places(value[index], (*path, index))


def damage_json(rng, data):
    """Replaces, removes or repeats values."""
    value = json.loads(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        path = rng.choice(list(places(value)))
        if not path:
            continue
        parent = value
        for key in path[:-1]:
            parent = parent[key]
        key, way = path[-1], rng.randrange(5)
        if way == 0:
            del parent[key]
        elif way == 1 and isinstance(parent, list):
            parent.insert(key, parent[key])
        elif way == 1:
            parent[f"{key}x"] = parent.pop(key)
        elif way == 2 and isinstance(parent[key], (int, float)):
            parent[key] = rng.choice((parent[key] + 1, -parent[key], parent[key] * 1000, parent[key] / 3))
        else:
            parent[key] = rng.choice(VALUES)
    return json.dumps(value).encode()


def zstd_frame(data, size):
    """Decompresses a zstd frame whose content has this size."""
    name = ctypes.util.find_library("zstd")
    if name is None:
        sys.exit("fuzz: the library zstd (libzstd.so.1) is missing; it unpacks recordings")
    library, out = ctypes.CDLL(name), ctypes.create_string_buffer(size)
    library.ZSTD_decompress.restype = ctypes.c_size_t
    count = library.ZSTD_decompress(out, ctypes.c_size_t(size), data, ctypes.c_size_t(len(data)))
    assert count == size, f"{count} of {size} bytes"
    return out.raw


def records(data):
    """Opcodes and contents of MCAP records."""
    at = 0
    while at + 9 <= len(data):
        size = int.from_bytes(data[at + 1:at + 9], "little")
        yield data[at], data[at + 9:at + 9 + size]
        at += 9 + size


def record(opcode, content):
    return bytes([opcode]) + len(content).to_bytes(8, "little") + content


MAGIC = b"\x89MCAP0\r\n"


def unpacked(recording):
    """Records of a recording without chunks, so that no CRC protects them."""
    out = []
    for opcode, content in records(recording[8:-8]):
        if opcode == 6:
            assert content[28:36] == b"\4\0\0\0zstd"
            out += records(zstd_frame(content[44:], int.from_bytes(content[16:24], "little")))
        elif opcode in (1, 3, 4, 5):
            out.append((opcode, content))
    return out


def damage_recording(rng, data):
    """Damages, removes or moves one record of a recording without chunks, mostly near its beginning."""
    all_records = list(records(data[8:-8]))
    for _ in range(rng.choice((1, 1, 2))):
        at, way = rng.randrange(len(all_records)), rng.randrange(6)
        opcode, content = all_records[at]
        if way == 0:
            all_records[at] = opcode, damage_bytes(rng, content)
        elif way == 1:
            del all_records[at]
        elif way == 2:
            all_records.insert(rng.randrange(len(all_records)), (opcode, content))
        else:
            size = min(len(content), rng.choice((40, 150)))
            all_records[at] = opcode, damage_bytes(rng, content[:size]) + content[size:]
        if not all_records:
            break
    return MAGIC + b"".join(record(*one) for one in all_records) + MAGIC


def run(*arguments, limit=True):
    def limits():
        os.setsid()
        if limit:
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
            resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    child = subprocess.Popen([TANDEM, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, preexec_fn=limits)
    try:
        out, err = child.communicate(timeout=SECONDS if limit else 600)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        return "hang", b"", b""
    return child.returncode, out, err


def fault(code, err):
    """Returns the fault of a result, or None."""
    text = err.decode(errors="replace")
    if code == "hang":
        return f"still running after {SECONDS} s"
    if "panicked at" in text:
        return "panic"
    if code < 0:
        return f"signal {-code}"
    if code not in (0, 1, 2):
        return f"exit code {code}"
    errors = sum(line.startswith("error") for line in text.splitlines())
    if errors > 1 or (code == 2 and errors == 0):
        return f"{errors} errors with exit code {code}"
    if code == 2 and len(err[err.rfind(b"error"):]) > ERROR_BYTES:
        return f"an error of {len(err)} bytes"
    return None


class Good:
    """Valid files, written by the binary."""

    def __init__(self, folder):
        self.folder = folder
        self.engine, self.campaign = folder / "engine", folder / "campaign"
        self.recording, self.latency = folder / "recording.mcap", folder / "latency.json"
        steps = [
            ("checkpoint", "synth", "--config", "configs/soak.json", "--out", folder / "checkpoint"),
            ("export", "--checkpoint", folder / "checkpoint", "--out", self.engine),
            ("eval", "--routes", "routes/short.xml", "--driver", "autopilot", "--tick-cap", 3, "--out", self.campaign),
            ("record", "--routes", "routes/short.xml", "--ticks", 5, "--out", self.recording),
            ("profile", "--engine", self.engine, "--phases", "back-to-back", "--ticks", 210, "--warm-up", 2,
             "--observations", 5, "--out", self.latency),
        ]
        for step in steps:
            code, _, err = run(*step, limit=False)
            if code not in (0, 1):
                sys.exit(f"{step}: {err.decode(errors='replace')}")
        end = record(0x0F, bytes(4)) + record(2, bytes(20))
        self.unpacked = folder / "unpacked.mcap"
        self.unpacked.write_bytes(
            MAGIC + b"".join(record(*one) for one in unpacked(self.recording.read_bytes())) + end + MAGIC)


def in_copy(source, scratch, name, damage):
    """Copies a folder, keeping links, and damages one file."""
    copy = scratch / source.name
    shutil.copytree(source, copy, symlinks=True)
    file = copy / name
    file.write_bytes(damage(file.read_bytes()))
    return copy, file


def kinds(good):
    """For each kind of file, a function that damages a copy and returns it with the command that reads it."""

    def single(source, ways, command):
        def case(rng, scratch):
            file = scratch / source.name
            file.write_bytes(rng.choice(ways)(rng, source.read_bytes()))
            return file, command(rng, file, scratch)
        return case

    def member(source, names, ways, command):
        def case(rng, scratch):
            way = rng.choice(ways)
            copy, file = in_copy(source, scratch, rng.choice(names), lambda data: way(rng, data))
            return file, command(rng, copy, scratch)
        return case

    text, document = [damage_bytes, damage_text, damage_text], [damage_bytes, damage_json, damage_json, damage_json]
    drive = lambda routes, scratch: ["eval", "--routes", routes, "--driver", "autopilot", "--tick-cap", 2, "--jobs", 1,
                                     "--out", scratch / "out"]
    read = lambda rng, file, scratch: rng.choice((
        ["profile", "--engine", good.engine, "--recording", file, "--phases", "back-to-back", "--ticks", 1,
         "--warm-up", 0, "--out", scratch / "latency.json"],
        ["record", "--recover", file, "--out", scratch / "recovered.mcap"]))
    contracts = [path.name for path in good.engine.glob("*.json") if path.name not in ("export.json", "tokenizer.json")]
    return {
        "routes": single(Path("routes/bends.xml"),
                         text, lambda rng, file, scratch: drive(file, scratch)),
        "run file": single(Path("configs/run.yaml"), text, lambda rng, file, scratch:
                           [*drive("routes/short.xml", scratch), "--only", 11, "--run", file]),
        "budget": single(Path("configs/budget.yaml"), text, lambda rng, file, scratch:
                         ["profile", "--engine", scratch / "nowhere", "--check", file]),
        "run.json": member(good.campaign, ["run.json"], document, lambda rng, copy, scratch: rng.choice((
            ["merge", copy, "--out", scratch / "merged"], ["report", copy],
            ["score", copy, "--routes", "routes/short.xml"]))),
        "contracts": member(good.engine, contracts, document, lambda rng, copy, scratch: rng.choice((
            ["inspect", copy], ["roofline", "--engine", copy, "--device", "h200"]))),
        "export.json": member(good.engine, ["export.json"], document, lambda rng, copy, scratch: ["inspect", copy]),
        "recording": single(good.recording, [damage_bytes], read),
        "unpacked recording": single(good.unpacked, [damage_recording], read),
        "latency.json": single(good.latency, document, lambda rng, file, scratch: rng.choice((
            ["compare", file, good.latency, "--phase", "back_to_back"],
            ["compare", good.latency, file, "--phase", "back_to_back", "--json"],
            [*drive("routes/short.xml", scratch), "--only", 11, "--latency", f"file:{file}"]))),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=2000, help="of each kind")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="kinds, separated by commas")
    parser.add_argument("--keep", type=Path)
    args = parser.parse_args()
    report, failed = {"seed": args.seed, "first": args.first, "kinds": {}}, 0
    with tempfile.TemporaryDirectory() as folder:
        good = Good(Path(folder))
        chosen = kinds(good)
        for name in args.only.split(",") if args.only else []:
            if name not in chosen:
                sys.exit(f"unknown kind {name!r}; kinds are {', '.join(chosen)}")
        for kind, case in chosen.items():
            if args.only and kind not in args.only.split(","):
                continue
            counts, faults, began = {}, [], time.monotonic()
            for number in range(args.first, args.first + args.cases):
                rng = random.Random(f"{args.seed} {kind} {number}")
                scratch = Path(tempfile.mkdtemp(dir=folder))
                file, command = case(rng, scratch)
                code, _, err = run(*command)
                counts[f"exit {code}"] = counts.get(f"exit {code}", 0) + 1
                wrong = fault(code, err)
                if wrong:
                    last = err.decode(errors="replace").strip()
                    faults.append({"case": number, "fault": wrong, "command": [str(argument) for argument in command],
                                   "stderr": last[-600:]})
                    print(f"{kind} {number}: {wrong}: {last[:300]}", file=sys.stderr, flush=True)
                    if args.keep:
                        args.keep.mkdir(parents=True, exist_ok=True)
                        shutil.copy(file, args.keep / f"{kind.replace(' ', '-')}-{number}-{file.name}")
                shutil.rmtree(scratch, ignore_errors=True)
            failed += len(faults)
            report["kinds"][kind] = {"cases": args.cases, "answers": dict(sorted(counts.items())), "faults": faults,
                                     "took_s": round(time.monotonic() - began, 1)}
            print(f"{kind}: {counts}, {len(faults)} faults", file=sys.stderr, flush=True)
    report["failed"] = failed
    print(json.dumps(report, indent=1))
    sys.exit(1 if failed else 0)


main()
