"""AutoMoT's networks in PyTorch eager, on the CPU.

The peer of `benchmarks/src/networks.rs`: it reads the same checkpoint, runs on the inputs that tool
dumped, compares its outputs with the dumped ones, and only then takes times. Prints one line of JSON.
The BEV encoder is in automot_bev.py; automot_compiled.py compiles the same networks.

Each network is timed in two forms:

  release   as the release runs it: every value of a call is computed in that call, the action expert's
            heads are padded with zeros to the understanding expert's, key heads are repeated,
            the understanding expert runs to its final norm.
  lean      what a careful PyTorch user would write: constants precomputed, only the heads that are
            read, grouped attention without copies, no unread results. Same outputs.

Both take the prompt without padding. Needs:  pip install torch==2.7.1 safetensors numpy
"""

import json
import math

import torch
import torch.nn.functional as F
from safetensors import safe_open

import automot_bev
import peer
from peer import Case


def rms_norm(x, weight, epsilon):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + epsilon) * weight


def rotate(x, cos, sin):
    """Rotates the pairs (j, j + dim / 2); tables are [tokens, dim]."""
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos + turned * sin


def swiglu(x, w, prefix):
    gate, up, down = (w[f"{prefix}.{part}_proj.weight"] for part in ("gate", "up", "down"))
    return F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down)


def linear(x, w, prefix):
    return F.linear(x, w[f"{prefix}.weight"], w.get(f"{prefix}.bias"))


def layer_norm(x, w, prefix):
    return F.layer_norm(x, x.shape[-1:], w[f"{prefix}.weight"], w[f"{prefix}.bias"], 1e-6)


def heads(x, n):
    """[tokens, n * dim] as [n, tokens, dim]."""
    return x.view(x.shape[0], n, -1).transpose(0, 1)


def joined(x):
    """[n, tokens, dim] as [tokens, n * dim]."""
    return x.transpose(0, 1).reshape(x.shape[1], -1)


