"""Paddle peer (PaddleX's engine), same protocol as torch_peer.py."""

import argparse
import json
import os
import resource
import sys
import time

parser = argparse.ArgumentParser()
parser.add_argument("--mode", choices=["train", "infer"], required=True)
parser.add_argument("--model", default="resnet50")
parser.add_argument("--batch", type=int, default=16)
parser.add_argument("--size", type=int, default=224)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--onednn", type=int, default=0)
args = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = str(args.threads)
os.environ["CPU_NUM"] = "1"

import paddle  # noqa: E402  the environment must be set first

paddle.set_device("cpu")
paddle.seed(0)
try:
    paddle.base.core.set_num_threads(args.threads)
except AttributeError:
    pass

paddle.set_flags({"FLAGS_use_mkldnn": bool(args.onednn)})
net = getattr(paddle.vision.models, args.model)(num_classes=1000)
images = paddle.randn([args.batch, 3, args.size, args.size])
labels = paddle.randint(0, 1000, [args.batch])
if args.mode == "train":
    net.train()
    optimizer = paddle.optimizer.Momentum(0.01, 0.9, parameters=net.parameters(), weight_decay=1e-4)
    criterion = paddle.nn.CrossEntropyLoss()

    def step():
        loss = criterion(net(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        float(loss)

else:
    net.eval()

    def step():
        with paddle.no_grad():
            net(images).numpy()


step()
print(json.dumps({"ready": True, "version": paddle.__version__}), flush=True)
for line in sys.stdin:
    words = line.split()
    if not words or words[0] != "run":
        break
    count = int(words[1])
    start = time.perf_counter()
    for _ in range(count):
        step()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"rate": args.batch * count / seconds, "seconds": seconds, "peak_bytes": peak}), flush=True)
