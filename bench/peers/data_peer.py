"""Data pipeline peer: images per second of one pipeline.

`pillow` is torchvision's transforms on Pillow images; `opencv` is 8-bit OpenCV throughout, written with care: tables
for brightness and contrast, SIMD colour conversion for saturation and hue, no float images. One process and the given
number of OpenCV threads; no worker processes, so no cost of moving batches counts against a peer.
"""

import argparse
import os
import random

import numpy as np
from turns import take_turns

parser = argparse.ArgumentParser()
parser.add_argument("--variant", choices=["pillow", "opencv"], required=True)
parser.add_argument("--task", choices=["classify", "detect", "segment"], required=True)
parser.add_argument("--folder", required=True)
parser.add_argument("--threads", type=int, default=1)
args = parser.parse_args()

files = sorted(f for f in os.listdir(args.folder) if f.endswith(".jpg"))
path = lambda name: os.path.join(args.folder, name)
uniform, chance = random.uniform, lambda p: random.random() < p
batch = np.empty((32, 224, 224, 3), np.uint8)


def pillow():
    import torch
    from PIL import Image
    from torchvision import transforms as T

    torch.set_num_threads(args.threads)
    # Side scale 0.88-1 as ours: the area goes with the square.
    change = T.Compose([
        T.RandomResizedCrop(224, scale=(0.88**2, 1.0), ratio=(0.75, 4 / 3)),
        T.RandomHorizontalFlip(),
        T.ColorJitter(0.4, 0.4, 0.4, 18 / 360),
    ])

    def one(i, name):
        with Image.open(path(name)) as image:
            batch[i % 32] = np.asarray(change(image.convert("RGB")))

    return one


