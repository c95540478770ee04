"""PaddleX peer: training steps of its YOLOv3 as its own loop runs them, on Paddle's CPU.

`--paddlex` is the folder of packages with paddlex 2.1.0; this Python has Paddle. `--parameters` are those of our network:
another one would be no peer. Targets are made once, which favours this peer: PaddleX makes them for each batch.
"""

import argparse
import importlib
import importlib.machinery
import os
import sys
from unittest.mock import MagicMock

from det_objects import objects
from turns import take_turns

parser = argparse.ArgumentParser()
parser.add_argument("--paddlex", required=True)
parser.add_argument("--backbone", default="MobileNetV1")
parser.add_argument("--parameters", type=int, required=True)
parser.add_argument("--batch", type=int, default=4)
parser.add_argument("--size", type=int, default=416)
parser.add_argument("--classes", type=int, default=80)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--onednn", type=int, default=0)
args = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = str(args.threads)
os.environ["CPU_NUM"] = "1"

import numpy as np  # noqa: E402  the environment must be set first
import paddle  # noqa: E402


def load(name):
    """A module of PaddleX; packages that the networks do not need may be missing."""
    sys.path.append(args.paddlex)
    for known in [n for n in sys.modules if n.startswith("paddle.base")]:
        sys.modules[known.replace("base", "fluid", 1)] = sys.modules[known]  # its name before Paddle 2.5
    while True:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            missing = sys.modules[error.name] = MagicMock()
            missing.__path__, missing.__spec__ = [], importlib.machinery.ModuleSpec(error.name, None)
            for loaded in [n for n in sys.modules if n.split(".")[0] == "paddlex"]:
                del sys.modules[loaded]


detector = load("paddlex.cv.models.detector")
paddle.set_device("cpu")
paddle.seed(0)
try:
    paddle.base.core.set_num_threads(args.threads)
except AttributeError:
    pass
paddle.set_flags({"FLAGS_use_mkldnn": bool(args.onednn)})
model = detector.YOLOv3(num_classes=args.classes, backbone=args.backbone)
parameters = sum(int(np.prod(p.shape)) for name, p in model.net.named_parameters() if not name.endswith(("_mean", "_variance")))
if parameters != args.parameters:
    raise SystemExit(f"YOLOv3 with {args.backbone}: {parameters} parameters, ours {args.parameters}")


def sample(image):
    boxes, labels = objects(image, args.size, args.classes)
    made = {
        "image": np.random.default_rng(image).standard_normal((args.size, args.size, 3), np.float32),
        "gt_bbox": np.array(boxes, np.float32),
        "gt_class": np.array(labels, np.int32)[:, None],
    }
    for change in (detector._NormalizeBox(), detector._PadBox(50), detector._BboxXYXY2XYWH()):
        made = change(made)
    return made


targets = detector._Gt2YoloTarget(model.anchors, model.anchor_masks, [32, 16, 8], args.classes)
samples = targets([sample(image) for image in range(args.batch)])
for made in samples:
    made["image"] = np.ascontiguousarray(made["image"].transpose(2, 0, 1))
keys = ["image", "gt_bbox", *(k for k in samples[0] if k.startswith("target"))]
data = {key: paddle.to_tensor(np.stack([made[key] for made in samples])) for key in keys}
optimizer = model.default_optimizer(model.net.parameters(), 1e-5, 0, 0.0, [10], 0.1, num_steps_each_epoch=1000)
model.net.train()


def step(_):
    loss = model.run(model.net, data, mode="train")["loss"]
    loss.backward()
    optimizer.step()
    optimizer.clear_grad()
    optimizer._learning_rate.step()
    if not np.isfinite(float(loss)):
        raise SystemExit(f"the loss is {float(loss)}")


step(0)
take_turns(step, args.batch, paddle.__version__)
