"""Peer of detection: COCO evaluation by pycocotools, non-maximum suppression by torchvision, or training steps in
PyTorch eager.

The folder of the first two is described in native/metrics/examples/detection_rate.rs. Reading it is not timed.
`--parameters` and `--macs` of training are those of our network for one image and one region: another network would be
no peer.
"""

import argparse
import contextlib
import io
import os

import numpy as np
from turns import take_turns

parser = argparse.ArgumentParser()
parser.add_argument("--task", choices=["coco", "nms", "train"], required=True)
parser.add_argument("--folder")
parser.add_argument("--model", default="YOLOv3:DarkNet53")
parser.add_argument("--parameters", type=int)
parser.add_argument("--macs", type=int)
parser.add_argument("--batch", type=int, default=4)
parser.add_argument("--size", type=int, default=608)
parser.add_argument("--classes", type=int, default=80)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--variant", choices=["default", "tuned"], default="default", help="default: fp32 contiguous; tuned: channels-last, bf16 autocast")
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


def train():
    import torch
    from det_networks import detector
    from eager import same_network, training

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    make = lambda: detector(args.model, args.classes)
    same_network(args, make, lambda net, images: net.once(images))
    net = make().train()
    targets = net.targets(args.batch, args.size, args.classes)
    return training(args, net, lambda images: net(images, targets), 1e-5)


take_turns(*{"coco": coco, "nms": nms, "train": train}[args.task]())
