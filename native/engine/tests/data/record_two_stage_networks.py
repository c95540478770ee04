"""Records what the two-stage detectors of PaddleX and torchvision compute, for tests/two_stage_networks.rs.

python record_two_stage_networks.py torchvision > two_stage_networks.jsonl  (torch 2.11, torchvision)
python record_two_stage_networks.py SITE_PACKAGES_WITH_PADDLEX >> two_stage_networks.jsonl  (paddlepaddle 2.6.2, and the
files of paddlex 2.1.0; what else it would load is replaced)
Weights and images come from a hash of name and index, so that the test makes the same ones. With `all` as a second
argument every backbone of PaddleX is recorded, not only those that the test keeps.
"""
import importlib.machinery
import json
import math
import sys
from unittest.mock import MagicMock

import numpy as np

CLASSES = 3
SIZE = (96, 160)
VALUES = 24
# Image, left, top, right, bottom: on every level of a pyramid, thin, partly outside, without area.
ROIS = [
    [0, 3.2, 5.1, 60.7, 49.9],
    [0, 10.0, 8.0, 150.5, 90.25],
    [1, 0.0, 0.0, 159.0, 95.0],
    [0, 100.3, 2.0, 104.8, 94.0],
    [1, -40.0, -30.0, 300.0, 290.0],
    [1, -100.0, -200.0, 400.0, 300.0],
    [1, 20.0, 30.0, 20.0, 30.0],
]
MASK_ROIS = [[0, 12.5, 9.5, 88.0, 70.0], [1, 1.0, 2.0, 158.0, 93.5], [0, 40.0, 40.0, 47.0, 52.0]]


def unit(name, n):
    """n numbers in [-0.5, 0.5)."""
    i = np.arange(n, dtype=np.uint64)
    s = np.uint64(sum(k * b for k, b in enumerate(name.encode(), 1)))
    x = (i * np.uint64(2654435761) + s * np.uint64(40503)) & np.uint64(0xFFFFFFFF)
    x ^= x >> np.uint64(16)
    x = (x * np.uint64(0x45D9F3B)) & np.uint64(0xFFFFFFFF)
    x ^= x >> np.uint64(16)
    return x.astype(np.float64) / 2**32 - 0.5


def values(name, shape, gain, variance, linear=False):
    """`linear`: shape is [in, out]."""
    u = unit(name, math.prod(shape))
    if len(shape) > 1:
        v = u * math.sqrt(24.0 / (shape[0] if linear else math.prod(shape[1:])))
    elif variance:
        v = 1.0 + 0.4 * u
    elif name.endswith("weight"):
        v = gain * (1.0 + 0.4 * u)
    else:
        v = 0.2 * u
    return v.astype(np.float32).reshape(shape)


def image():
    return (unit("input", 2 * 3 * SIZE[0] * SIZE[1]) * 4).astype(np.float32).reshape(2, 3, *SIZE)


