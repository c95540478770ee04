"""Records what PaddleX's two-stage detectors compute between and behind their layers, for src/two_stage_tests.rs.

Needs paddlepaddle 2.6.2, the files of paddlex 2.1.0 and pycocotools:
PYTHONPATH=SITE_PACKAGES_WITH_PADDLEX python record_two_stage.py > two_stage.json
Network outputs come from a hash of name and index, so that the test makes the same ones; samples are taken without chance.
"""
import json
import os
import sys
import types
from unittest.mock import MagicMock

import numpy as np
import paddle

np.bool = bool
concat = paddle.concat
# Elements of a shape had a dimension of their own.
paddle.concat = lambda parts, axis=0: concat([p if p.ndim else p.reshape([1]) for p in parts], axis)
SITE = next(p for p in sys.path if os.path.isdir(os.path.join(p, "paddlex")))
for name in ["paddlex", "paddlex.ppdet", "paddlex.ppdet.modeling", "paddlex.ppdet.modeling.proposal_generator", "paddlex.ppdet.modeling.heads", "paddlex.ppdet.core"]:
    module = types.ModuleType(name)
    module.__path__ = [os.path.join(SITE, *name.split("."))]
    sys.modules[name] = module
workspace = types.ModuleType("paddlex.ppdet.core.workspace")
workspace.register = workspace.serializable = lambda c: c
workspace.create = None
sys.modules["paddlex.ppdet.core.workspace"] = workspace
# Paddle 2.6 has these operations elsewhere than the release PaddleX was written for.
fluid = MagicMock()
fluid.framework.in_dygraph_mode = lambda: True
fluid.core.ops = paddle._legacy_C_ops
for name in ["paddle.fluid", "paddle.fluid.framework", "paddle.fluid.core", "paddle.fluid.layer_helper", "paddle.fluid.data_feeder"]:
    sys.modules[name] = fluid
sys.modules["paddle.fluid.framework"] = fluid.framework
fluid.core.__spec__ = None
sys.modules["paddlex.ppdet.modeling.transformers"] = MagicMock()
from paddlex.ppdet.modeling import ops  # noqa: E402

ops.in_dygraph_mode = lambda: True
ops.core = types.SimpleNamespace(ops=paddle._legacy_C_ops)
from paddlex.ppdet.modeling.heads.bbox_head import BBoxHead  # noqa: E402
from paddlex.ppdet.modeling.heads.mask_head import MaskHead  # noqa: E402
from paddlex.ppdet.modeling.layers import MultiClassNMS, RCNNBox  # noqa: E402
from paddlex.ppdet.modeling.post_process import BBoxPostProcess, MaskPostProcess  # noqa: E402
from paddlex.ppdet.modeling.proposal_generator.rpn_head import RPNHead  # noqa: E402
from paddlex.ppdet.modeling.proposal_generator.target import label_box  # noqa: E402
from paddlex.ppdet.modeling.proposal_generator.target_layer import BBoxAssigner, MaskAssigner  # noqa: E402

CLASSES, SIDE = 3, 28
HEIGHT, WIDTH = 96, 128
STRIDES, SIZES, RATIOS = [8, 16, 32], [[16], [32], [64]], [0.5, 1.0, 2.0]
# Height and width of the images in the input, and of the stored pictures.
SHOWN = [(90, 120), (96, 128)]
FULL = [(180, 240), (75, 100)]
OBJECTS = [
    [
        (0, [10.5, 12.0, 40.25, 45.0], [[10.5, 12, 40.25, 20, 30, 45, 12, 40]]),
        (2, [50.0, 8.0, 74.0, 70.0], [[50, 8, 74, 8, 74, 30, 50, 30], [55, 40, 70, 40, 62, 70]]),
        (1, [80.0, 50.0, 118.0, 88.0], [[80, 69, 99, 50, 118, 69, 99, 88]]),
        (1, [84.0, 52.0, 110.0, 80.0], [[84, 52, 110, 52, 110, 80, 84, 80]]),
        (0, [2.0, 60.0, 9.0, 66.0], [[2, 60, 9, 60, 9, 66, 2, 66]]),
    ],
    [
        (2, [0.0, 0.0, 128.0, 96.0], [[0, 0, 128, 0, 128, 96, 0, 96]]),
        (0, [60.0, 33.0, 91.0, 70.0], [[60, 33, 91, 33, 75, 70]]),
    ],
]
TRAIN = {"min_size": 0.0, "nms_thresh": 0.7, "pre_nms_top_n": 200, "post_nms_top_n": 100, "topk_after_collect": True}
TEST = {"min_size": 0.0, "nms_thresh": 0.7, "pre_nms_top_n": 100, "post_nms_top_n": 50}