def opencv():
    import cv2

    cv2.setNumThreads(args.threads if args.threads > 1 else 0)
    levels = np.arange(256, dtype=np.float32)

    def table(image, values):
        return cv2.LUT(image, np.clip(values, 0, 255).astype(np.uint8))

    def brightness(image, r):
        return table(image, levels * uniform(1 - r, 1 + r))

    def contrast(image, r):
        mean = cv2.mean(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))[0]
        return table(image, mean + (levels - mean) * uniform(1 - r, 1 + r))

    def saturation(image, r):
        factor = uniform(1 - r, 1 + r)
        grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
        return cv2.addWeighted(image, factor, grey, 1 - factor, 0)

    def hue(image, degrees):
        hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
        turned = (np.arange(256) + round(uniform(-degrees, degrees) / 2)) % 180
        hsv[..., 0] = cv2.LUT(np.ascontiguousarray(hsv[..., 0]), turned.astype(np.uint8))
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)

    def distort(image, r, degrees, prob):
        changes = [(brightness, r), (contrast, r), (saturation, r), (hue, degrees)]
        random.shuffle(changes)
        for change, strength in changes:
            if chance(prob):
                image = change(image, strength)
        return image

    def crop_rect(h, w, scale, aspect):
        s = uniform(*scale)
        ratio = uniform(max(aspect[0], s * s), min(aspect[1], 1 / (s * s))) ** 0.5
        cw, ch = max(int(w * s * ratio), 1), max(int(h * s / ratio), 1)
        return random.randint(0, w - cw), random.randint(0, h - ch), cw, ch

    def classify(i, name):
        image = cv2.imread(path(name))
        x, y, w, h = crop_rect(*image.shape[:2], (0.88, 1.0), (0.75, 4 / 3))
        image = cv2.resize(image[y : y + h, x : x + w], (224, 224), interpolation=cv2.INTER_LINEAR)
        if chance(0.5):
            image = cv2.flip(image, 1)
        cv2.cvtColor(distort(image, 0.4, 18, 1.0), cv2.COLOR_BGR2RGB, dst=batch[i % 32])

    boxes = {}
    if args.task == "detect":
        for line in open(path("boxes.txt")):
            name, *numbers = line.split()
            boxes.setdefault(name, []).append([float(n) for n in numbers])
        boxes = {name: np.array(rows, np.float32) for name, rows in boxes.items()}
    kinds = [cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_AREA, cv2.INTER_LANCZOS4]
    mean_colour = np.array([104, 116, 124], np.uint8)

    def box_crop(image, edges):
        h, w = image.shape[:2]
        area = (edges[:, 2] - edges[:, 0]) * (edges[:, 3] - edges[:, 1])
        cx, cy = (edges[:, 0] + edges[:, 2]) / 2, (edges[:, 1] + edges[:, 3]) / 2
        choices = [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, None]
        random.shuffle(choices)
        for threshold in choices:
            if threshold is None:
                break
            for _ in range(50):
                x, y, cw, ch = crop_rect(h, w, (0.3, 1.0), (0.5, 2.0))
                shared = np.clip(np.minimum(edges[:, 2], x + cw) - np.maximum(edges[:, 0], x), 0, None) * np.clip(
                    np.minimum(edges[:, 3], y + ch) - np.maximum(edges[:, 1], y), 0, None
                )
                if (shared / (area + cw * ch - shared)).max() < threshold:
                    continue
                keep = (cx >= x) & (cx < x + cw) & (cy >= y) & (cy < y + ch)
                if keep.any():
                    edges = np.clip(edges - [x, y, x, y], 0, [cw, ch, cw, ch])
                    return image[y : y + ch, x : x + cw], edges, keep
        return image, edges, np.ones(len(edges), bool)

    def detect(i, name):
        image = distort(cv2.imread(path(name)), 0.5, 18, 0.5)
        rows = boxes[name]
        classes, edges = rows[:, 0], rows[:, 1:]
        h, w = image.shape[:2]
        if chance(0.5):
            ratio = uniform(1, 4)
            ch, cw = int(h * ratio), int(w * ratio)
            y, x = random.randint(0, ch - h), random.randint(0, cw - w)
            canvas = np.empty((ch, cw, 3), np.uint8)
            canvas[:] = mean_colour
            canvas[y : y + h, x : x + w] = image
            image, edges = canvas, edges + [x, y, x, y]
        image, edges, keep = box_crop(image, edges)
        edges, classes = edges[keep], classes[keep]
        h, w = image.shape[:2]
        image = cv2.resize(image, (608, 608), interpolation=random.choice(kinds))
        edges = edges * [608 / w, 608 / h, 608 / w, 608 / h]
        if chance(0.5):
            image = cv2.flip(image, 1)
            edges = np.stack([608 - edges[:, 2], edges[:, 1], 608 - edges[:, 0], edges[:, 3]], 1)
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB), edges, classes

    def segment(i, name):
        image = cv2.imread(path(name))
        mask = cv2.imread(path(f"masks/{name[:-4]}.png"), cv2.IMREAD_UNCHANGED)
        h, w = image.shape[:2]
        for _ in range(10):
            area, ratio = h * w * uniform(0.5, 1), uniform(0.33, 1 / 0.33)
            cw, ch = int((area * ratio) ** 0.5), int((area / ratio) ** 0.5)
            if chance(0.5):
                cw, ch = ch, cw
            if cw < w and ch < h:
                x, y = random.randint(0, w - cw), random.randint(0, h - ch)
                image = cv2.resize(image[y : y + ch, x : x + cw], (w, h), interpolation=cv2.INTER_LINEAR)
                mask = cv2.resize(mask[y : y + ch, x : x + cw], (w, h), interpolation=cv2.INTER_NEAREST)
                break
        down, right = max(512 - h, 0), max(512 - w, 0)
        if down or right:
            image = cv2.copyMakeBorder(image, 0, down, 0, right, cv2.BORDER_CONSTANT, value=(128, 128, 128))
            mask = cv2.copyMakeBorder(mask, 0, down, 0, right, cv2.BORDER_CONSTANT, value=255)
        h, w = image.shape[:2]
        y, x = random.randint(0, h - 512), random.randint(0, w - 512)
        image, mask = image[y : y + 512, x : x + 512], mask[y : y + 512, x : x + 512]
        if chance(0.5):
            image, mask = cv2.flip(image, 1), cv2.flip(mask, 1)
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB), mask

    return {"classify": classify, "detect": detect, "segment": segment}[args.task]


one = pillow() if args.variant == "pillow" else opencv()
one(0, files[0])
take_turns(lambda i: one(i, files[i % len(files)]), 1)
