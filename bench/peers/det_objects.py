"""Objects for timings of detectors: those of `native/engine/src/bench/detectors.rs`."""

OBJECTS = 8
STEPS = 0.7548776662466927, 0.5698402909980532, 0.6180339887498949, 0.8191725133961644


def objects(image, size, classes):
    """Boxes (left, top, right, bottom) and classes of an image."""
    boxes, labels = [], []
    for number in range(image * OBJECTS + 1, (image + 1) * OBJECTS + 1):
        x, y, w, h = (number * step % 1 for step in STEPS)
        w, h = 0.05 + 0.45 * w, 0.05 + 0.45 * h
        x, y = x * (1 - w), y * (1 - h)
        boxes.append([x * size, y * size, (x + w) * size, (y + h) * size])
        labels.append(number * 7 % classes)
    return boxes, labels
