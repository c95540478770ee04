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


def train():
    import torch
    from eager import same_network, training
    from seg_networks import segmenter

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    make = lambda: segmenter(args.model, args.classes)
    same_network(args, make)
    net = make().train()
    labels = torch.randint(0, args.classes, (args.batch, args.size, args.size))
    criterion = torch.nn.CrossEntropyLoss(ignore_index=255)
    return training(args, net, lambda images: criterion(net(images), labels), 0.001)


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
