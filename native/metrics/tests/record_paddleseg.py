"""Records the segmentation measures of PaddleX 2.1.0 for random label maps into paddleseg.json.

Run with paddlepaddle and an unpacked paddlex: python record_paddleseg.py SITE_PACKAGES/paddlex > paddleseg.json
Two of its files are loaded alone: the whole package wants many others.
"""
import importlib.util
import json
import sys

import numpy as np
import paddle


def load(path):
    spec = importlib.util.spec_from_file_location(path.rsplit("/", 1)[-1], f"{sys.argv[1]}/{path}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


seg_metrics = load("cv/models/utils/seg_metrics")
metrics = load("paddleseg/utils/metrics")
# Written for releases in which a sum has one dimension.
concat = paddle.concat
paddle.concat = lambda x, *args, **kwargs: paddle.stack(x) if x[0].ndim == 0 else concat(x, *args, **kwargs)

random = np.random.default_rng(5)
cases = []
for classes, height, width, ignored, unused in [(2, 9, 13, 0.2, None), (5, 16, 11, 0.1, None), (4, 7, 8, 0.0, 2), (3, 6, 6, 0.5, 0)]:
    truth = random.integers(0, classes, (height, width))
    wrong = random.random((height, width)) < 0.3
    predicted = np.where(wrong, random.integers(0, classes, (height, width)), truth)
    if unused is not None:
        truth[truth == unused] = (unused + 1) % classes
        predicted[predicted == unused] = (unused + 1) % classes
    truth[random.random((height, width)) < ignored] = 255
    label = paddle.to_tensor(truth[None, None].astype("int64"))
    pred = paddle.to_tensor(predicted[None, None].astype("int64"))
    areas = metrics.calculate_area(pred.astype("int32"), label.astype("int32"), classes)
    intersect, predictions, labels = areas
    class_iou, miou = metrics.mean_iou(*areas)
    class_acc, oacc = metrics.accuracy(intersect, predictions)
    cases.append({
        "classes": classes,
        "truth": truth.ravel().tolist(),
        "predicted": predicted.ravel().tolist(),
        "confusion": seg_metrics.confusion_matrix(pred, label, classes).numpy().astype(int).tolist(),
        "category_iou": class_iou.tolist(),
        "category_acc": class_acc.tolist(),
        "category_f1": seg_metrics.f1_score(*areas).tolist(),
        "miou": float(miou),
        "oacc": float(oacc),
        "kappa": float(metrics.kappa(*areas)),
    })
print(json.dumps({"made_with": f"paddlex 2.1.0, paddlepaddle {paddle.__version__}", "cases": cases}))