def unit(name, n):
    """n numbers in [-0.5, 0.5)."""
    i = np.arange(n, dtype=np.uint64)
    s = np.uint64(sum(k * b for k, b in enumerate(name.encode(), 1)))
    x = (i * np.uint64(2654435761) + s * np.uint64(40503)) & np.uint64(0xFFFFFFFF)
    x ^= x >> np.uint64(16)
    x = (x * np.uint64(0x45D9F3B)) & np.uint64(0xFFFFFFFF)
    x ^= x >> np.uint64(16)
    return x.astype(np.float64) / 2**32 - 0.5


def made(name, shape, scale):
    values = (unit(name, int(np.prod(shape))) * scale).astype(np.float32).reshape(shape)
    return paddle.to_tensor(values, stop_gradient=False)


def rounded(x, digits=4):
    return np.round(np.asarray(x, dtype=np.float64), digits).tolist()


def checksum(tensor, name):
    """One number that depends on every gradient."""
    g = tensor.grad.numpy().ravel().astype(np.float64)
    return float(g @ unit(name, g.size))


def runs(mask):
    """Run lengths down the columns, 0 first."""
    flat, result, value = np.asarray(mask).T.ravel(), [0], 0
    for pixel in flat:
        if pixel != value:
            result.append(0)
            value = pixel
        result[-1] += 1
    return result


