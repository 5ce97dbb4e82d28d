"""AutoMoT's networks in PyTorch, compiled by torch.compile (inductor) for the CPU.

The networks are those of automot_eager.py in their lean forms. Weights are marked static and frozen:
inductor folds operations on weights alone and packs matrices in advance. A form that does not compile as one
graph, or fails to run, is reported with its error. Prints one line of JSON.

Needs a C++ compiler and  pip install torch==2.7.1 safetensors numpy
"""

import torch
import torch._inductor.config
from torch import Tensor

import automot_eager
import peer


def freeze(function):
    """Marks the weights in a function's network as static: inductor compiles them in as constants."""
    owners = [cell.cell_contents for cell in function.__closure__ or ()]
    owners.append(getattr(function, "__self__", None))
    for owner in owners:
        for value in tensors(getattr(owner, "w", None)):
            torch._dynamo.mark_static_address(value, guard=False)


def tensors(weights):
    return [value for value in (weights or {}).values() if isinstance(value, Tensor)]


def compiled(case):
    freeze(case.function)
    # One graph: weights have no guards, so code compiled for one layer must not be reused for another.
    case.function = torch.compile(case.function, fullgraph=True, dynamic=False)
    case.form = f"compiled {case.form}"
    return case


def main():
    options = peer.arguments(__doc__)
    torch.set_num_threads(options.threads)
    torch._inductor.config.freezing = True
    with torch.inference_mode():
        cases = automot_eager.cases(options.checkpoint, options.dump)
        lean = (case for case in cases if case.form == "lean")
        networks = peer.measure(map(compiled, lean), options, may_fail=True)
    peer.report(f"PyTorch {torch.__version__} (CPU, inductor)", networks, options)


if __name__ == "__main__":
    main()