def record(out, model, origin, fpn, gain, parameters, outputs):
    sampled = {}
    for name, output in outputs.items():
        flat = output.flatten()
        step = (len(flat) // VALUES) | 1
        sampled[name] = [float(f"{v:.7g}") for v in flat[::step][:VALUES]]
        print(model, name, output.shape, "largest", abs(output).max(), "spread", output.std(), file=sys.stderr)
    line = {"model": model, "origin": origin, "fpn": fpn, "gain": gain, "size": SIZE, "rois": ROIS, "mask_rois": MASK_ROIS, "parameters": parameters, "outputs": sampled}
    print(json.dumps(line, separators=(",", ":")), file=out, flush=True)


def sorted_rois(rois):
    """PaddleX wants the regions of one image after those of the other: their places, and the boxes of each."""
    order = sorted(range(len(rois)), key=lambda i: rois[i][0])
    return order, [np.array([rois[i][1:] for i in order if rois[i][0] == n], np.float32) for n in (0, 1)]


def detectors():
    """PaddleX's, without the packages that its networks do not need."""
    sys.path.append(sys.argv[1])
    import paddle

    for name in [n for n in sys.modules if n.startswith("paddle.base")]:
        sys.modules[name.replace("base", "fluid", 1)] = sys.modules[name]  # as it was called before Paddle 2.5
    while True:
        try:
            return importlib.import_module("paddlex.cv.models.detector")
        except ModuleNotFoundError as error:
            missing = error.name
            mock = sys.modules[missing] = MagicMock()
            mock.__path__, mock.__spec__ = [], importlib.machinery.ModuleSpec(missing, None)
            for name in [n for n in sys.modules if n.split(".")[0] == "paddlex"]:
                del sys.modules[name]


def paddlex(out):
    import paddle

    detector = detectors()
    ops, vision = sys.modules["paddlex.ppdet.modeling.ops"], paddle.vision.ops
    # The same operations, under the names of this version of Paddle.
    ops.roi_align = lambda x, rois, size, scale, sampling_ratio=-1, rois_num=None, aligned=True: vision.roi_align(
        x, rois, rois_num, size, scale, sampling_ratio, aligned
    )
    ops.distribute_fpn_proposals = lambda rois, *levels, rois_num: vision.distribute_fpn_proposals(rois, *levels, rois_num=rois_num)
    paddle.set_device("cpu")
    models = [
        ("FasterRCNN ResNet50", True, 0.5),
        ("FasterRCNN ResNet34_vd", True, 0.7),
        ("FasterRCNN HRNet_W18", True, 0.5),
        ("FasterRCNN ResNet50_vd", False, 0.5),
        ("MaskRCNN ResNet101_vd", True, 0.5),
        ("MaskRCNN ResNet50", False, 0.5),
    ]
    if "all" in sys.argv:
        models += [("FasterRCNN " + b, True, 0.5) for b in ["ResNet50_vd", "ResNet50_vd_ssld", "ResNet34", "ResNet101", "ResNet101_vd"]]
        models += [("MaskRCNN " + b, True, 0.5) for b in ["ResNet50", "ResNet50_vd", "ResNet50_vd_ssld", "ResNet101"]]
        models += [("FasterRCNN ResNet50", False, 0.5)]
    for model, fpn, gain in models:
        name, backbone = model.split()
        # Without a pyramid PaddleX would take the first list of sizes only.
        sizes = [[32], [64], [128], [256], [512]] if fpn else [[32, 64, 128, 256, 512]]
        net = getattr(detector, name)(num_classes=CLASSES, backbone=backbone, with_fpn=fpn, anchor_sizes=sizes).net
        net.eval()
        parameters = 0
        linears = {n for n, layer in net.named_sublayers() if isinstance(layer, paddle.nn.Linear)}
        for key, tensor in net.state_dict().items():
            linear = key.rsplit(".", 1)[0] in linears and len(tensor.shape) > 1
            v = values(key, tensor.shape[::-1] if linear else tensor.shape, gain, key.endswith("_variance"))
            tensor.set_value(np.ascontiguousarray(v.T) if linear else v)
            if not key.endswith(("_mean", "_variance")):
                parameters += math.prod(tensor.shape)
        with paddle.no_grad():
            maps = net.backbone({"image": paddle.to_tensor(image())})
            maps = net.neck(maps) if net.neck else maps
            outputs = {}
            for i, x in enumerate(net.rpn_head.rpn_feat(maps)):
                outputs[f"rpn_score{i}"] = net.rpn_head.rpn_rois_score(x)
                outputs[f"rpn_delta{i}"] = net.rpn_head.rpn_rois_delta(x)

            def pooled(head, rois):
                order, boxes = sorted_rois(rois)
                counts = paddle.to_tensor([len(b) for b in boxes], "int32")
                x = head.roi_extractor(maps, [paddle.to_tensor(b) for b in boxes], counts)
                return paddle.gather(x, paddle.to_tensor(np.argsort(order)))

            x = net.bbox_head.head(pooled(net.bbox_head, ROIS))
            x = x.mean(axis=[2, 3]) if net.bbox_head.with_pool else x
            outputs["box_score"], outputs["box_delta"] = net.bbox_head.bbox_score(x), net.bbox_head.bbox_delta(x)
            if name == "MaskRCNN":
                x = pooled(net.mask_head, MASK_ROIS)
                x = net.bbox_head.head(x) if net.mask_head.share_bbox_feat else x
                outputs["mask"] = net.mask_head.mask_fcn_logits(net.mask_head.head(x))
        record(out, model, "paddle", fpn, gain, parameters, {k: v.numpy() for k, v in outputs.items()})


def torchvision(out):
    import torch
    from torchvision.models import detection

    for model, build in [("FasterRCNN ResNet50", detection.fasterrcnn_resnet50_fpn), ("MaskRCNN ResNet50", detection.maskrcnn_resnet50_fpn)]:
        gain = 0.5
        net = build(weights=None, weights_backbone=None, num_classes=CLASSES + 1).eval()
        parameters = 0
        for key, tensor in net.state_dict().items():
            if key.endswith("num_batches_tracked"):
                continue
            # Ours: the background last and without boxes and masks.
            shape, fit, name = list(tensor.shape), lambda v: v, key
            background = lambda v, rows: np.concatenate([np.zeros([rows, *v.shape[1:]], np.float32), v])
            if "cls_score" in key:
                name, fit = key.replace("cls_score", "score"), lambda v: np.roll(v, 1, axis=0)
            elif "bbox_pred" in key and "roi_heads" in key:
                name, shape[0], fit = key.replace("bbox_pred", "delta"), 4 * CLASSES, lambda v: background(v, 4)
            elif "mask_fcn_logits" in key:
                name, shape[0], fit = key.replace("mask_fcn_logits", "logits"), CLASSES, lambda v: background(v, 1)
            v = values(name, shape, gain, key.endswith("running_var"))
            tensor.copy_(torch.from_numpy(np.ascontiguousarray(fit(v))))
            if "running" not in key:
                parameters += math.prod(shape)
        with torch.no_grad():
            maps = net.backbone(torch.from_numpy(image()))
            scores, deltas = net.rpn.head(list(maps.values()))
            outputs = {}
            for i, (score, delta) in enumerate(zip(scores, deltas)):
                outputs[f"rpn_score{i}"], outputs[f"rpn_delta{i}"] = score, delta

            def pooled(pool, rois):
                order, boxes = sorted_rois(rois)
                x = pool(maps, [torch.from_numpy(b) for b in boxes], [SIZE, SIZE])
                return x[torch.from_numpy(np.argsort(order))]

            heads = net.roi_heads
            score, delta = heads.box_predictor(heads.box_head(pooled(heads.box_roi_pool, ROIS)))
            outputs["box_score"], outputs["box_delta"] = score.roll(-1, 1), delta[:, 4:]
            if heads.mask_predictor is not None:
                x = heads.mask_head(pooled(heads.mask_roi_pool, MASK_ROIS))
                outputs["mask"] = heads.mask_predictor(x)[:, 1:]
        record(out, model, "torch", True, gain, parameters, {k: v.numpy() for k, v in outputs.items()})


# What libraries print must not come between the lines.
stdout, sys.stdout = sys.stdout, sys.stderr
(torchvision if sys.argv[1] == "torchvision" else paddlex)(stdout)
