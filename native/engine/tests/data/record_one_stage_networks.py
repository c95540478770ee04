"""Records what the one-stage detectors of PaddleX compute, for tests/one_stage_networks.rs.

python record_one_stage_networks.py > one_stage_networks.jsonl  (paddlepaddle 2.6.2, paddlex 2.1.0)
Weights and images come from a hash of name and index, so that the test makes the same ones. With `all` as an
argument every backbone of PaddleX is recorded, not only those that the test keeps.
"""
import json
import math
import sys

import numpy as np

CLASSES = 3
SIZE = (96, 160)
VALUES = 32
# A number that keeps the signal alive along the network: the scale of batch norms.
KEPT = [
    ("YOLOv3 MobileNetV1", 1.0),
    ("YOLOv3 MobileNetV3", 1.0),
    ("YOLOv3 ResNet34", 0.7),
    ("PPYOLO ResNet18_vd", 1.0),
    ("PPYOLO MobileNetV3_small", 1.0),
    ("PPYOLOTiny MobileNetV3", 1.0),
    ("PPYOLOv2 ResNet50_vd_dcn", 0.9),
    ("PicoDet ESNet_s", 1.2),
    ("PicoDet LCNet", 1.2),
    ("PicoDet ESNet_l", 1.1),
    ("PicoDet MobileNetV3", 1.0),
    ("PicoDet ResNet18_vd", 1.1),
]
OTHERS = [
    ("YOLOv3 MobileNetV1_ssld", 1.0),
    ("YOLOv3 MobileNetV3_ssld", 1.0),
    ("YOLOv3 DarkNet53", 0.7),
    ("YOLOv3 ResNet50_vd_dcn", 1.0),
    ("PPYOLO ResNet50_vd_dcn", 1.0),
    ("PPYOLO MobileNetV3_large", 1.0),
    ("PPYOLOv2 ResNet101_vd_dcn", 0.8),
    ("PicoDet ESNet_m", 1.1),
]


def unit(name, n):
    """n numbers in [-0.5, 0.5)."""
    i = np.arange(n, dtype=np.uint64)
    s = np.uint64(sum(k * b for k, b in enumerate(name.encode(), 1)))
    x = (i * np.uint64(2654435761) + s * np.uint64(40503)) & np.uint64(0xFFFFFFFF)
    x ^= x >> np.uint64(16)
    x = (x * np.uint64(0x45D9F3B)) & np.uint64(0xFFFFFFFF)
    x ^= x >> np.uint64(16)
    return x.astype(np.float64) / 2**32 - 0.5


def fill(net, gain):
    for name, tensor in net.state_dict().items():
        shape = tensor.shape
        u = unit(name, math.prod(shape))
        if len(shape) > 1:
            v = u * math.sqrt(24.0 / math.prod(shape[1:]))
        elif name.endswith("_variance"):
            v = 1.0 + 0.4 * u
        elif name.endswith("weight"):
            v = gain * (1.0 + 0.4 * u)
        else:
            v = 0.2 * u
        tensor.set_value(v.astype(np.float32).reshape(shape))


def outputs(net, name, image):
    maps = net.neck(net.backbone({"image": image}))
    if name != "PicoDet":
        head = net.yolo_head
        return {f"yolo{i}": conv(x) for i, (conv, x) in enumerate(zip(head.yolo_outputs, maps))}
    net.head.training = True  # else it applies the sigmoid
    scores, sides = net.head(maps)
    found = {}
    for i, (score, side) in enumerate(zip(scores, sides)):
        found[f"score{i}"], found[f"sides{i}"] = score, side
    return found


def main(out):
    import paddle
    import paddlex

    paddle.set_device("cpu")
    image = (unit("input", 2 * 3 * SIZE[0] * SIZE[1]) * 4).astype(np.float32).reshape(2, 3, *SIZE)
    for model, gain in KEPT + (OTHERS if "all" in sys.argv else []):
        name, backbone = model.split()
        # PaddleX appends to a default argument each time it builds one.
        paddlex.ppdet.modeling.CSPPAN.__init__.__defaults__[-1][3:] = []
        net = getattr(paddlex.det, name)(num_classes=CLASSES, backbone=backbone).net
        fill(net, gain)
        net.eval()
        parameters = sum(math.prod(p.shape) for n, p in net.named_parameters() if not p.stop_gradient and "scale_reg" not in n)  # never used
        sampled = {}
        with paddle.no_grad():
            for key, value in outputs(net, name, paddle.to_tensor(image)).items():
                flat = value.numpy().flatten()
                step = (len(flat) // VALUES) | 1
                sampled[key] = [float(f"{v:.7g}") for v in flat[::step][:VALUES]]
                print(model, key, value.shape, "largest", abs(flat).max(), "spread", value.numpy().std(axis=(0, 2, 3)).mean(), file=sys.stderr)
        line = {"model": model, "gain": gain, "size": SIZE, "parameters": parameters, "outputs": sampled}
        print(json.dumps(line, separators=(",", ":")), file=out, flush=True)


# What libraries print must not come between the lines.
stdout, sys.stdout = sys.stdout, sys.stderr
main(stdout)
