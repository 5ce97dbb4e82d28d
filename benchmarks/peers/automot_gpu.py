"""AutoMoT's vision tower, understanding expert and action expert in PyTorch on a GPU, eager and compiled.

    python3 benchmarks/peers/automot_gpu.py CHECKPOINT --device cuda:0 --dtype bfloat16 --out FILE

The networks are those of automot_eager.py in its two forms, release and lean, which
compare_networks.py holds against tandem's, number by number, in single precision on the CPU. Here only
their time counts: bf16, torch's scaled_dot_product_attention, random inputs of the release's sizes
(four frames, 625 tokens). Each is run eagerly and through torch.compile (mode "reduce-overhead": fused
kernels, launched as CUDA graphs).

`wall_ns` is the time from the call until the device is done, `device_ns` that between two events. FILE is
rewritten after every network, so that results are kept if the time limit is reached. Networks that
fail are reported with their error; the exit code is then 1. Needs: torch and safetensors.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

import automot_eager

# Prompt of the AutoMoT release: text before and after four frames of 256 by 512 pixels.
PREFIX_TOKENS, INSTRUCTION_TOKENS, FRAMES = 16, 89, 4
FRAME_HEIGHT, FRAME_WIDTH = 256, 512
# Cells of the BEV grid.
BEV_TOKENS = 64
PERCENTILES = (("p50", 500), ("p90", 900), ("p99", 990), ("p99.9", 999))
WARM_UP = 5


def in_dtype(network, dtype):
    """The network with rotary tables of `dtype`, which are computed in single precision."""

    class Cast(network):
        def rope(self, positions):
            return tuple(table.to(dtype) for table in super().rope(positions))

    return Cast


def weights_of(checkpoint, dtype):
    weights = {}
    for file in sorted(checkpoint.glob("model*.safetensors")):
        for name, tensor in load_file(file).items():
            if not name.startswith("bev_encoder."):
                weights[name] = tensor.to(device=torch.get_default_device(), dtype=dtype)
    return weights


def networks(checkpoint, dtype):
    """Yields name, form and call of each network; the action expert first, as the main reference."""
    config = json.loads((checkpoint / "config.json").read_text())
    text, vision = config["text_config"], config["vision_config"]
    mot = json.loads((checkpoint / "automot_args.json").read_text())
    weights = weights_of(checkpoint, dtype)
    patch, merge = vision["patch_size"], vision["spatial_merge_size"]
    rows, columns = FRAME_HEIGHT // patch, FRAME_WIDTH // patch
    image_tokens = rows * columns // merge**2
    # A frame has a marker token before and after its image tokens.
    valid = PREFIX_TOKENS + FRAMES * (image_tokens + 2) + INSTRUCTION_TOKENS

    driver = in_dtype(automot_eager.Action, dtype)(weights, text, mot)
    bev = torch.randn(BEV_TOKENS, weights["bev_encoder_proj.weight"].shape[1], dtype=dtype)
    state = torch.randn(5, dtype=dtype)
    position = torch.tensor([valid])
    layers, heads, width = text["num_hidden_layers"], text["num_key_value_heads"], text["head_dim"]
    # Release form: the cache has all heads; lean form: only the heads that are read.
    whole, read = (valid, heads, width), (driver.read_heads, valid, width)
    caches = {}
    for form, shape in (("lean", read), ("release", whole)):
        caches[form] = [[torch.randn(shape, dtype=dtype) for _ in range(layers)] for _ in range(2)]

    def act(form):
        lean, (keys, values) = form == "lean", caches[form]
        return lambda: driver.forward(bev, state, position, keys, values, lean)

    expert = in_dtype(automot_eager.Understanding, dtype)(weights, text, mot)
    ids = torch.randint(0, weights["language_model.model.embed_tokens.weight"].shape[0], (valid,))
    is_image = torch.zeros(valid, dtype=torch.bool)
    for frame in range(FRAMES):
        begin = PREFIX_TOKENS + frame * (image_tokens + 2) + 1
        is_image[begin : begin + image_tokens] = True
    positions = torch.arange(valid).expand(3, valid)
    visible_until = torch.arange(valid) + 1
    seen = torch.randn(FRAMES * image_tokens, text["hidden_size"], dtype=dtype)
    maps = torch.randn(len(vision["deepstack_visual_indexes"]), *seen.shape, dtype=dtype)

    def understand(form):
        return lambda: expert.forward(ids, positions, visible_until, is_image, seen, maps, form == "lean")

    tower = in_tables(weights, vision, dtype)
    depth = vision.get("in_channels", 3) * vision["temporal_patch_size"] * patch**2
    patches = torch.randn(rows * columns, depth, dtype=dtype)
    constants = tower.constants(rows, columns)

    def look(form):
        return lambda: tower.forward(patches, rows, columns, constants if form == "lean" else None)

    for name, call in (("action", act), ("understanding", understand), ("vision", look)):
        for form in ("release", "lean"):
            yield name, form, call(form)


def in_tables(weights, config, dtype):
    """The vision tower with positions and rotary tables of `dtype`."""

    class Tower(automot_eager.Vision):
        def constants(self, rows, columns):
            positions, (cos, sin) = super().constants(rows, columns)
            return positions.to(dtype), (cos.to(dtype), sin.to(dtype))

    return Tower(weights, config)


def sample(call, options, device):
    is_gpu = device.type == "cuda"
    wait = (lambda: torch.cuda.synchronize(device)) if is_gpu else (lambda: None)
    for _ in range(WARM_UP):
        call()
    wait()
    wall, on_device, begin = [], [], time.perf_counter()
    while len(wall) < options.runs and (not wall or time.perf_counter() - begin < options.seconds):
        if is_gpu:
            marks = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        start = time.perf_counter_ns()
        if is_gpu:
            marks[0].record()
        call()
        if is_gpu:
            marks[1].record()
        wait()
        wall.append(time.perf_counter_ns() - start)
        if is_gpu:
            on_device.append(round(marks[0].elapsed_time(marks[1]) * 1e6))
    return {"wall_ns": summary(wall), "device_ns": summary(on_device) if is_gpu else None}


def summary(samples):
    """Returns nearest-rank percentiles and the samples."""
    ranked = sorted(samples)
    rank = lambda part: ranked[max(-(-len(ranked) * part // 1000), 1) - 1]
    percentiles = {name: rank(part) for name, part in PERCENTILES}
    return {"count": len(ranked), "min": ranked[0], **percentiles, "max": ranked[-1], "samples": samples}


def write(result, path):
    partial = path.with_suffix(".partial")
    with open(partial, "w") as file:
        file.write(json.dumps(result) + "\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="checkpoint folder")
    parser.add_argument("--device", type=torch.device, default="cuda:0")
    parser.add_argument("--dtype", type=lambda name: getattr(torch, name), default="bfloat16")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=3.0, help="stop a network after this long")
    parser.add_argument("--modes", nargs="+", choices=("eager", "compile"), default=("eager", "compile"))
    parser.add_argument("--networks", nargs="+", help="only these: action, understanding, vision")
    parser.add_argument("--out", type=Path, required=True, help="result file")
    options = parser.parse_args()
    torch.set_default_device(options.device)
    torch.set_default_dtype(options.dtype)
    torch.manual_seed(1)
    device, failed = options.device, 0
    result = {
        "bench": "gpu-peers",
        "library": f"PyTorch {torch.__version__}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "the host",
        "dtype": str(options.dtype).removeprefix("torch."),
        "warm_up": WARM_UP,
        "runs": [],
    }
    with torch.inference_mode():
        calls = list(networks(options.checkpoint, options.dtype))
        if options.networks:
            calls = [call for call in calls if call[0] in options.networks]
        for mode in options.modes:
            for name, form, call in calls:
                begin, entry = time.perf_counter(), {"network": name, "form": form, "mode": mode}
                try:
                    if mode == "compile":
                        call = torch.compile(call, mode="reduce-overhead")
                    entry |= sample(call, options, device)
                except Exception as error:  # Reported; the next network is measured.
                    failed += 1
                    entry["failed"] = f"{type(error).__name__}: {error}"
                entry["took_s"] = round(time.perf_counter() - begin, 1)
                result["runs"].append(entry)
                write(result, options.out)
                took = entry.get("failed") or f"p50 {entry['wall_ns']['p50'] / 1e6:.3f} ms"
                print(f"{mode:8}{name:14}{form:8}{took}", file=sys.stderr)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
