"""The networks that tandem exported, as OpenVINO runs them on the CPU.

Reads the ONNX files of the engine folder, in single precision, and runs on the inputs that `networks --dump`
wrote. Runs copy neither inputs nor outputs. Prints one line of JSON.

Needs:  pip install openvino==2026.4.1 safetensors numpy
"""

import time

import numpy as np
import openvino

import peer

FORM = "openvino"


def settings(threads):
    return {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": "1",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }


def comparable(name, array, valid_tokens):
    """Outputs of the understanding expert are defined for the valid tokens only."""
    return array[:, :valid_tokens] if name.startswith(("keys.", "values.")) else array


def case(core, path, dump, options):
    network = path.stem
    tensors, sizes = peer.dumped(dump, network, "np")
    start = time.perf_counter()
    request = core.compile_model(path, "CPU", settings(options.threads)).create_infer_request()
    load_s = round(time.perf_counter() - start, 3)
    for port in request.model_inputs:
        array = np.ascontiguousarray(tensors[f"in.{port.any_name}"])
        request.set_tensor(port, openvino.Tensor(array, shared_memory=True))
    names = [name.removeprefix("out.") for name in tensors if name.startswith("out.")]
    valid = int(sizes["valid_tokens"])

    def run():
        request.infer(share_outputs=True)

    def check(_):
        found = {name: request.get_tensor(name).data for name in names}
        return {
            name: (comparable(name, found[name], valid), comparable(name, tensors[f"out.{name}"], valid))
            for name in names
        }

    return peer.Case(network, FORM, run, (), check, {"load_s": load_s})


def main():
    options = peer.arguments(__doc__, "engine")
    core = openvino.Core()
    paths = [options.engine / f"{dumped.stem}.onnx" for dumped in sorted(options.dump.glob("*.safetensors"))]
    networks = peer.measure((case(core, path, options.dump, options) for path in paths), options)
    peer.report(f"OpenVINO {openvino.__version__} (CPU)", networks, options)


if __name__ == "__main__":
    main()
