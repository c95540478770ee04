"""PaddleSlim peer: sensitivity analysis as PaddleX runs it, on some layers: paddleslim_peer.py --model resnet18 --folder DIR."""

import argparse
import json
import os
import sys
import tempfile
import time

parser = argparse.ArgumentParser()
parser.add_argument("--model", default="resnet18")
parser.add_argument("--folder", required=True, help="holds val_list.txt, labels.txt and the pictures")
parser.add_argument("--size", type=int, default=224)
parser.add_argument("--batch", type=int, default=16)
parser.add_argument("--layers", type=int, default=2, help="layers that are measured, spread over the network")
parser.add_argument("--threads", type=int, default=2)
args = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = str(args.threads)
os.environ["CPU_NUM"] = "1"

import numpy as np  # noqa: E402  the environment must be set first
import paddle  # noqa: E402
from paddleslim.dygraph import L1NormFilterPruner  # noqa: E402
from PIL import Image  # noqa: E402

paddle.set_device("cpu")
try:
    paddle.base.core.set_num_threads(args.threads)
except AttributeError:
    pass

lines = [line.rsplit(" ", 1) for line in open(os.path.join(args.folder, "val_list.txt")) if line.strip()]
classes = sum(1 for line in open(os.path.join(args.folder, "labels.txt")) if line.strip())
mean, std = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)


def load(name):
    """As PaddleX prepares a validation image; done once, which favours this peer: PaddleX decodes in each evaluation."""
    image = Image.open(os.path.join(args.folder, name)).convert("RGB")
    short = int(args.size * 1.143)
    scale = short / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.BILINEAR)
    left, top = (image.width - args.size) // 2, (image.height - args.size) // 2
    pixels = np.asarray(image.crop((left, top, left + args.size, top + args.size)), np.float32)
    return ((pixels / 255 - mean) / std).transpose(2, 0, 1)


images = np.stack([load(name) for name, _ in lines])
labels = np.array([int(label) for _, label in lines])
net = getattr(paddle.vision.models, args.model)(num_classes=classes)
net.eval()
evaluations = 0


def evaluate():
    global evaluations
    evaluations += 1
    hits = 0
    with paddle.no_grad():
        for start in range(0, len(images), args.batch):
            scores = net(paddle.to_tensor(images[start : start + args.batch])).numpy()
            hits += int((scores.argmax(1) == labels[start : start + args.batch]).sum())
    # A loss of a network without a correct answer would divide by nothing.
    return max(hits, 1) / len(images)


pruner = L1NormFilterPruner(net, [1, 3, args.size, args.size])
skipped = set(pruner.skip_vars)
names = [c.master_name for c in pruner.collections if c.master_name not in skipped]
chosen = [names[i * (len(names) - 1) // max(args.layers - 1, 1)] for i in range(args.layers)]
evaluate()
print(json.dumps({"ready": True, "version": paddle.__version__, "layers": len(names)}), flush=True)
for line in sys.stdin:
    if not line.startswith("run"):
        break
    evaluations = 0
    pruner._status.sensitivies.clear()
    pruner._status.is_ckp = True
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        pruner.sensitive(eval_func=evaluate, sen_file=os.path.join(folder, "model.sensi.data"), target_vars=chosen)
        seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "evaluations": evaluations, "layers": len(names), "rate": len(images) * evaluations / seconds}), flush=True)
