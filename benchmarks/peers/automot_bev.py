"""AutoMoT's BEV encoder in PyTorch: two RegNetY trunks joined by a fusion transformer after each stage.

Its forms are those of automot_eager.py:

  release   batch norms as layers, all parts: also the feature pyramid and the picture's side of the last
            fusion, which nothing reads.
  lean      batch norms folded into the convolutions in advance, unread parts skipped, and the faster of
            PyTorch's two memory formats on this machine. Same results.
"""

import time

import torch
import torch.nn.functional as F

STAGES = 4
NORM_EPSILON = 1e-5
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def folded(weights):
    """The weights without batch norms: their factors are in the convolutions, their shifts in biases."""
    lean = {name: tensor for name, tensor in weights.items() if ".bn." not in name}
    for name, variance in weights.items():
        if not name.endswith(".bn.running_var"):
            continue
        prefix = name.removesuffix(".bn.running_var")
        weight, bias, mean = (
            weights[f"{prefix}.bn.{part}"].double() for part in ("weight", "bias", "running_mean")
        )
        factor = weight / (variance.double() + NORM_EPSILON).sqrt()
        kernel = weights[f"{prefix}.conv.weight"].double() * factor[:, None, None, None]
        lean[f"{prefix}.conv.weight"] = kernel.float()
        lean[f"{prefix}.conv.bias"] = (bias - mean * factor).float()
    return lean


def in_format(weights, memory_format):
    return {
        name: tensor.contiguous(memory_format=memory_format) if tensor.dim() == 4 else tensor
        for name, tensor in weights.items()
    }


def resized(x, size):
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


