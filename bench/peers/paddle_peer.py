"""Paddle peer (PaddleX's engine)."""

import argparse
import os

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
from turns import take_turns  # noqa: E402

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
take_turns(lambda _: step(), args.batch, paddle.__version__)
