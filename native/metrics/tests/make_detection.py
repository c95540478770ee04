"""Writes detection.json: objects and noisy predictions, and what pycocotools and PaddleX's evaluation make of
them; `tests/detection.rs` compares.

    pip install paddlex==2.1.0 "numpy<2" pycocotools pyyaml chardet && python make_detection.py
"""
import contextlib, copy, importlib.metadata, io, json, os, sys, tempfile
import numpy as np
from pycocotools import mask as masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from paddlex_restful.restful.project.evaluate.detection import DetEvaluator, InsSegEvaluator

here = os.path.dirname(os.path.abspath(__file__))


def ellipse(box, width, height):
    """A mask within a box."""
    x, y, w, h = box
    ys, xs = np.mgrid[:height, :width] + 0.5
    inside = ((xs - x - w / 2) / (w / 2 + 1e-6)) ** 2 + ((ys - y - h / 2) / (h / 2 + 1e-6)) ** 2 <= 1
    return masks.encode(np.asfortranarray(inside.astype(np.uint8)))


def tenths(values):
    return [round(float(v), 1) for v in values]


def scene(rng, classes, size, truths, noise, extra, with_masks, crowd=0.0, difficult=0.0, absent=(), unpredicted=()):
    """One image: objects, and predictions that are off by `noise` of the sides, doubled, mistaken or made up."""
    width, height = size
    image = {"size": [width, height], "truths": [], "detections": []}
    for _ in range(truths):
        w, h = np.exp(rng.uniform(np.log(6), np.log([width * 0.8, height * 0.8])))
        box = tenths([rng.uniform(0, width - w), rng.uniform(0, height - h), w, h])
        cls = int(rng.choice([c for c in range(classes) if c not in absent]))
        truth = {"class": cls, "bbox": box, "area": round(box[2] * box[3], 2), "crowd": int(rng.random() < crowd), "difficult": int(rng.random() < difficult)}
        if with_masks:
            rle = ellipse(box, width, height)
            truth["area"] = float(masks.area(rle)); truth["mask"] = rle["counts"].decode()
        image["truths"].append(truth)
        for _ in range(int(rng.choice([0, 1, 1, 1, 2, 3]))):
            shift = rng.normal(0, noise, 4) * [w, h, w, h]
            guess = cls if rng.random() > 0.15 else int(rng.integers(classes))
            image["detections"].append((guess, np.array(box) + shift, rng.beta(4, 2)))
    for _ in range(int(rng.integers(extra + 1))):
        w, h = rng.uniform(4, [width * 0.6, height * 0.6])
        image["detections"].append((int(rng.integers(classes)), [rng.uniform(0, width - w), rng.uniform(0, height - h), w, h], rng.beta(2, 4)))
    found = []
    for cls, box, score in image["detections"]:
        if cls in unpredicted:
            continue
        box = tenths(box); box[2] = max(box[2], 1.0); box[3] = max(box[3], 1.0)
        found.append({"class": cls, "bbox": box, "score": round(float(score), 2)})
        if with_masks:
            found[-1]["mask"] = ellipse(box, width, height)["counts"].decode()
    image["detections"] = sorted(found, key=lambda d: -d["score"])
    return image


def as_coco(images, classes):
    truth = {"images": [], "categories": [{"id": c + 1, "name": f"class {c}"} for c in range(classes)], "annotations": []}
    boxes, segments = [], []
    for i, image in enumerate(images, 1):
        width, height = image["size"]
        rle = lambda text: {"size": [height, width], "counts": text}
        truth["images"].append({"id": i, "file_name": f"{i}.jpg", "width": width, "height": height})
        for t in image["truths"]:
            entry = {"id": len(truth["annotations"]) + 1, "image_id": i, "category_id": t["class"] + 1, "bbox": t["bbox"], "area": t["area"], "iscrowd": t["crowd"], "difficult": t["difficult"]}
            if "mask" in t:
                entry["segmentation"] = rle(t["mask"])
            truth["annotations"].append(entry)
        for d in image["detections"]:
            boxes.append({"image_id": i, "category_id": d["class"] + 1, "bbox": d["bbox"], "score": d["score"]})
            if "mask" in d:
                segments.append({"image_id": i, "category_id": d["class"] + 1, "segmentation": rle(d["mask"]), "score": d["score"]})
    return truth, boxes, segments


def coco_figures(truth, results, kind):
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO(); known.dataset = copy.deepcopy(truth); known.createIndex()
        run = COCOeval(known, known.loadRes(copy.deepcopy(results)), kind)
        run.evaluate(); run.accumulate(); run.summarize()
    precision = run.eval["precision"]  # overlap, recall, class, area, detections
    mean = lambda p: float(np.mean(p)) if (p > -1).all() else None
    classes = range(precision.shape[2])
    return {
        "stats": run.stats.tolist(),
        "class_ap": [mean(precision[:, :, c, 0, 2]) for c in classes],
        "class_ap50": [mean(precision[0, :, c, 0, 2]) for c in classes],
        "precision75": [precision[5, :, c, 0, 2].round(6).tolist() for c in classes],
        "score75": [run.eval["scores"][5, :, c, 0, 2].tolist() for c in classes],
        "by_detections": [[float(np.mean(v[v > -1])) if (v > -1).any() else None for v in [precision[:, :, :, a, m] for a in range(4)]] for m in range(3)],
    }


