"""Runs exported networks on ONNX Runtime's real CUDA provider with stubs of CUDA's libraries.

provider.py TANDEM [--write]   exit code 1 if a network does not load or differs from launches.json

Exports every network from checkpoints without weights (configs/*.json) and checks in each precision:

- every node has a kernel in the provider, and none falls back to the CPU;
- after two plain runs, a third run inside a capture of the caller's stream does not allocate, does not
  synchronize and does not copy from or to the host, so that the graph can be launched repeatedly;
- the third run enqueues the number of operations and the attention kernels that are listed in
  launches.json. --write writes that table.

Not tested: numbers, times, and errors of cuBLAS, cuDNN and the driver. The stubs (stubs.c) compute
nothing and always succeed.
"""

import argparse
import collections
import ctypes
import json
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

import onnxruntime

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TABLE = HERE / "launches.json"

# The full size only in bf16: the other precisions would convert 12 and 25 GB of weights.
CASES = [
    (size, precision)
    for size in ("tiny", "soak", "full-shallow")
    for precision in ("f32", "f16", "bf16")
] + [("full", "bf16")]
NETWORKS = ("vision", "understanding", "bev", "action")

# Element type in ONNX and bytes per element.
ELEMENT = {"f32": (1, 4), "u8": (2, 1), "i64": (7, 8), "bool": (9, 1), "f16": (10, 2), "bf16": (16, 2)}

STREAM = 0xABC0
THREAD_LOCAL = 1

# Beginnings of trace lines for operations that are enqueued on the stream.
OPERATIONS = ("kernel ", "cublas", "cudnn", "cudaMemcpyAsync ", "cudaMemsetAsync")
# Beginnings of trace lines for calls that a graph cannot repeat.
UNSAFE = (
    "cudaMalloc", "cudaFree", "cudaHostAlloc", "cudaFreeHost", "cudaMemcpy ", "cudaMemset ",
    "cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaLaunchHostFunc",
    "cudaGraphLaunch", "cudaMemcpyAsync host to", "cudaMemcpyAsync device to host",
)  # fmt: skip

# Regular expressions for the names of attention kernels, by kind.
ATTENTION = {
    "flash": "flash_fwd_(splitkv_)?kernel",
    "memory-efficient": "attention_kernel_batched",
    "unfused": "UnfusedSoftmaxKernel",
}


class Stubs:
    """The stub library that the provider loads as CUDA's runtime."""

    def __init__(self):
        self.library = ctypes.CDLL("libcudart.so.13")
        self.library.stubs_allocate.restype = ctypes.c_void_p
        self.library.stubs_allocate.argtypes = [ctypes.c_size_t]
        self.library.cudaStreamBeginCapture.argtypes = [ctypes.c_void_p, ctypes.c_int]
        self.library.cudaStreamEndCapture.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p)]
        # The library creates the file when it writes the first line.
        self.mark("begin")
        self.trace = open(os.environ["STUBS_TRACE"], encoding="utf-8")

    def allocate(self, size):
        return self.library.stubs_allocate(max(size, 1))

    def mark(self, text):
        self.library.stubs_mark(text.encode())

    def lines(self):
        """Returns the trace lines since the last call."""
        return self.trace.read().splitlines()

    def captured(self, run):
        """Runs `run` within a capture of the stream and returns its trace lines."""
        self.lines()
        self.library.cudaStreamBeginCapture(STREAM, THREAD_LOCAL)
        try:
            run()
        finally:
            graph = ctypes.c_void_p()
            self.library.cudaStreamEndCapture(STREAM, ctypes.byref(graph))
        lines = self.lines()
        assert all(line.startswith("captured ") for line in lines), "a call is outside the capture"
        return [line.removeprefix("captured ") for line in lines]