def network_outputs():
    scores = [made(f"score{i}", (2, 3, HEIGHT // s, WIDTH // s), 8) for i, s in enumerate(STRIDES)]
    deltas = [made(f"delta{i}", (2, 12, HEIGHT // s, WIDTH // s), 0.6) for i, s in enumerate(STRIDES)]
    return scores, deltas


def rpn(proposals):
    return RPNHead(
        anchor_generator={"aspect_ratios": RATIOS, "anchor_sizes": SIZES, "strides": STRIDES},
        rpn_target_assign={"batch_size_per_im": 64, "fg_fraction": 0.5, "negative_overlap": 0.3, "positive_overlap": 0.7, "use_random": False},
        train_proposal=proposals,
        test_proposal=proposals,
        in_channel=8,
    )


inputs = {
    "im_shape": paddle.to_tensor(np.array(SHOWN, np.float32)),
    "scale_factor": paddle.to_tensor(np.array([[s[0] / f[0], s[1] / f[1]] for s, f in zip(SHOWN, FULL)], np.float32)),
    "gt_bbox": [paddle.to_tensor(np.array([o[1] for o in image], np.float32)) for image in OBJECTS],
    "gt_class": [paddle.to_tensor(np.array([[o[0]] for o in image], np.int32)) for image in OBJECTS],
    "gt_poly": [[o[2] for o in image] for image in OBJECTS],
}
record = {"made_with": f"paddlex 2.1.0, paddlepaddle {paddle.__version__}"}
scores, deltas = network_outputs()
head = rpn(TRAIN)
head.train()
anchors = head.anchor_generator(scores)
record["anchors"] = [rounded(a)[::5] for a in anchors]
flat = paddle.concat(anchors)
record["labels"] = []
for boxes in inputs["gt_bbox"]:
    matches, labels = label_box(flat, boxes, 0.7, 0.3, True, -1)
    positive = np.nonzero(labels.numpy() == 1)[0]
    record["labels"].append({
        "positive": positive.tolist(),
        "matches": matches.numpy()[positive].tolist(),
        "ignored": np.nonzero(labels.numpy() == -1)[0].tolist(),
    })
losses = head.get_loss(scores, deltas, anchors, inputs)
sum(losses.values()).backward()
record["rpn"] = {name: float(v) for name, v in losses.items()}
record["rpn"]["gradients"] = [checksum(t, "check") for t in scores + deltas]
record["proposals"] = []
for config in [TRAIN, TEST]:
    head = rpn(config)
    head.train() if config is TRAIN else head.eval()
    rois, _ = head._gen_proposal(scores, deltas, anchors, inputs)
    record["proposals"].append([rounded(r) for r in rois])
    if config is TRAIN:
        train_rois = rois
    else:
        test_rois = rois

assign = BBoxAssigner(batch_size_per_im=64, use_random=False, num_classes=CLASSES)
rois, count, targets = assign(train_rois, None, inputs)
record["rois"] = [
    {"rois": rounded(r), "labels": label.numpy().tolist(), "objects": object.numpy().tolist()}
    for r, label, object in zip(rois, targets[0], targets[2])
]
total = sum(len(r) for r in rois)
box_score, box_delta = made("box_score", (total, CLASSES + 1), 6), made("box_delta", (total, 4 * CLASSES), 6)
losses = BBoxHead.get_loss(types.SimpleNamespace(num_classes=CLASSES, bbox_loss=None), box_score, box_delta, targets, rois, [10.0, 10.0, 5.0, 5.0])
sum(losses.values()).backward()
record["box"] = {name: float(v) for name, v in losses.items()}
record["box"]["gradients"] = [checksum(box_score, "check"), checksum(box_delta, "check")]

masks = MaskAssigner(num_classes=CLASSES, mask_resolution=SIDE)
mask_rois, _, classes, truth, _, weights = masks(rois, targets[0], targets[2], inputs)
logits = made("mask", (truth.shape[0], CLASSES, SIDE, SIDE), 6)
loss = MaskHead.get_loss(types.SimpleNamespace(num_classes=CLASSES), logits, classes, truth, weights)
loss.backward()
record["mask"] = {
    "rois": [rounded(r) for r in mask_rois],
    "classes": classes.numpy().tolist(),
    "truth": [runs(m) for m in truth.numpy()],
    "loss_mask": float(loss),
    "gradient": checksum(logits, "check"),
}

record["detections"] = []
for i in range(2):
    roi = test_rois[i]
    n = roi.shape[0]
    softmax = paddle.nn.functional.softmax(made(f"test_score{i}", (n, CLASSES + 1), 8))
    one = {k: inputs[k][i : i + 1] for k in ["im_shape", "scale_factor"]}
    post = BBoxPostProcess(CLASSES, RCNNBox(num_classes=CLASSES), MultiClassNMS(score_threshold=0.05, keep_top_k=12, nms_threshold=0.5))
    counts = paddle.to_tensor([n], dtype="int32")
    found, number = post((made(f"test_delta{i}", (n, 4 * CLASSES), 6), softmax), ([roi], counts), one["im_shape"], one["scale_factor"])
    final = post.get_pred(found, number, one["im_shape"], one["scale_factor"])
    # Smooth, as masks of networks are.
    k, y, x = np.meshgrid(np.arange(found.shape[0]), np.arange(SIDE), np.arange(SIDE), indexing="ij")
    waves = 0.5 + 0.5 * np.sin(0.3 * x + 0.1 * k) * np.cos(0.2 * y + 0.3 * k)
    mask = paddle.to_tensor(waves.astype(np.float32))
    pasted = MaskPostProcess()(mask, final, number, post.get_origin_shape())
    record["detections"].append({
        "in_input": rounded(found.numpy()),
        "final": rounded(final.numpy()),
        "runs": [runs(m) for m in pasted.numpy()],
    })
print(json.dumps(record))
