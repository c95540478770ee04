"""Peer of segmentation: training steps in PyTorch eager, or mean IoU with NumPy's bincount.

`--parameters` and `--macs` are those of our network for one image: another network would be no peer.
"""

import argparse
import os

from turns import take_turns

parser = argparse.ArgumentParser()
parser.add_argument("--task", choices=["train", "miou"], required=True)
parser.add_argument("--model", default="UNet")
parser.add_argument("--parameters", type=int)
parser.add_argument("--macs", type=int)
parser.add_argument("--batch", type=int, default=4)
parser.add_argument("--size", type=int, default=512)
parser.add_argument("--classes", type=int, default=19)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--variant", choices=["default", "tuned"], default="default", help="default: fp32 contiguous; tuned: channels-last, bf16 autocast")
parser.add_argument("--folder", help="of miou: described in native/metrics/examples/pixel_rate.rs")
args = parser.parse_args()


def check():
    """Ends the peer if its network is another one."""
    import torch
    from seg_networks import segmenter
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        net = segmenter(args.model, args.classes).eval()
        parameters = sum(p.numel() for p in net.parameters())
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            net(torch.empty(1, 3, args.size, args.size))
    macs = counter.get_total_flops() // 2
    if (parameters, macs) != (args.parameters, args.macs):
        raise SystemExit(f"{args.model}: {parameters} parameters and {macs} multiply-adds, ours {args.parameters} and {args.macs}")


def train():
    import torch
    from seg_networks import segmenter

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    check()
    tuned = args.variant == "tuned"
    net = segmenter(args.model, args.classes).train()
    images = torch.randn(args.batch, 3, args.size, args.size)
    labels = torch.randint(0, args.classes, (args.batch, args.size, args.size))
    if tuned:
        net, images = net.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.001, momentum=0.9, weight_decay=1e-4)
    criterion = torch.nn.CrossEntropyLoss(ignore_index=255)

    def step(_):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=tuned):
            loss = criterion(net(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    step(0)
    return step, args.batch, torch.__version__


def miou():
    import numpy as np

    read = lambda name: np.fromfile(os.path.join(args.folder, name), np.uint8).reshape(-1, args.size, args.size)
    truths, predictions, n = read("truths.u8"), read("predictions.u8"), args.classes

    def evaluate(_):
        counts = np.zeros((n, n), np.int64)
        for truth, predicted in zip(truths, predictions):
            known = truth < n
            counts += np.bincount(n * truth[known].astype(int) + predicted[known], minlength=n * n).reshape(n, n)
        correct = np.diag(counts)
        return float(np.mean(correct / (counts.sum(0) + counts.sum(1) - correct)))

    return evaluate, len(truths), np.__version__


take_turns(*{"train": train, "miou": miou}[args.task]())
