"""Peer of detection: COCO evaluation by pycocotools, or non-maximum suppression by torchvision.

The folder is described in native/metrics/examples/detection_rate.rs. Reading it is not timed.
"""

import argparse
import contextlib
import io
import os

import numpy as np
from turns import take_turns

parser = argparse.ArgumentParser()
parser.add_argument("--task", choices=["coco", "nms"], required=True)
parser.add_argument("--folder", required=True)
args = parser.parse_args()

table = lambda name: np.loadtxt(os.path.join(args.folder, name))
quiet = lambda: contextlib.redirect_stdout(io.StringIO())


def coco():
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truths, detections = table("truths.txt"), table("detections.txt")
    images, classes = int(detections[:, 0].max()) + 1, int(truths[:, 1].max()) + 1
    with quiet():
        known = COCO()
        known.dataset = {
            "images": [{"id": i, "width": 640, "height": 480} for i in range(images)],
            "categories": [{"id": c, "name": str(c)} for c in range(classes)],
            "annotations": [
                {"id": i, "image_id": int(t[0]), "category_id": int(t[1]), "bbox": t[2:].tolist(), "area": t[4] * t[5], "iscrowd": 0}
                for i, t in enumerate(truths, 1)
            ],
        }
        known.createIndex()
        found = known.loadRes([{"image_id": int(d[0]), "category_id": int(d[1]), "score": d[2], "bbox": d[3:].tolist()} for d in detections])

    def evaluate(_):
        with quiet():
            run = COCOeval(known, found, "bbox")
            run.evaluate()
            run.accumulate()
            run.summarize()
        return float(run.stats[0])

    return evaluate, images


def nms():
    import torch
    import torchvision

    rows = torch.from_numpy(table("boxes.txt").astype(np.float32))
    scores, boxes = rows[:, 0].contiguous(), rows[:, 1:].contiguous()
    return lambda _: len(torchvision.ops.nms(boxes, scores, 0.7)), len(boxes)


take_turns(*{"coco": coco, "nms": nms}[args.task]())