def load(graph):
    """Creates a session with the options of `engine/onnxruntime/cuda.rs`."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    for key in (
        "session.disable_cpu_ep_fallback",
        "session.use_device_allocator_for_initializers",
        "session.disable_prepacking",
    ):
        options.add_session_config_entry(key, "1")
    provider = {
        "device_id": "0",
        "arena_extend_strategy": "kSameAsRequested",
        "use_tf32": "0",
        "enable_cuda_graph": "0",
        "user_compute_stream": str(STREAM),
    }
    return onnxruntime.InferenceSession(
        str(graph), options, providers=[("CUDAExecutionProvider", provider)]
    )


def run_of(session, contract, stubs):
    """Returns a function that runs `session` with tensors on the device."""
    binding = session.io_binding()
    for side, bind in (("inputs", binding.bind_input), ("outputs", binding.bind_output)):
        for tensor in contract[side]:
            element, size = ELEMENT[tensor["dtype"]]
            address = stubs.allocate(math.prod(tensor["shape"]) * size)
            bind(tensor["name"], "cuda", 0, element, tensor["shape"], address)
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    return lambda: session.run_with_iobinding(binding, options)


def check(graph, stubs):
    """Runs one network. Returns its entry for `launches.json`, and a list of errors."""
    contract = json.loads(graph.with_suffix(".json").read_text())
    try:
        run = run_of(load(graph), contract, stubs)
        run()
        run()
        lines = stubs.captured(run)
    except Exception as error:
        return None, [str(error).strip()]
    attention = {
        kind: sum(re.search(name, line) is not None for line in lines)
        for kind, name in ATTENTION.items()
    }
    found = {
        "launches": sum(line.startswith(OPERATIONS) for line in lines),
        "attention": {kind: n for kind, n in attention.items() if n},
    }
    unsafe = collections.Counter(line for line in lines if line.startswith(UNSAFE))
    errors = [f"the capture contains {line!r} {n} times" for line, n in sorted(unsafe.items())]
    return found, errors


def export(tandem, size, precision, scratch):
    """Exports all networks of a checkpoint with sparse weights. Returns the folder."""
    folder = scratch / f"{size}-{precision}"
    config = ROOT / "configs" / f"{size}.json"
    # An export into the checkpoint's folder only copies weights that have to be converted.
    for command in (
        ["checkpoint", "synth", "--sparse", "--config", config, "--out", folder],
        ["export", "--precision", precision, "--checkpoint", folder, "--out", folder],
    ):
        done = subprocess.run([tandem, *command], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"provider: tandem {command[0]} failed: {done.stderr}")
    return folder


def as_text(table):
    """Formats the table as JSON with a line per network."""
    sizes = []
    for size, precisions in table.items():
        groups = [
            f'  "{precision}": {{\n   '
            + ",\n   ".join(f'"{name}": {json.dumps(found)}' for name, found in networks.items())
            + "\n  }"
            for precision, networks in precisions.items()
        ]
        sizes.append(f' "{size}": {{\n' + ",\n".join(groups) + "\n }")
    return "{\n" + ",\n".join(sizes) + "\n}\n"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("tandem", type=pathlib.Path)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    table = {} if arguments.write else json.loads(TABLE.read_text())
    stubs = Stubs()
    n_networks, errors = 0, []
    with tempfile.TemporaryDirectory() as scratch:
        for size, precision in CASES:
            began = time.monotonic()
            folder = export(arguments.tandem, size, precision, pathlib.Path(scratch))
            for network in NETWORKS:
                found, network_errors = check(folder / f"{network}.onnx", stubs)
                expected = table.setdefault(size, {}).setdefault(precision, {}).get(network)
                if arguments.write:
                    table[size][precision][network] = found
                elif found and found != expected:
                    network_errors.append(f"found {found}, launches.json has {expected}")
                errors += [f"{size}, {precision}, {network}: {line}" for line in network_errors]
                n_networks += 1
            shutil.rmtree(folder)
            print(f"{size}, {precision}: {time.monotonic() - began:.1f} s", flush=True)
    for line in errors:
        print(f"provider: {line}", file=sys.stderr)
    if arguments.write and not errors:
        TABLE.write_text(as_text(table))
    print(f"{n_networks} networks on the CUDA provider {onnxruntime.__version__}, {len(errors)} errors")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
