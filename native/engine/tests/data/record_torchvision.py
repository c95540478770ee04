"""Records what torchvision's networks compute, for tests/executor.rs.

Needs torch 2.11.0 and torchvision 0.26.0:  python record_torchvision.py > torchvision.jsonl
Weights and images come from a hash of name and index, so that the test makes the same ones.
"""
import json
import math
import numpy as np
import torch
import torchvision

torch.set_num_threads(1)


def unit(name, n):
    """n numbers in [-0.5, 0.5)."""
    i = np.arange(n, dtype=np.uint64)
    s = np.uint64(sum(name.encode()))
    x = (i * np.uint64(2654435761) + s * np.uint64(40503)) & np.uint64(0xFFFFFFFF)
    x ^= x >> np.uint64(16)
    x = (x * np.uint64(0x45D9F3B)) & np.uint64(0xFFFFFFFF)
    x ^= x >> np.uint64(16)
    return x.astype(np.float64) / 2**32 - 0.5


def fill(model):
    for name, t in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        u = unit(name, t.numel())
        if t.dim() > 1:
            fan_in = t.numel() // t.shape[0]
            v = u * math.sqrt(12.0) * math.sqrt(1.0 / fan_in)
        elif name.endswith("running_var") or (name.endswith("weight") and t.dim() == 1):
            v = 1.0 + 0.4 * u
        else:
            v = 0.2 * u
        t.copy_(torch.from_numpy(v.astype(np.float32)).reshape(t.shape))


NAMES = {
    "ResNet18": "resnet18",
    "ResNet50": "resnet50",
    "MobileNetV2": "mobilenet_v2",
    "MobileNetV3_small": "mobilenet_v3_small",
    "DenseNet121": "densenet121",
    "ShuffleNetV2": "shufflenet_v2_x1_0",
}
SIZE, BATCH, CLASSES = 64, 4, 10


def rounded(x):
    if isinstance(x, dict):
        return {k: rounded(v) for k, v in x.items()}
    return [float(f"{v:.7g}") for v in x]


for ours, theirs in NAMES.items():
    model = getattr(torchvision.models, theirs)(num_classes=CLASSES)
    for m in model.modules():
        if isinstance(m, torch.nn.Dropout):
            m.p = 0.0
    with torch.no_grad():
        fill(model)
    # In double precision: ReLUs at the edge make fp32 gradients of the deep networks differ by half a percent.
    model = model.double()
    x = torch.from_numpy((unit("input", BATCH * 3 * SIZE * SIZE) * 4).astype(np.float32)).reshape(BATCH, 3, SIZE, SIZE).double()
    y = torch.arange(BATCH) % CLASSES
    model.eval()
    with torch.no_grad():
        logits = model(x).flatten().tolist()
    model.train()
    opt = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=1.0)
    losses = []
    norms = {}
    for step in range(3):
        opt.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y, label_smoothing=0.1)
        loss.backward()
        opt.step()
        losses.append(loss.item())
        if step == 0:
            norms = {n: p.grad.double().norm().item() for n, p in model.named_parameters()}
    buffers = {n: b.double().norm().item() for n, b in model.named_buffers() if not n.endswith("tracked")}
    record = {"logits": rounded(logits), "losses": rounded(losses)}
    record |= {"grad_norms": rounded({k: [v] for k, v in norms.items()})}
    record |= {"buffer_norms_after": rounded({k: [v] for k, v in buffers.items()})}
    print(json.dumps({"model": ours} | record, separators=(",", ":")))