class Vision:
    def __init__(self, weights, config):
        self.w, self.c = weights, config

    def order(self, rows, columns):
        """Patch coordinates in merge order: the squares that become one token are neighbors."""
        m = self.c["spatial_merge_size"]
        at = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"), -1)
        at = at.view(rows // m, m, columns // m, m, 2).transpose(1, 2)
        return at.reshape(-1, 2)

    def positions(self, order, rows, columns):
        table = self.w["vision_model.pos_embed.weight"]
        side = math.isqrt(table.shape[0])
        low, high, part = [], [], []
        for axis, n in ((0, rows), (1, columns)):
            at = torch.linspace(0, side - 1, n)[order[:, axis]]
            low.append(at.floor().long())
            high.append((low[-1] + 1).clamp(max=side - 1))
            part.append((at - low[-1])[:, None])
        (top, left), (bottom, right), (down, over) = low, high, part
        return (
            table[top * side + left] * ((1 - down) * (1 - over))
            + table[top * side + right] * ((1 - down) * over)
            + table[bottom * side + left] * (down * (1 - over))
            + table[bottom * side + right] * (down * over)
        )

    def rope(self, order):
        quarter = self.c["hidden_size"] // self.c["num_heads"] // 4
        frequencies = 10000.0 ** (-torch.arange(quarter) / quarter)
        angles = (order[:, :, None] * frequencies).reshape(order.shape[0], -1)
        angles = torch.cat((angles, angles), -1)
        return angles.cos(), angles.sin()

    def constants(self, rows, columns):
        order = self.order(rows, columns)
        return self.positions(order, rows, columns), self.rope(order)

    def forward(self, patches, rows, columns, constants=None):
        w, c = self.w, self.c
        positions, (cos, sin) = constants or self.constants(rows, columns)
        kernel = w["vision_model.patch_embed.proj.weight"]
        x = F.linear(patches, kernel.view(kernel.shape[0], -1), w["vision_model.patch_embed.proj.bias"])
        x = x + positions
        square, maps = c["spatial_merge_size"] ** 2, []
        for i in range(c["depth"]):
            prefix = f"vision_model.blocks.{i}"
            h = linear(layer_norm(x, w, f"{prefix}.norm1"), w, f"{prefix}.attn.qkv")
            q, k, v = h.view(h.shape[0], 3, c["num_heads"], -1).permute(1, 2, 0, 3).unbind(0)
            q, k = rotate(q, cos, sin), rotate(k, cos, sin)
            h = F.scaled_dot_product_attention(q[None], k[None], v[None])[0]
            x = x + linear(joined(h), w, f"{prefix}.attn.proj")
            h = linear(layer_norm(x, w, f"{prefix}.norm2"), w, f"{prefix}.mlp.linear_fc1")
            x = x + linear(F.gelu(h, approximate="tanh"), w, f"{prefix}.mlp.linear_fc2")
            if i in c["deepstack_visual_indexes"]:
                prefix = f"vision_model.deepstack_merger_list.{len(maps)}"
                h = layer_norm(x.view(x.shape[0] // square, -1), w, f"{prefix}.norm")
                maps.append(self.merge(h, prefix))
        h = layer_norm(x, w, "vision_model.merger.norm").view(x.shape[0] // square, -1)
        return self.merge(h, "vision_model.merger"), maps

    def merge(self, x, prefix):
        return linear(F.gelu(linear(x, self.w, f"{prefix}.linear_fc1")), self.w, f"{prefix}.linear_fc2")


class Text:
    """What both experts share: rotary tables of the common head width."""

    PREFIX = "language_model.model"

    def __init__(self, weights, config, mot):
        self.w, self.c, self.mot = weights, config, mot
        half = config["head_dim"] // 2
        self.frequencies = config["rope_theta"] ** (-torch.arange(half, dtype=torch.float64) / half)
        self.frequencies = self.frequencies.float()
        section = config["rope_scaling"]["mrope_section"]
        self.axes = torch.zeros(half, dtype=torch.long)
        for axis in (1, 2):
            self.axes[axis : 3 * section[axis] : 3] = axis
        self.group = config["num_attention_heads"] // config["num_key_value_heads"]
        # Heads of the understanding expert that the action expert reads, and their width here.
        self.read_heads = -(-mot["mot_num_attention_heads"] // self.group)
        self.own_dim = config["hidden_size"] // config["num_attention_heads"]

    def rope(self, positions):
        """`positions` is [3, tokens]; tables are [tokens, head_dim]."""
        angles = positions.float()[self.axes].T * self.frequencies
        angles = torch.cat((angles, angles), -1)
        return angles.cos(), angles.sin()

    def grouped_attention(self, q, k, v, mask):
        """Queries that share a key head become rows of one head: PyTorch's fast path, no copied keys.
        (`enable_gqa` leaves that path on the CPU, as do values narrower than keys.)"""
        n = q.shape[1]
        q = q.reshape(k.shape[0], self.group * n, -1)
        h = F.scaled_dot_product_attention(q[None], k[None], v[None], mask)[0]
        return h.reshape(k.shape[0] * self.group, n, -1)

    def repeated(self, x):
        return x.repeat_interleave(self.group, dim=0)


class Understanding(Text):
    def forward(self, ids, positions, visible_until, is_image, image_tokens, deepstack, lean):
        w, c = self.w, self.c
        x = F.embedding(ids, w[f"{self.PREFIX}.embed_tokens.weight"])
        x[is_image] = image_tokens
        cos, sin = self.rope(positions)
        visible = torch.arange(len(ids)) < visible_until[:, None]
        mask = torch.zeros(visible.shape).masked_fill(~visible, -math.inf)
        if lean:
            mask = mask.repeat(self.group, 1)
        layers, keys, values = c["num_hidden_layers"], [], []
        for l in range(layers):
            prefix = f"{self.PREFIX}.layers.{l}"
            h = rms_norm(x, w[f"{prefix}.input_layernorm.weight"], c["rms_norm_eps"])
            k = heads(linear(h, w, f"{prefix}.self_attn.k_proj"), c["num_key_value_heads"])
            v = heads(linear(h, w, f"{prefix}.self_attn.v_proj"), c["num_key_value_heads"])
            k = rotate(rms_norm(k, w[f"{prefix}.self_attn.k_norm.weight"], c["rms_norm_eps"]), cos, sin)
            keys.append(k)
            values.append(v)
            if lean and l == layers - 1:
                break
            q = heads(linear(h, w, f"{prefix}.self_attn.q_proj"), c["num_attention_heads"])
            q = rotate(rms_norm(q, w[f"{prefix}.self_attn.q_norm.weight"], c["rms_norm_eps"]), cos, sin)
            if lean:
                h = self.grouped_attention(q, k, v, mask)
            else:
                k, v = self.repeated(k), self.repeated(v)
                h = F.scaled_dot_product_attention(q[None], k[None], v[None], mask)[0]
            x = x + linear(joined(h), w, f"{prefix}.self_attn.o_proj")
            h = rms_norm(x, w[f"{prefix}.post_attention_layernorm.weight"], c["rms_norm_eps"])
            x = x + swiglu(h, w, f"{prefix}.mlp")
            if l < len(deepstack):
                x[is_image] += deepstack[l]
        if not lean:
            rms_norm(x, w[f"{self.PREFIX}.norm.weight"], c["rms_norm_eps"])
        return keys, values


class Action(Text):
    def __init__(self, weights, config, mot):
        super().__init__(weights, config, mot)
        cells = 64
        blocks = (cells, 3, *(weights[f"{name}_queries.weight"].shape[0] for name in self.QUERIES))
        self.starts = [sum(blocks[:i]) for i in range(6)]
        block_of = torch.repeat_interleave(torch.arange(5), torch.tensor(blocks))
        self.own_visible = block_of[None, :] <= block_of[:, None]
        self.query_tokens = self.queries()

    QUERIES = ("reasoning", "route", "waypoint")

    def queries(self):
        w, tokens = self.w, []
        for name in self.QUERIES:
            h = F.gelu(linear(w[f"{name}_queries.weight"], w, f"{name}_projector.fc1"), approximate="tanh")
            tokens.append(linear(h, w, f"{name}_projector.fc2"))
        return torch.cat(tokens)

    def encoder(self, x, prefix):
        x = F.relu(linear(x, self.w, f"{prefix}.0"))
        return linear(F.relu(linear(x, self.w, f"{prefix}.2")), self.w, f"{prefix}.4")

    def point_head(self, x, prefix):
        x = F.silu(linear(x, self.w, f"{prefix}.0"))
        return linear(F.silu(linear(x, self.w, f"{prefix}.2")), self.w, f"{prefix}.4")

    def forward(self, bev_tokens, state, position, keys, values, lean):
        """Release form: keys and values are token-major with all heads, [tokens, heads, dim].
        Lean form: [heads, tokens, dim], the heads that are read."""
        w, c = self.w, self.c
        queries = self.query_tokens if lean else self.queries()
        x = torch.cat((
            linear(bev_tokens, w, "bev_encoder_proj"),
            self.encoder(state[1:].view(2, 2), "target_point_encoder.mlp"),
            self.encoder(state[:1].view(1, 1), "velocity_encoder"),
            queries,
        ))
        n = x.shape[0]
        cos, sin = self.rope((torch.arange(n) + position).expand(3, n))
        mask = torch.zeros(n, n).masked_fill(~self.own_visible, -math.inf)
        prefix_length = keys[0].shape[1 if lean else 0]
        mask = torch.cat((torch.zeros(n, prefix_length), mask), 1)
        if lean:
            mask = mask.repeat(self.group, 1)
        attend = self.attend_lean if lean else self.attend_padded
        for l in range(c["num_hidden_layers"]):
            prefix = f"{self.PREFIX}.layers.{l}"
            h = rms_norm(x, w[f"{prefix}.input_layernorm_mot_gen.weight"], c["rms_norm_eps"])
            h = attend(h, f"{prefix}.self_attn", keys[l], values[l], mask, cos, sin)
            x = x + linear(h, w, f"{prefix}.self_attn.o_proj_mot_gen")
            h = rms_norm(x, w[f"{prefix}.post_attention_layernorm_mot_gen.weight"], c["rms_norm_eps"])
            x = x + swiglu(h, w, f"{prefix}.mlp_mot_gen")
        x = rms_norm(x, w[f"{self.PREFIX}.norm_mot_gen.weight"], c["rms_norm_eps"])
        decision, route, waypoints = self.starts[2:5]
        logits = F.linear(x[decision:route], w[f"{self.PREFIX}.embed_tokens.weight"])
        return {
            # The route head's sum runs over the coordinates, the waypoint head's over time.
            "route": self.point_head(x[route:waypoints], "route_head.mlp").cumsum(1),
            "waypoints": self.point_head(x[waypoints:], "waypoints_head.mlp").cumsum(0),
            "decision_ids": logits.argmax(-1),
        }

    def own(self, h, prefix):
        """Own queries, keys and values, token-major, normalized, not yet rotated."""
        w, n, epsilon = self.w, h.shape[0], self.c["rms_norm_eps"]
        q = linear(h, w, f"{prefix}.q_proj_mot_gen").view(n, self.mot["mot_num_attention_heads"], -1)
        k = linear(h, w, f"{prefix}.k_proj_mot_gen").view(n, self.mot["mot_num_key_value_heads"], -1)
        v = linear(h, w, f"{prefix}.v_proj_mot_gen").view(n, self.mot["mot_num_key_value_heads"], -1)
        q = rms_norm(q, w[f"{prefix}.q_norm_mot_gen.weight"], epsilon)
        k = rms_norm(k, w[f"{prefix}.k_norm_mot_gen.weight"], epsilon)
        return q, k, v

    def attend_padded(self, h, prefix, keys, values, mask, cos, sin):
        c, n, d = self.c, h.shape[0], self.own_dim
        q, k, v = self.own(h, prefix)

        def padded(x, n_heads):
            wide = x.new_zeros(n, n_heads, c["head_dim"])
            wide[:, : x.shape[1], :d] = x
            return wide

        q = padded(q, c["num_attention_heads"])
        k, v = (padded(x, c["num_key_value_heads"]) for x in (k, v))
        cos, sin = cos[:, None], sin[:, None]
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        k[..., d:] = 0
        k, v = torch.cat((keys, k)), torch.cat((values, v))
        k, v = (self.repeated(x.transpose(0, 1)) for x in (k, v))
        h = F.scaled_dot_product_attention(q.transpose(0, 1)[None], k[None], v[None], mask)[0]
        return h[: self.mot["mot_num_attention_heads"], :, :d].transpose(0, 1).reshape(n, -1)

    def attend_lean(self, h, prefix, keys, values, mask, cos, sin):
        d, wide = self.own_dim, self.c["head_dim"]
        q, k, v = (x.transpose(0, 1) for x in self.own(h, prefix))
        q = rotate(F.pad(q, (0, wide - d)), cos, sin)
        k = rotate(F.pad(k[: self.read_heads], (0, wide - d)), cos, sin)
        k[..., d:] = 0
        v = F.pad(v[: self.read_heads], (0, wide - d))
        k, v = torch.cat((keys, k), 1), torch.cat((values, v), 1)
        return joined(self.grouped_attention(q, k, v, mask)[..., :d])


def read_weights(checkpoint, is_wanted):
    weights = {}
    for path in sorted(checkpoint.glob("model*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in filter(is_wanted, file.keys()):
                tensor = file.get_tensor(name)
                weights[name] = tensor.float() if tensor.is_floating_point() else tensor
    return weights


def read_json(checkpoint, name):
    return json.loads((checkpoint / name).read_text())


def vision_cases(weights, config, dump):
    seen, frame = peer.dumped(dump, "vision", "pt")
    tower = Vision(weights, config)
    rows, columns = (int(frame[f"frame_{side}"] / frame["patch_size"]) for side in ("height", "width"))
    constants = tower.constants(rows, columns)
    inputs = (seen["in.patches"],)

    def check(result):
        tokens, maps = result
        return {
            "image_tokens": (tokens, seen["out.image_tokens"]),
            "deepstack": (torch.stack(maps), seen["out.deepstack"]),
        }

    yield Case("vision", "release", lambda patches: tower.forward(patches, rows, columns), inputs, check)
    yield Case("vision", "lean", lambda patches: tower.forward(patches, rows, columns, constants), inputs, check)


def understanding_cases(weights, config, mot, dump):
    slow, sizes = peer.dumped(dump, "understanding", "pt")
    valid = int(sizes["valid_tokens"])
    expert = Understanding(weights, config, mot)
    ids, visible_until = (slow[f"in.{name}"][:valid] for name in ("token_ids", "visible_until"))
    positions = slow["in.position_ids"][:, :valid]
    is_image = slow["in.image_slot"][:valid] > 0
    images = slow["in.image_tokens"], slow["in.deepstack"]
    prompt = ids, positions, visible_until

    def check(result):
        pairs = {}
        for l, (keys, values) in enumerate(zip(*result)):
            n, d = expert.read_heads, expert.own_dim
            pairs[f"keys.{l}"] = keys[:n], slow[f"out.keys.{l}"][:, :valid]
            pairs[f"values.{l}"] = values[:n, :, :d], slow[f"out.values.{l}"][:, :valid]
        return pairs

    release = lambda *inputs: expert.forward(*inputs, False)
    lean = lambda *inputs: expert.forward(*inputs, True)
    # Rows of image tokens: a mask as in the release, or indices, which compile without a break.
    yield Case("understanding", "release", release, (*prompt, is_image, *images), check)
    yield Case("understanding", "lean", lean, (*prompt, is_image.nonzero()[:, 0], *images), check)


def action_cases(weights, config, mot, dump):
    fast, sizes = peer.dumped(dump, "action", "pt")
    valid, layers = int(sizes["valid_tokens"]), range(config["num_hidden_layers"])
    driver = Action(weights, config, mot)
    inputs = fast["in.bev_tokens"], fast["in.state"], fast["in.position"]
    lean_keys = [fast[f"in.keys.{l}"][:, :valid].contiguous() for l in layers]
    padding = 0, driver.c["head_dim"] - driver.own_dim
    lean_values = [F.pad(fast[f"in.values.{l}"][:, :valid], padding) for l in layers]

    def whole(x):
        """The cache in the release's layout. Heads that are not in the dump get zero queries, or are dropped."""
        cache = torch.zeros(valid, config["num_key_value_heads"], config["head_dim"])
        cache[:, : x.shape[0], : x.shape[2]] = x.transpose(0, 1)
        return cache

    keys, values = [whole(x) for x in lean_keys], [whole(x) for x in lean_values]

    def check(result):
        return {name: (found, fast[f"out.{name}"]) for name, found in result.items()}

    release = lambda *inputs: driver.forward(*inputs, False)
    lean = lambda *inputs: driver.forward(*inputs, True)
    yield Case("action", "release", release, (*inputs, keys, values), check)
    yield Case("action", "lean", lean, (*inputs, lean_keys, lean_values), check)


def bev_cases(checkpoint, dump):
    prefix = "bev_encoder."
    found = read_weights(checkpoint, lambda name: name.startswith(prefix))
    weights = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    config = read_json(checkpoint, "bev_config.json")
    seen, _ = peer.dumped(dump, "bev", "pt")
    inputs = seen["in.image"], seen["in.lidar"]

    def check(tokens):
        return {"bev_tokens": (tokens, seen["out.bev_tokens"])}

    whole = automot_bev.release(weights, config)
    yield Case("bev", "release", lambda *inputs: whole.forward(*inputs), inputs, check)
    folded, layout = automot_bev.lean(weights, config, inputs)
    yield Case("bev", "lean", lambda *inputs: folded.forward(*inputs), inputs, check, {"memory_format": layout})


def cases(checkpoint, dump):
    """Every network of the dump in both forms."""
    config = read_json(checkpoint, "config.json")
    text, vision, mot = config["text_config"], config["vision_config"], read_json(checkpoint, "automot_args.json")
    weights = read_weights(checkpoint, lambda name: not name.startswith("bev_encoder."))
    yield from vision_cases(weights, vision, dump)
    yield from understanding_cases(weights, text, mot, dump)
    yield from action_cases(weights, text, mot, dump)
    if peer.dump_path(dump, "bev").exists():
        yield from bev_cases(checkpoint, dump)


def main():
    options = peer.arguments(__doc__)
    torch.set_num_threads(options.threads)
    with torch.inference_mode():
        networks = peer.measure(cases(options.checkpoint, options.dump), options)
    peer.report(f"PyTorch {torch.__version__} (CPU, eager)", networks, options)


if __name__ == "__main__":
    main()