def area_ap(images, classes, overlap=0.5):
    """Average precision as the area under the curve, straight from its definition (VOC 2010)."""
    result = []
    for cls in range(classes):
        marks, count = [], 0
        for image in images:
            own = [t for t in image["truths"] if t["class"] == cls]
            count += sum(not t["difficult"] for t in own)
            taken = set()
            for d in image["detections"]:
                if d["class"] != cls:
                    continue
                def iou(t):
                    a = [d["bbox"][0], d["bbox"][1], d["bbox"][0] + d["bbox"][2] - 1, d["bbox"][1] + d["bbox"][3] - 1]
                    b = [t["bbox"][0], t["bbox"][1], t["bbox"][0] + t["bbox"][2] - 1, t["bbox"][1] + t["bbox"][3] - 1]
                    w, h = (min(a[i + 2], b[i + 2]) - max(a[i], b[i]) + 1 for i in (0, 1))
                    both = max(w, 0) * max(h, 0)
                    return both / ((a[2] - a[0] + 1) * (a[3] - a[1] + 1) + (b[2] - b[0] + 1) * (b[3] - b[1] + 1) - both)
                overlaps = [iou(t) for t in own]
                best = int(np.argmax(overlaps)) if own else -1
                if own and overlaps[best] > overlap:
                    if own[best]["difficult"]:
                        continue
                    marks.append((d["score"], best not in taken)); taken.add(best)
                else:
                    marks.append((d["score"], False))
        if count == 0:
            result.append(None); continue
        marks.sort(key=lambda m: -m[0])
        correct = np.cumsum([m[1] for m in marks]) if marks else np.zeros(0)
        precision = correct / np.arange(1, len(marks) + 1)
        result.append(float(sum(precision[i:].max() / count for i, m in enumerate(marks) if m[1])))
    return result


def paddlex_report(evaluator, truth, boxes, segments, score, overlap):
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        details = {"gt": truth, "bbox": boxes}
        if evaluator is InsSegEvaluator:
            details["mask"] = segments
        with open(os.path.join(folder, "eval_details.json"), "w") as file:
            json.dump(details, file)
        return evaluator(folder, overlap_thresh=overlap, score_threshold=score).generate_report()


rng = np.random.default_rng(3)
cases = []


def case(name, classes, images, masked, settings):
    truth, boxes, segments = as_coco(images, classes)
    entry = {"name": name, "classes": classes, "images": images, "area_ap": area_ap(images, classes), "reports": []}
    if boxes:
        entry["bbox"] = coco_figures(truth, boxes, "bbox")
        if masked:
            entry["segm"] = coco_figures(truth, segments, "segm")
    for score, overlap in settings:
        kind = InsSegEvaluator if masked else DetEvaluator
        entry["reports"].append({"score": score, "overlap": overlap, "report": paddlex_report(kind, truth, boxes, segments, score, overlap)})
    cases.append(entry)


settings = [(0.5, 0.5), (0.3, 0.3), (0.0, 0.75)]
sizes = lambda: (int(rng.integers(60, 260)), int(rng.integers(60, 220)))
case("photographs with masks, crowds among them", 5,
     [scene(rng, 5, sizes(), int(rng.integers(0, 7)), 0.07, 5, True, crowd=0.08, absent=(3,), unpredicted=(4,)) for _ in range(26)], True, settings)
case("boxes, difficult ones among them", 4,
     [scene(rng, 4, sizes(), int(rng.integers(0, 9)), 0.06, 6, False, difficult=0.2, absent=(2,)) for _ in range(40)], False, settings)
case("a class never predicted", 3,
     [scene(rng, 3, sizes(), int(rng.integers(1, 5)), 0.04, 3, False, unpredicted=(1,)) for _ in range(12)], False, settings[:1])
case("heaps: more detections than are counted", 2,
     [scene(rng, 2, (200, 160), 110, 0.12, 120, False, crowd=0.05) for _ in range(3)], False, settings[:1])
bare = [scene(rng, 2, (80, 80), 2, 0.1, 0, True, unpredicted=(0, 1)) for _ in range(2)]
case("nothing found", 2, bare, True, settings[:1])
case("nothing found, boxes", 2, bare, False, settings[:1])

versions = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in ("pycocotools", "paddlex", "numpy"))
with open(os.path.join(here, "detection.json"), "w") as file:
    json.dump({"made_with": versions, "cases": cases}, file, separators=(",", ":"), default=float)
