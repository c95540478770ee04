"""Records what torchvision's operators compute, for src/exec/detection_tests.rs.

Needs torch 2.11.0 and torchvision 0.26.0:  python record_torchvision_ops.py > torchvision_ops.jsonl
Inputs come from a hash of their name and index, so that the test makes the same ones. All in double precision; the
loss is the sum of the outputs times the numbers `grad`.
"""
import json
import numpy as np
import torch
from torchvision.ops import deform_conv2d, roi_align

torch.set_num_threads(1)


def unit(name, *shape):
    """Numbers in [-0.5, 0.5)."""
    i = np.arange(int(np.prod(shape)), dtype=np.uint64)
    s = np.uint64(sum(name.encode()))
    x = (i * np.uint64(2654435761) + s * np.uint64(40503)) & np.uint64(0xFFFFFFFF)
    x ^= x >> np.uint64(16)
    x = (x * np.uint64(0x45D9F3B)) & np.uint64(0xFFFFFFFF)
    x ^= x >> np.uint64(16)
    return torch.from_numpy(x.astype(np.float64) / 2**32 - 0.5).reshape(shape)


def numbers(t):
    return [float(f"{v:.8g}") for v in t.detach().reshape(-1).tolist()]


def deform(n, c, size, out, kernel, stride, padding, dilation, reach):
    h, w = size
    oh, ow = [(size[i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in (0, 1)]
    taps = kernel[0] * kernel[1]
    x = unit("x", n, c, h, w).requires_grad_()
    offset = (unit("offset", n, 2 * taps, oh, ow) * reach).requires_grad_()
    mask = (unit("mask", n, taps, oh, ow) + 0.5).requires_grad_()
    weight = unit("weight", out, c, *kernel).requires_grad_()
    bias = unit("bias", out).requires_grad_()
    y = deform_conv2d(x, offset, weight, bias, stride, padding, dilation, mask)
    grads = torch.autograd.grad((y * unit("grad", *y.shape)).sum(), [x, offset, mask, weight, bias])
    print(json.dumps({
        "op": "deform", "x": [n, c, h, w], "out": out, "kernel": kernel, "stride": stride, "padding": padding,
        "dilation": dilation, "reach": reach, "size": [oh, ow], "y": numbers(y), "grads": [numbers(g) for g in grads],
    }))


def regions(levels, strides, n, c, rois, size, sampling, aligned):
    maps = [unit(f"level{i}", n, c, h, w).requires_grad_() for i, (h, w) in enumerate(levels)]
    rois = torch.tensor(rois, dtype=torch.float64)
    width, height = (rois[:, 3] - rois[:, 1]).clamp(min=0), (rois[:, 4] - rois[:, 2]).clamp(min=0)
    level = torch.floor(4 + torch.log2(torch.sqrt(width * height) / 224 + 1e-8)) - np.log2(strides[0])
    level = level.clamp(0, len(strides) - 1).long()
    y = torch.zeros(len(rois), c, *size, dtype=torch.float64)
    for i, (map, stride) in enumerate(zip(maps, strides)):
        chosen = (level == i).nonzero()[:, 0]
        y = y.index_copy(0, chosen, roi_align(map, rois[chosen], size, 1 / stride, sampling, aligned))
    grads = torch.autograd.grad((y * unit("grad", *y.shape)).sum(), maps)
    print(json.dumps({
        "op": "regions", "levels": levels, "strides": strides, "n": n, "c": c, "rois": rois.tolist(), "size": size,
        "sampling": sampling, "aligned": aligned, "y": numbers(y), "grads": [numbers(g) for g in grads],
    }))


deform(2, 3, [7, 5], 4, [3, 3], [1, 1], [1, 1], [1, 1], 3.0)
deform(1, 5, [6, 8], 3, [3, 3], [2, 2], [1, 1], [1, 1], 9.0)
deform(2, 2, [9, 4], 2, [3, 1], [1, 2], [2, 0], [2, 1], 2.0)
deform(1, 4, [1, 1], 2, [3, 3], [1, 1], [1, 1], [1, 1], 2.0)
deform(1, 19, [3, 4], 2, [1, 1], [1, 1], [0, 0], [1, 1], 1.0)
deform(1, 2, [4, 5], 3, [5, 3], [1, 1], [2, 2], [1, 2], 4.0)

ROIS = [
    [0, 3.2, 5.1, 40.7, 33.3], [1, 0, 0, 80, 64], [1, -30, -20, 25, 18], [0, 60, 50, 130, 90], [0, 200, 200, 260, 230],
    [1, 17, 9, 17, 9], [0, 30, 20, 25.5, 28], [1, -90, -70, -40, -30], [0, 12.25, 3.5, 12.75, 61],
]
for aligned in (True, False):
    for sampling in (0, 2):
        regions([[8, 10]], [8], 2, 3, ROIS, [3, 2], sampling, aligned)
regions([[1, 1]], [64], 2, 3, ROIS, [2, 2], 0, True)
regions([[1, 1]], [64], 2, 3, ROIS, [2, 2], 2, False)
regions([[64, 80]], [1], 2, 1, ROIS, [7, 7], 0, True)
PYRAMID = [
    [0, 10, 20, 60, 90], [0, 0, 0, 112, 112], [0, 5, 5, 216.9, 120], [0, 0, 0, 224, 224], [0, 3, 8, 250, 300],
    [0, 0, 0, 448, 448], [0, 0, 0, 900, 700], [0, 1, 1, 2, 2], [0, 0, 0, 111.9, 112], [0, 5, 5, 5, 5],
]
regions([[10, 12], [5, 6], [3, 3], [2, 2]], [4, 8, 16, 32], 1, 2, PYRAMID, [2, 3], 0, True)
regions([[10, 12], [5, 6], [3, 3], [2, 2]], [4, 8, 16, 32], 1, 2, PYRAMID, [2, 2], 2, False)
