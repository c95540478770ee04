"""Records losses, gradients and detections of PaddleX 2.1.0's one-stage detectors into one_stage.json.

Run with paddlepaddle and an unpacked paddlex: python record_one_stage.py SITE_PACKAGES/paddlex > one_stage.json
Its files are loaded alone: the whole package wants many others.
"""
import importlib.util
import json
import math
import sys
import types

import numpy as np
import paddle
import paddle.nn.functional as F

ROOT = sys.argv[1] + "/ppdet"


def package(name):
    module = types.ModuleType(name)
    module.__path__ = []
    sys.modules[name] = module
    return module


def load(name, path):
    spec = importlib.util.spec_from_file_location(name, f"{ROOT}/{path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


for name in ["paddlex", "paddlex.ppdet", "paddlex.ppdet.core", "paddlex.ppdet.modeling", "paddlex.ppdet.data",
             "paddlex.ppdet.modeling.losses", "paddlex.ppdet.modeling.heads", "paddlex.ppdet.modeling.assigners",
             "paddlex.ppdet.data.transform"]:
    package(name)
workspace = package("paddlex.ppdet.core.workspace")
workspace.register = workspace.serializable = lambda c: c
ops = package("paddlex.ppdet.modeling.ops")
sys.modules["paddlex.ppdet.modeling"].ops = ops
logger = package("paddlex.ppdet.utils")
package("paddlex.ppdet.utils.logger").setup_logger = lambda *_: types.SimpleNamespace(debug=print)
np.bool = bool  # written for older releases of numpy
package("paddlex.ppdet.modeling.layers").ConvNormLayer = None
bbox_utils = load("paddlex.ppdet.modeling.bbox_utils", "modeling/bbox_utils.py")
iou_loss = load("paddlex.ppdet.modeling.losses.iou_loss", "modeling/losses/iou_loss.py")
iou_aware = load("paddlex.ppdet.modeling.losses.iou_aware_loss", "modeling/losses/iou_aware_loss.py")
yolo_loss = load("paddlex.ppdet.modeling.losses.yolo_loss", "modeling/losses/yolo_loss.py")
varifocal = load("paddlex.ppdet.modeling.losses.varifocal_loss", "modeling/losses/varifocal_loss.py")
gfocal = load("paddlex.ppdet.modeling.losses.gfocal_loss", "modeling/losses/gfocal_loss.py")
load("paddlex.ppdet.data.transform.atss_assigner", "data/transform/atss_assigner.py")
gfl = load("paddlex.ppdet.modeling.heads.gfl_head", "modeling/heads/gfl_head.py")
simota_head = load("paddlex.ppdet.modeling.heads.simota_head", "modeling/heads/simota_head.py")
simota = load("paddlex.ppdet.modeling.assigners.simota_assigner", "modeling/assigners/simota_assigner.py")


def source(path, name):
    """One class or function of a file whose imports are not there."""
    text = open(f"{ROOT}/{path}").read()
    start = text.index(name)
    ends = [text.find(stop, start + 1) for stop in ("\nclass ", "\ndef ", "\n@")]
    return text[start:min(e for e in ends if e > 0)]


scope = {"np": np, "paddle": paddle, "F": F, "BaseOperator": type("BaseOperator", (), {"__init__": lambda self: None})}
helper = open(f"{ROOT}/data/transform/op_helper.py").read()
for name in ["def bbox_area", "def jaccard_overlap"]:
    exec(source("data/transform/op_helper.py", name), scope)
exec(source("data/transform/batch_operators.py", "class Gt2YoloTarget"), scope)
exec(source("modeling/heads/yolo_head.py", "def _de_sigmoid"), scope)

random = np.random.default_rng(11)
CLASSES = 4


def listed(array, digits=6):
    return [round(float(x), digits) for x in np.asarray(array, dtype="float64").reshape(-1)]


# Boxes in pixels of a 128×96 input (height 96, width 128): several on one cell, one mixed, none in the last image.
HEIGHT, WIDTH = 96, 128
THINGS = [
    [[10, 8, 30, 40, 1, 1.0], [60, 20, 120, 90, 3, 0.35], [11, 9, 29, 39, 2, 0.65], [100, 4, 112, 18, 0, 1.0]],
    [[30, 30, 64, 62, 0, 1.0], [2, 50, 126, 94, 2, 1.0]],
    [],
]


def yolo(name, anchors, masks, strides, scale, ignore, iou, aware, smooth, factor):
    grids = [(HEIGHT // s, WIDTH // s) for s in strides]
    samples = []
    for things in THINGS:
        boxes = np.zeros((8, 4), "float32")
        classes, scores = np.zeros((8,), "int32"), np.zeros((8,), "float32")
        for i, (x1, y1, x2, y2, c, s) in enumerate(things):
            x1, x2, y1, y2 = x1 / WIDTH, x2 / WIDTH, y1 / HEIGHT, y2 / HEIGHT
            boxes[i] = [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]
            classes[i], scores[i] = c, s
        samples.append({"image": np.zeros((3, HEIGHT, WIDTH), "float32"), "gt_bbox": boxes, "gt_class": classes,
                        "gt_score": scores})
    scope["Gt2YoloTarget"](anchors, masks, strides, CLASSES)(samples)
    targets = {f"target{i}": paddle.to_tensor(np.stack([s[f"target{i}"] for s in samples])) for i in range(len(strides))}
    targets["gt_bbox"] = paddle.to_tensor(np.stack([s["gt_bbox"] for s in samples]))
    outputs, level_anchors = [], [[anchors[i] for i in mask] for mask in masks]
    for (h, w), mask in zip(grids, masks):
        channels = len(mask) * (5 + CLASSES + int(aware))
        out = paddle.to_tensor((random.standard_normal((len(THINGS), channels, h, w)) * 0.8).astype("float32"))
        out.stop_gradient = False
        outputs.append(out)
    # Some predictions near the truth, so that the threshold of ignoring matters.
    for out, target, mask in zip(outputs, [targets[f"target{i}"].numpy() for i in range(len(strides))], masks):
        values = out.numpy()
        for n, a, row, column in zip(*np.nonzero(target[:, :, 5])):
            at = (len(mask) if aware else 0) + a * (5 + CLASSES)
            values[n, at + 2:at + 4, row, column] = target[n, a, 2:4, row, column] + 0.1
        out.set_value(values)
    loss = yolo_loss.YOLOv3Loss(
        CLASSES, ignore, smooth, strides, scale,
        iou_loss.IouLoss(loss_weight=2.5) if iou else None,
        iou_aware.IouAwareLoss(loss_weight=1.0) if aware else None)
    parts = loss(outputs, targets, level_anchors)
    parts["loss"].backward()

    # Detections, before the choice among boxes: objectness with overlaps, boxes and scores.
    maps = []
    for out, mask in zip(outputs, masks):
        value = out.detach()
        if aware:
            na = len(mask)
            b, c, h, w = value.shape
            overlap = F.sigmoid(value[:, :na].reshape((b, na, 1, h * w)))
            x = value[:, na:].reshape((b, na, -1, h * w))
            obj = scope["_de_sigmoid"](F.sigmoid(x[:, :, 4:5]) ** (1 - factor) * overlap ** factor)
            value = paddle.concat([x[:, :, :4], obj, x[:, :, 5:]], axis=2).reshape((b, -1, h, w))
        maps.append(value)
    sizes = np.array([[300, 400], [77, 250], [96, 128]], "int32")  # height, width
    # `yolo_box` wants square maps of one side: what is behind it is checked on the first rows.
    detections = []
    boxes, scores = [], []
    for value, stride, of_level in zip(maps, strides, level_anchors):
        flat = [side for anchor in of_level for side in anchor]
        b, s = paddle.vision.ops.yolo_box(value, paddle.to_tensor(sizes), flat, CLASSES, 0.3, stride, True, scale_x_y=scale)
        boxes.append(b)
        scores.append(paddle.transpose(s, [0, 2, 1]))
    boxes, scores = paddle.concat(boxes, 1), paddle.concat(scores, 2)
    matrix = aware
    for i in range(len(THINGS)):
        if matrix:
            out, _, _ = paddle._C_ops.matrix_nms(boxes[i:i + 1], scores[i:i + 1], 0.1, -1, 20, 0.05, False, 2.0, -1, False)
        else:
            out, _, _ = paddle._C_ops.multiclass_nms3(boxes[i:i + 1], scores[i:i + 1], None, 0.1, 1000, 20, 0.45, True, 1.0, -1)
        detections.append(listed(out.numpy(), 7))
    return {
        "name": name, "anchors": level_anchors, "strides": strides, "scale_xy": scale, "ignore": ignore, "iou": iou,
        "iou_aware": factor if aware else None, "smooth": smooth,
        "outputs": [{"shape": o.shape, "values": listed(o.numpy(), 7), "gradient": listed(o.grad.numpy(), 7)} for o in outputs],
        "parts": {k: float(v) for k, v in parts.items() if k != "loss"},
        "sizes": sizes.tolist(), "matrix": matrix, "detections": detections,
    }


def pico():
    strides = [8, 16, 32, 64]
    head = object.__new__(simota_head.OTAVFLHead)
    paddle.nn.Layer.__init__(head)
    head.num_classes = head.cls_out_channels = CLASSES
    head.fpn_stride, head.reg_max, head.cell_offset = strides, 7, 0.5
    head.distribution_project = gfl.Integral(7)
    head.loss_vfl = varifocal.VarifocalLoss(use_sigmoid=True, iou_weighted=True, loss_weight=1.0)
    head.loss_dfl = gfocal.DistributionFocalLoss(loss_weight=0.25)
    head.loss_bbox = iou_loss.GIoULoss(loss_weight=2.0)
    head.assigner = simota.SimOTAAssigner(candidate_topk=10, iou_weight=6, num_classes=CLASSES)
    scores, sides = [], []
    for s in strides:
        h, w = math.ceil(HEIGHT / s), math.ceil(WIDTH / s)
        for kept, channels, mean, std in [(scores, CLASSES, -2, 1), (sides, 32, 0, 1.5)]:
            value = random.standard_normal((len(THINGS), channels, h, w)) * std + mean
            value = paddle.to_tensor(value.astype("float32"))
            value.stop_gradient = False
            kept.append(value)
    boxes = [paddle.to_tensor(np.array([t[:4] for t in things], "float32").reshape(-1, 4)) for things in THINGS]
    classes = [paddle.to_tensor(np.array([t[4:5] for t in things], "int64").reshape(-1, 1)) for things in THINGS]
    parts = head.get_loss((scores, sides), {"im_id": paddle.zeros([len(THINGS)]), "gt_bbox": boxes, "gt_class": classes})
    sum(parts.values()).backward()
    head.nms_pre = 1000
    shown = paddle.to_tensor(np.array([[HEIGHT, WIDTH]] * 3, "float32"))
    factors = paddle.to_tensor(np.array([[0.32, 0.5], [1.5, 2.0], [1.0, 1.0]], "float32"))  # height, width
    move = lambda maps: [m.detach().transpose([0, 2, 3, 1]) for m in maps]
    b, s = head.decode([F.sigmoid(m) for m in move(scores)], move(sides), shown, factors, 0.5)
    detections = []
    for i in range(3):
        out, _, _ = paddle._C_ops.multiclass_nms3(b[i:i + 1], s[i:i + 1], None, 0.025, 1000, 20, 0.6, True, 1.0, -1)
        detections.append(listed(out.numpy(), 7))
    outputs = [o for pair in zip(scores, sides) for o in pair]
    return {
        "strides": strides, "parts": {k: float(v) for k, v in parts.items()},
        "outputs": [{"shape": o.shape, "values": listed(o.numpy(), 7), "gradient": listed(o.grad.numpy(), 7)} for o in outputs],
        "sizes": [[300, 256], [64, 64], [96, 128]], "detections": detections,
    }


COCO = [[10, 13], [16, 30], [33, 23], [30, 61], [62, 45], [59, 119]]
MASKS = [[3, 4, 5], [0, 1, 2]]
cases = [
    yolo("YOLOv3", COCO, MASKS, [32, 16], 1.0, 0.7, False, False, False, 0),
    yolo("YOLOv3", COCO, MASKS, [32, 16], 1.0, 0.7, False, False, True, 0),
    yolo("PPYOLO", COCO, MASKS, [32, 16], 1.05, 0.7, True, True, False, 0.4),
    yolo("PPYOLOTiny", COCO, MASKS, [32, 16], 1.05, 0.5, True, False, False, 0),
]
print(json.dumps({"paddle": paddle.__version__, "paddlex": "2.1.0", "height": HEIGHT, "width": WIDTH, "classes": CLASSES,
                  "things": THINGS, "yolo": cases, "pico": pico()}))
