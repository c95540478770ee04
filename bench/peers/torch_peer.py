"""PyTorch peer."""

import argparse

import torch
import torchvision
from turns import take_turns

parser = argparse.ArgumentParser()
parser.add_argument("--mode", choices=["train", "infer", "gemm"], required=True)
parser.add_argument("--model", default="resnet50")
parser.add_argument("--batch", type=int, default=16)
parser.add_argument("--size", type=int, default=224)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--variant", choices=["default", "tuned"], default="default", help="default: fp32 contiguous; tuned: channels-last, bf16 autocast")
args = parser.parse_args()

torch.set_num_threads(args.threads)
torch.manual_seed(0)
tuned = args.variant == "tuned"


def stepper():
    if args.mode == "gemm":
        n = 4096
        kind = torch.bfloat16 if tuned else torch.float32
        a, b = torch.randn(n, n).to(kind), torch.randn(n, n).to(kind)

        def multiply():
            torch.mm(a, b)

        return multiply, 2 * n**3
    net = getattr(torchvision.models, args.model)(num_classes=1000)
    images = torch.randn(args.batch, 3, args.size, args.size)
    labels = torch.randint(0, 1000, (args.batch,))
    if tuned:
        net, images = net.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
    if args.mode == "infer":
        net.eval()

        def infer():
            with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=tuned):
                net(images)

        return infer, args.batch
    net.train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    criterion = torch.nn.CrossEntropyLoss()

    def train():
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=tuned):
            loss = criterion(net(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return train, args.batch


step, work = stepper()
step()
step()
take_turns(lambda _: step(), work, torch.__version__)