class Bev:
    def __init__(self, weights, config, lean, memory_format):
        self.w, self.c, self.lean, self.memory_format = weights, config, lean, memory_format
        if config.get("normalize_imagenet", True):
            mean, deviation = IMAGENET_MEAN, IMAGENET_DEVIATION
        else:
            mean, deviation = (0.0,) * 3, (1 / 255,) * 3
        as_map = lambda values: torch.tensor(values).view(1, 3, 1, 1)
        self.mean, self.deviation = as_map(mean), as_map(deviation)
        self.scale, self.shift = 1 / (255 * self.deviation), self.mean / self.deviation

    def normalized(self, image):
        """Bytes [height, width, 3] as a map."""
        x = image.permute(2, 0, 1)[None].float().contiguous(memory_format=self.memory_format)
        if self.lean:
            return x * self.scale - self.shift
        return (x / 255 - self.mean) / self.deviation

    def conv(self, x, prefix, stride=1, padding=0):
        weight = self.w[f"{prefix}.weight"]
        groups = x.shape[1] // weight.shape[1]
        return F.conv2d(x, weight, self.w.get(f"{prefix}.bias"), stride, padding, groups=groups)

    def conv_norm(self, x, prefix, stride=1):
        w = self.w
        x = self.conv(x, f"{prefix}.conv", stride, w[f"{prefix}.conv.weight"].shape[-1] // 2)
        if f"{prefix}.bn.weight" not in w:
            return x
        mean, variance, weight, bias = (
            w[f"{prefix}.bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, variance, weight, bias, eps=NORM_EPSILON)

    def block(self, x, prefix, stride):
        h = self.conv_norm(x, f"{prefix}.conv1").relu_()
        h = self.conv_norm(h, f"{prefix}.conv2", stride).relu_()
        squeezed = self.conv(h.mean((2, 3), keepdim=True), f"{prefix}.se.fc1").relu_()
        h = h * self.conv(squeezed, f"{prefix}.se.fc2").sigmoid_()
        h = self.conv_norm(h, f"{prefix}.conv3")
        if f"{prefix}.downsample.conv.weight" in self.w:
            x = self.conv_norm(x, f"{prefix}.downsample", stride)
        return h.add_(x).relu_()

    def stage(self, x, trunk, stage):
        n = 1
        while f"{trunk}.s{stage}.b{n}.conv1.conv.weight" in self.w:
            x = self.block(x, f"{trunk}.s{stage}.b{n}", 2 if n == 1 else 1)
            n += 1
        return x

    def linear(self, x, prefix):
        return F.linear(x, self.w[f"{prefix}.weight"], self.w[f"{prefix}.bias"])

    def layer_norm(self, x, prefix):
        return F.layer_norm(x, x.shape[-1:], self.w[f"{prefix}.weight"], self.w[f"{prefix}.bias"], NORM_EPSILON)

    def attention(self, h, prefix):
        tokens, channels = h.shape
        q, k, v = (
            self.linear(h, f"{prefix}.{part}").view(1, tokens, self.c["n_head"], -1).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        h = F.scaled_dot_product_attention(q, k, v)
        return self.linear(h.transpose(1, 2).reshape(tokens, channels), f"{prefix}.proj")

    def transformer(self, x, prefix):
        b = 0
        while f"{prefix}.blocks.{b}.ln1.weight" in self.w:
            block = f"{prefix}.blocks.{b}"
            x = x + self.attention(self.layer_norm(x, f"{block}.ln1"), f"{block}.attn")
            h = self.linear(self.layer_norm(x, f"{block}.ln2"), f"{block}.mlp.0").relu_()
            x = x + self.linear(h, f"{block}.mlp.2")
            b += 1
        return self.layer_norm(x, f"{prefix}.ln_f")

    def fuse(self, picture, lidar, i):
        """Both maps with what the fusion adds to them."""
        c = self.c
        image_size = c["img_vert_anchors"], c["img_horz_anchors"]
        lidar_size = c["lidar_vert_anchors"], c["lidar_horz_anchors"]
        pooled = F.adaptive_avg_pool2d(picture, image_size)
        cells = self.conv(F.adaptive_avg_pool2d(lidar, lidar_size), f"lidar_channel_to_img.{i}")
        tokens = torch.cat((pooled.flatten(2), cells.flatten(2)), 2)[0].T
        tokens = self.transformer(tokens + self.w[f"transformers.{i}.pos_emb"][0], f"transformers.{i}")
        n = image_size[0] * image_size[1]
        to_image, to_lidar = (
            part.T.reshape(1, -1, *size) for part, size in ((tokens[:n], image_size), (tokens[n:], lidar_size))
        )
        to_lidar = self.conv(to_lidar, f"img_channel_to_lidar.{i}")
        lidar = lidar + resized(to_lidar, lidar.shape[2:])
        if not (self.lean and i == STAGES - 1):
            picture = picture + resized(to_image, picture.shape[2:])
        return picture, lidar

    def pyramid(self, lidar):
        x = self.conv(lidar, "c5_conv").relu_()
        rows, columns = (size * self.c.get("bev_upsample_factor", 2) for size in x.shape[2:])
        x = self.conv(resized(x, (rows, columns)), "up_conv5", padding=1).relu_()
        factor = self.c.get("bev_down_sample_factor", 4)
        size = [self.c[f"lidar_resolution_{side}"] // factor for side in ("height", "width")]
        return self.conv(resized(x, size), "up_conv4", padding=1).relu_()

    def forward(self, image, lidar):
        picture = self.conv_norm(self.normalized(image), "image_encoder.stem", 2).relu_()
        lidar = lidar[None].contiguous(memory_format=self.memory_format)
        lidar = self.conv_norm(lidar, "lidar_encoder.stem", 2).relu_()
        for i in range(STAGES):
            picture = self.stage(picture, "image_encoder", i + 1)
            lidar = self.stage(lidar, "lidar_encoder", i + 1)
            picture, lidar = self.fuse(picture, lidar, i)
        if not self.lean:
            self.pyramid(lidar)
        return lidar.flatten(2)[0].T


def release(weights, config):
    return Bev(weights, config, False, torch.contiguous_format)


def lean(weights, config, inputs):
    """The faster memory format's encoder, and that format's name."""
    weights, took = folded(weights), {}
    for name, memory_format in FORMATS.items():
        encoder = Bev(in_format(weights, memory_format), config, True, memory_format)
        took[name] = least_time(lambda: encoder.forward(*inputs)), encoder
    name = min(took, key=lambda name: took[name][0])
    return took[name][1], name


def least_time(call):
    times = []
    for _ in range(6):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times[1:])
