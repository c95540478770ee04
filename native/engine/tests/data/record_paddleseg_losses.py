"""Records losses of PaddleX 2.1.0 with their gradients into paddleseg_losses.json.

Run with paddlepaddle and an unpacked paddlex: python record_paddleseg_losses.py SITE_PACKAGES/paddlex > paddleseg_losses.json
Its files are loaded alone: the whole package wants many others.
"""
import importlib.util
import json
import sys
import types

import numpy as np
import paddle
import paddle.nn.functional as F

registry = types.SimpleNamespace(LOSSES=types.SimpleNamespace(add_component=lambda c: c))
sys.modules["paddlex"] = types.ModuleType("paddlex")
sys.modules["paddlex.paddleseg"] = types.ModuleType("paddlex.paddleseg")
cvlibs = types.ModuleType("paddlex.paddleseg.cvlibs")
cvlibs.manager = registry
sys.modules["paddlex.paddleseg.cvlibs"] = cvlibs


def argsort(x, *_):
    order = paddle.argsort(x, axis=0, descending=True)
    return paddle.gather(x, order), order


# Written for releases that had this operation elsewhere.
paddle.fluid = types.SimpleNamespace(core=types.SimpleNamespace(ops=types.SimpleNamespace(argsort=argsort)))


def load(name):
    path = f"{sys.argv[1]}/paddleseg/models/losses/{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


random = np.random.default_rng(9)
N, C, H, W = 2, 3, 4, 5
logits = (random.standard_normal((N, C, H, W)) * 2).astype("float32")
labels = random.integers(0, C, (N, H, W))
ignoring = np.where(random.random((N, H, W)) < 0.25, 255, labels)
weights = [0.5, 2.0, 1.25]


def bce(x, label):
    valid = (label != 255).astype("float32").unsqueeze(-1)
    truth = F.one_hot(paddle.where(label == 255, paddle.zeros_like(label), label), C)
    each = F.binary_cross_entropy_with_logits(paddle.transpose(x, [0, 2, 3, 1]), truth, reduction="none")
    return (each * valid).sum() / (valid.sum() * C)


def weighted(x, label):
    """Its cross-entropy with class weights, which newer releases of Paddle refuse: their mean over the pixels."""
    each = F.cross_entropy(paddle.transpose(x, [0, 2, 3, 1]), label, reduction="none").squeeze(-1)
    return (each * paddle.to_tensor(weights)[label.flatten()].reshape(label.shape)).mean()


def record(kind, loss, label, **more):
    x = paddle.to_tensor(logits, stop_gradient=False)
    value = loss(x, paddle.to_tensor(label.astype("int64")))
    value.backward()
    return {"kind": kind, "labels": label.ravel().tolist(), "loss": float(value), "gradient": x.grad.numpy().ravel().tolist(), **more}


ce = load("cross_entropy_loss").CrossEntropyLoss
cases = [
    record("cross_entropy", ce(), ignoring),
    record("cross_entropy", weighted, labels, class_weights=weights),
    record("dice", load("dice_loss").DiceLoss(), ignoring),
    record("lovasz", load("lovasz_loss").LovaszSoftmaxLoss(), ignoring),
    record("bce", bce, ignoring),
]
print(json.dumps({
    "made_with": f"paddlex 2.1.0, paddlepaddle {paddle.__version__}",
    "shape": [N, C, H, W],
    "logits": logits.ravel().tolist(),
    "cases": cases,
}))
