"""A training step in PyTorch eager, as it comes or tuned by hand, of a network that has our parameters and multiply-adds."""

import torch
from torch.utils.flop_counter import FlopCounterMode


def same_network(args, make, run=lambda net, images: net(images)):
    """Ends the peer if its network, `make()`, is another one; `run` executes each of its layers once."""
    with torch.device("meta"):
        net = make().eval()
        parameters = sum(p.numel() for p in net.parameters()) - getattr(net, "more_parameters", 0)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            run(net, torch.empty(1, 3, args.size, args.size))
    macs = counter.get_total_flops() // 2 - getattr(net, "more_macs", 0)
    if (parameters, macs) != (args.parameters, args.macs):
        raise SystemExit(f"{args.model}: {parameters} parameters and {macs} multiply-adds, ours {args.parameters} and {args.macs}")


def training(args, net, loss_of, rate):
    """What `take_turns` takes; `loss_of(images)` is the loss of a batch at the learning rate `rate`."""
    tuned = args.variant == "tuned"
    images = torch.randn(args.batch, 3, args.size, args.size)
    if tuned:
        net, images = net.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9, weight_decay=1e-4)

    def step(_):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=tuned):
            loss = loss_of(images)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if not loss.isfinite():
            raise SystemExit(f"the loss is {loss.item()}")

    step(0)
    return step, args.batch, torch.__version__
