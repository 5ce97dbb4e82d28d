"""Runs exported networks on ONNX Runtime's real CUDA provider, on stand-ins for CUDA's libraries.

provider.py TANDEM [--write]   exit code 1 if a network does not load, or differs from launches.json

Exports every network from checkpoints without weights (configs/*.json) and checks of each, in each
precision:

- every node has a kernel in the provider: none is left to the CPU;
- after two plain runs, a third one inside a capture of the caller's stream allocates nothing, waits for
  nothing and copies nothing from or to the host, so that the capture may be launched again;
- the third run enqueues as many operations, and takes as many kernels of each kind for attention, as
  launches.json says. --write writes that table.

Not tested: numbers, times, and what cuBLAS, cuDNN and the driver answer. The stand-ins (standins.c)
compute nothing and refuse nothing.
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

# The full size in bf16 only: the other precisions convert 12 and 25 GB of weights.
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

# What a line of the trace is that puts an operation on the stream.
OPERATIONS = ("kernel ", "cublas", "cudnn", "cudaMemcpyAsync ", "cudaMemsetAsync")
# What a capture that is launched again must not contain.
UNSAFE = (
    "cudaMalloc", "cudaFree", "cudaHostAlloc", "cudaFreeHost", "cudaMemcpy ", "cudaMemset ",
    "cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaLaunchHostFunc",
    "cudaGraphLaunch", "cudaMemcpyAsync host to", "cudaMemcpyAsync device to host",
)  # fmt: skip

# Kernels for attention, by a part of their names, as regular expressions.
ATTENTION = {
    "flash": "flash_fwd_(splitkv_)?kernel",
    "memory-efficient": "attention_kernel_batched",
    "unfused": "UnfusedSoftmaxKernel",
}


class StandIns:
    """The library that the provider takes for CUDA's runtime."""

    def __init__(self):
        self.library = ctypes.CDLL("libcudart.so.13")
        self.library.standins_allocate.restype = ctypes.c_void_p
        self.library.standins_allocate.argtypes = [ctypes.c_size_t]
        self.library.cudaStreamBeginCapture.argtypes = [ctypes.c_void_p, ctypes.c_int]
        self.library.cudaStreamEndCapture.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p)]
        # Opened by the first line that is written, and read along from then on.
        self.mark("begin")
        self.trace = open(os.environ["STANDINS_TRACE"], encoding="utf-8")

    def allocate(self, size):
        return self.library.standins_allocate(max(size, 1))

    def mark(self, words):
        self.library.standins_mark(words.encode())

    def lines(self):
        """What was written since the last call."""
        return self.trace.read().splitlines()

    def captured(self, run):
        """Lines of `run` within a capture of the stream."""
        self.lines()
        self.library.cudaStreamBeginCapture(STREAM, THREAD_LOCAL)
        try:
            run()
        finally:
            graph = ctypes.c_void_p()
            self.library.cudaStreamEndCapture(STREAM, ctypes.byref(graph))
        lines = self.lines()
        assert all(line.startswith("captured ") for line in lines), "a line is outside of the capture"
        return [line.removeprefix("captured ") for line in lines]


def load(graph):
    """A session as `engine/onnxruntime/cuda.rs` makes it."""
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


def run_of(session, contract, stand_ins):
    """A run of `session` on tensors of the device."""
    binding = session.io_binding()
    for side, bind in (("inputs", binding.bind_input), ("outputs", binding.bind_output)):
        for tensor in contract[side]:
            element, size = ELEMENT[tensor["dtype"]]
            place = stand_ins.allocate(math.prod(tensor["shape"]) * size)
            bind(tensor["name"], "cuda", 0, element, tensor["shape"], place)
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    return lambda: session.run_with_iobinding(binding, options)


def check(graph, stand_ins):
    """What `launches.json` holds of one network, and what is wrong with it."""
    contract = json.loads(graph.with_suffix(".json").read_text())
    try:
        run = run_of(load(graph), contract, stand_ins)
        run()
        run()
        lines = stand_ins.captured(run)
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
    wrong = [f"its capture contains {line!r} {n} times" for line, n in sorted(unsafe.items())]
    return found, wrong


def export(tandem, size, precision, scratch):
    """A folder with every network, whose weights are read from a file without content."""
    folder = scratch / f"{size}-{precision}"
    config = ROOT / "configs" / f"{size}.json"
    # Into the checkpoint's own folder: nothing is copied then that need not be converted.
    for command in (
        ["checkpoint", "synth", "--sparse", "--config", config, "--out", folder],
        ["export", "--precision", precision, "--checkpoint", folder, "--out", folder],
    ):
        done = subprocess.run([tandem, *command], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"provider: tandem {command[0]} failed: {done.stderr}")
    return folder


def as_text(table):
    """The table as JSON, a line per network."""
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
    stand_ins = StandIns()
    n_networks, wrong = 0, []
    with tempfile.TemporaryDirectory() as scratch:
        for size, precision in CASES:
            began = time.monotonic()
            folder = export(arguments.tandem, size, precision, pathlib.Path(scratch))
            for network in NETWORKS:
                found, complaints = check(folder / f"{network}.onnx", stand_ins)
                expected = table.setdefault(size, {}).setdefault(precision, {}).get(network)
                if arguments.write:
                    table[size][precision][network] = found
                elif found and found != expected:
                    complaints.append(f"found {found}, launches.json has {expected}")
                wrong += [f"{size}, {precision}, {network}: {line}" for line in complaints]
                n_networks += 1
            shutil.rmtree(folder)
            print(f"{size}, {precision}: {time.monotonic() - began:.1f} s", flush=True)
    for line in wrong:
        print(f"provider: {line}", file=sys.stderr)
    if arguments.write and not wrong:
        TABLE.write_text(as_text(table))
    print(f"{n_networks} networks on the CUDA provider {onnxruntime.__version__}, {len(wrong)} complaints")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
