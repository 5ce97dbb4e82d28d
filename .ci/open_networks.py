"""Opens every network of a folder as it was written with onnx.checker, onnx.load and ONNX Runtime.

open_networks.py [--checker-only] FOLDER...   exit code 1 if one of them refuses a network

ONNX Runtime has no bf16 kernels for CPUs, so bf16 networks are for the checker only.
"""

import pathlib
import sys

import onnx


def refusals(path, with_runtime):
    """Yields what each tool says against a network."""

    def run():
        import onnxruntime

        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    tools = {
        "onnx.checker": lambda: onnx.checker.check_model(path, full_check=True),
        "onnx.load": lambda: onnx.load(path),
    }
    if with_runtime:
        tools["onnxruntime"] = run
    for name, call in tools.items():
        try:
            call()
        except Exception as error:
            yield f"{name}: {error}"


def main(arguments):
    # Wheels of ONNX Runtime that know our operator set begin at Python 3.11.
    with_runtime = "--checker-only" not in arguments and sys.version_info >= (3, 11)
    opened = refused = 0
    for folder in arguments:
        if folder.startswith("--"):
            continue
        for path in sorted(pathlib.Path(folder).glob("*.onnx")):
            found = list(refusals(str(path), with_runtime))
            for line in found:
                print(f"{path}: {line}", file=sys.stderr)
            opened += 1
            refused += bool(found)
    runtime = "with ONNX Runtime" if with_runtime else "without ONNX Runtime"
    print(f"{opened} networks opened {runtime}, {refused} refused")
    return 1 if refused or not opened else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
