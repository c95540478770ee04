"""Records what PaddleX's segmentation networks compute, for tests/segmenters.rs.

Needs paddlepaddle 2.6.2 and the files of paddlex 2.1.0, of which only the networks are loaded:
python record_paddleseg.py SITE_PACKAGES_WITH_PADDLEX > paddleseg.jsonl
Weights and images come from a hash of name and index, so that the test makes the same ones. PaddleX has no
MobileNet under DeepLabV3P: PaddleClas's networks are given the strides and dilations of an output stride of 16.
"""
import importlib
import json
import math
import os
import sys
from unittest.mock import MagicMock

import numpy as np
import paddle


def package(name):
    """A package without what its __init__ would load."""
    module = type(sys)(name)
    module.__path__ = [os.path.join(sys.argv[1], *name.split("."))]
    sys.modules[name] = module


for name in ["paddlex", "paddlex.ppcls", "paddlex.ppcls.arch", "paddlex.ppcls.arch.backbone", "paddlex.ppcls.utils", "paddlex.ppcls.arch.backbone.model_zoo",
             "paddlex.ppcls.arch.backbone.legendary_models", "paddlex.paddleseg"]:
    package(name)
for name in ["paddlex.utils", "paddlex.utils.logging", "paddlex.utils.download", "paddlex.paddleseg.utils", "paddlex.paddleseg.utils.utils",
             "paddlex.ppcls.utils.save_load", "yaml", "cv2", "scipy", "scipy.ndimage", "scipy.ndimage.interpolation"]:
    sys.modules[name] = MagicMock()
models = importlib.import_module("paddlex.paddleseg.models")
mobilenet_v2 = importlib.import_module("paddlex.ppcls.arch.backbone.model_zoo.mobilenet_v2")
mobilenet_v3 = importlib.import_module("paddlex.ppcls.arch.backbone.legendary_models.mobilenet_v3")

CLASSES = 5
SIZES = [(64, 96), (65, 79)]
VALUES = 64


def unit(name, n):
    """n numbers in [-0.5, 0.5)."""
    i = np.arange(n, dtype=np.uint64)
    s = np.uint64(sum(k * b for k, b in enumerate(name.encode(), 1)))
    x = (i * np.uint64(2654435761) + s * np.uint64(40503)) & np.uint64(0xFFFFFFFF)
    x ^= x >> np.uint64(16)
    x = (x * np.uint64(0x45D9F3B)) & np.uint64(0xFFFFFFFF)
    x ^= x >> np.uint64(16)
    return x.astype(np.float64) / 2**32 - 0.5


def fill(model, gain):
    done = set()  # UNet has its last layer under two names
    for name, tensor in model.state_dict().items():
        if id(tensor) in done:
            continue
        done.add(id(tensor))
        shape = tensor.shape
        u = unit(name, math.prod(shape))
        if len(shape) > 1:
            v = u * math.sqrt(24.0 / math.prod(shape[1:]))
        elif name.endswith("._variance"):
            v = 1.0 + 0.4 * u
        elif name.endswith(".weight"):
            v = gain * (1.0 + 0.4 * u)
        else:
            v = 0.2 * u
        tensor.set_value(v.astype(np.float32).reshape(shape))


class Backbone(paddle.nn.Layer):
    """A classifier of PaddleClas as a backbone, under the names it has there."""

    def __init__(self, net, blocks, low, stem):
        super().__init__()
        for name, layer in net.named_children():
            self.add_sublayer(name, layer)
        self.blocks_in_order, self.low, self.stem = blocks, low, stem

    @property
    def feat_channels(self):
        return self.channels

    def forward(self, x):
        x = self.stem(x)
        maps = []
        for block in self.blocks_in_order:
            x = block(x)
            maps.append(x)
        return [maps[self.low], maps[-1]]


def dilate(blocks):
    """Replaces the last stride by a dilation of 2 from there on."""
    for block in blocks:
        for layer in block.sublayers(include_self=True):
            if isinstance(layer, paddle.nn.Conv2D) and layer._kernel_size[0] > 1:
                layer._stride = [1, 1]
                layer._dilation = [2, 2]
                layer._updated_padding = [2 * (k // 2) for k in layer._kernel_size]


def mobilenet(version, width):
    if version == 2:
        net = mobilenet_v2.MobileNet(scale=width)
        blocks = list(net.block_list)
        dilate(blocks[5:])
        low, channels = 1, [int(24 * width), int(320 * width)]
        stem = lambda x: net.conv1(x, if_act=True)
    else:
        net = mobilenet_v3.MobileNetV3_large_x1_0()
        blocks = list(net.blocks)
        dilate(blocks[12:])
        low, channels = 2, [24, 160]
        stem = net.conv
    for unused in ["conv9", "out", "last_second_conv", "last_conv", "fc", "pool2d_avg", "avg_pool", "flatten", "hardswish", "dropout"]:
        if unused in net._sub_layers:
            del net._sub_layers[unused]
    backbone = Backbone(net, blocks, low, stem)
    backbone.channels = channels
    return backbone


def deeplab(backbone, ratios, indices=(0, 3)):
    return models.DeepLabV3P(CLASSES, backbone, indices, ratios)


wide, narrow = (1, 12, 24, 36), (1, 6, 12, 18)
NETWORKS = {
    # A second number that keeps the signal alive along the network: the scale of batch norms.
    "UNet": (lambda: models.UNet(CLASSES), 1.0),
    "FastSCNN": (lambda: models.FastSCNN(CLASSES), 1.0),
    "BiSeNetV2": (lambda: models.BiSeNetV2(CLASSES), 1.0),
    "HRNet_W18": (lambda: models.FCN(CLASSES, models.HRNet_W18()), 0.5),
    "DeepLabV3P ResNet50_vd": (lambda: deeplab(models.ResNet50_vd(output_stride=8), wide), 0.8),
    "DeepLabV3P Xception41": (lambda: deeplab(models.Xception41_deeplab(), narrow, (0, 1)), 0.8),
    "DeepLabV3P MobileNetV2_x0.5": (lambda: deeplab(mobilenet(2, 0.5), narrow, (0, 1)), 1.0),
    "DeepLabV3P MobileNetV3_large_x1_0_ssld": (lambda: deeplab(mobilenet(3, 1.0), narrow, (0, 1)), 1.0),
}

paddle.set_device("cpu")
stdout, sys.stdout = sys.stdout, sys.stderr
for name, (build, gain) in NETWORKS.items():
    model = build()
    fill(model, gain)
    model.eval()
    model.training = True  # BiSeNetV2 has its auxiliary heads only then
    parameters = sum(math.prod(p.shape) for p in {id(p): p for p in model.parameters() if not p.stop_gradient}.values())
    for h, w in SIZES:
        x = (unit("input", 2 * 3 * h * w) * 4).astype(np.float32).reshape(2, 3, h, w)
        with paddle.no_grad():
            outputs = [o.numpy() for o in model(paddle.to_tensor(x))]
        values = []
        for output in outputs:
            flat = output.flatten()
            step = len(flat) // VALUES
            values.append([float(f"{v:.7g}") for v in flat[:: step | 1][:VALUES]])
            spread = output.std(axis=(0, 2, 3)).mean()
            print(name, (h, w), output.shape, "largest", abs(output).max(), "spread", spread)
        record = {"model": name, "gain": gain, "size": [h, w], "parameters": parameters, "outputs": values}
        print(json.dumps(record, separators=(",", ":")), file=stdout, flush=True)
