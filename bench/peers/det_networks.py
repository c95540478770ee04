"""Training steps of detectors in PyTorch: torchvision's two-stage networks, and YOLOv3 as `native/zoo/src/detect` has it."""

import det_objects
import torch
import torch.nn.functional as F
import torchvision
from torch import nn


def objects(image, size, classes):
    boxes, labels = det_objects.objects(image, size, classes)
    return torch.tensor(boxes), torch.tensor(labels)


class TwoStage(nn.Module):
    """torchvision's network without its transform of images, and with as many proposals as ours."""

    def __init__(self, name, classes):
        super().__init__()
        make = {"FasterRCNN": "fasterrcnn_resnet50_fpn", "MaskRCNN": "maskrcnn_resnet50_fpn"}[name]
        net = getattr(torchvision.models.detection, make)(weights=None, weights_backbone=None, num_classes=classes + 1, rpn_post_nms_top_n_train=1000)
        self.backbone, self.rpn, self.heads = net.backbone, net.rpn, net.roi_heads
        # Its background has boxes and masks of its own, which ours leaves out.
        self.more_parameters = 4 * 1025 + (257 if self.heads.has_mask() else 0)
        self.more_macs = 4 * 1024 + (256 * 28 * 28 if self.heads.has_mask() else 0)

    def once(self, images):
        """All layers once, the second stage on one region: what our count of multiply-adds is of."""
        self.rpn.head(list(self.backbone(images).values()))
        pooled = torch.empty(1, 256, 7, 7, device=images.device)
        self.heads.box_predictor(self.heads.box_head(pooled))
        if self.heads.has_mask():
            self.heads.mask_predictor(self.heads.mask_head(torch.empty(1, 256, 14, 14, device=images.device)))

    def targets(self, batch, size, classes):
        made = []
        for image in range(batch):
            boxes, labels = objects(image, size, classes)
            target = {"boxes": boxes, "labels": labels + 1}
            if self.heads.has_mask():
                target["masks"] = torch.stack([diamond(box, size) for box in boxes])
            made.append(target)
        return made

    def forward(self, images, targets):
        size = images.shape[-2:]
        listed = torchvision.models.detection.image_list.ImageList(images, [tuple(size)] * len(images))
        maps = self.backbone(images)
        proposals, first = self.rpn(listed, maps, targets)
        _, second = self.heads(maps, proposals, listed.image_sizes, targets)
        return sum(first.values()) + sum(second.values())


def diamond(box, size):
    x1, y1, x2, y2 = box.tolist()
    at = torch.arange(size) + 0.5
    x, y = (at - (x1 + x2) / 2).abs() * 2 / (x2 - x1), (at - (y1 + y2) / 2).abs() * 2 / (y2 - y1)
    return (y[:, None] + x[None] <= 1).to(torch.uint8)


def unit(inputs, outputs, kernel=1, stride=1):
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.1, inplace=True))


class Residual(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


class DarkNet53(nn.Module):
    channels = 256, 512, 1024

    def __init__(self):
        super().__init__()
        self.stem = unit(3, 32, 3)
        self.stages = nn.ModuleList()
        for blocks, width in zip([1, 2, 8, 8, 4], [64, 128, 256, 512, 1024]):
            residuals = [Residual(unit(width, width // 2), unit(width // 2, width, 3)) for _ in range(blocks)]
            self.stages.append(nn.Sequential(unit(width // 2, width, 3, 2), *residuals))

    def forward(self, image):
        x, maps = self.stem(image), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps[2:]


ANCHORS = [[(116, 90), (156, 198), (373, 326)], [(30, 61), (62, 45), (59, 119)], [(10, 13), (16, 30), (33, 23)]]


class YOLOv3(nn.Module):
    """Maps from the coarsest on."""

    more_parameters = more_macs = 0

    def __init__(self, _, classes):
        super().__init__()
        self.classes = classes
        self.backbone = DarkNet53()
        self.blocks, self.tips, self.outputs, self.routes = (nn.ModuleList() for _ in range(4))
        for i, inputs in enumerate(reversed(self.backbone.channels)):
            width = 512 >> i
            inputs += width if i else 0
            narrow = lambda inputs: unit(inputs, width)
            wide = lambda: unit(width, 2 * width, 3)
            self.blocks.append(nn.Sequential(narrow(inputs), wide(), narrow(2 * width), wide(), narrow(2 * width)))
            self.tips.append(wide())
            self.outputs.append(nn.Conv2d(2 * width, 3 * (5 + classes), 1))
            if i < 2:
                self.routes.append(unit(width, width // 2))

    def once(self, images):
        outputs, route = [], None
        for i, x in enumerate(reversed(self.backbone(images))):
            x = self.blocks[i](x if route is None else torch.cat([route, x], 1))
            outputs.append(self.outputs[i](self.tips[i](x)))
            if i < 2:
                route = F.interpolate(self.routes[i](x), scale_factor=2, mode="nearest")
        return outputs

    def targets(self, batch, size, classes):
        """Boxes, classes and images of all objects."""
        made = [objects(image, size, classes) for image in range(batch)]
        images = torch.arange(batch).repeat_interleave(det_objects.OBJECTS)
        return torch.cat([m[0] for m in made]), torch.cat([m[1] for m in made]), images

    def forward(self, images, targets):
        outputs = self.once(images)
        with torch.autocast("cpu", enabled=False):
            return sum(self.loss(i, o.float(), images.shape[-1], *targets) for i, o in enumerate(outputs)) / len(images)

    def loss(self, level, output, size, boxes, labels, image):
        batch, _, rows, columns = output.shape
        anchors = torch.tensor(ANCHORS[level], dtype=torch.float32)
        values = output.view(batch, 3, 5 + self.classes, rows, columns).permute(0, 1, 3, 4, 2)
        sides = boxes[:, 2:] - boxes[:, :2]
        middles = (boxes[:, 2:] + boxes[:, :2]) / 2
        # The anchor of an object is that with the most similar shape, over all levels.
        every = torch.tensor([a for level in ANCHORS for a in level], dtype=torch.float32)
        both = torch.minimum(sides[:, None], every).prod(2)
        best = (both / (sides.prod(1)[:, None] + every.prod(1) - both)).argmax(1)
        mine = best // 3 == level
        anchor, image, labels, sides, middles = best[mine] % 3, image[mine], labels[mine], sides[mine], middles[mine]
        place = middles * columns / size
        cell = place.long().clamp(max=columns - 1)
        found = values[image, anchor, cell[:, 1], cell[:, 0]]
        weight = (2 - sides.prod(1) / size**2)[:, None]
        xy = F.binary_cross_entropy_with_logits(found[:, :2], place - cell, weight, reduction="sum")
        wh = (weight * (found[:, 2:4] - (sides / anchors[anchor]).log()).abs()).sum()
        cls = F.binary_cross_entropy_with_logits(found[:, 5:], F.one_hot(labels, self.classes).float(), reduction="sum")
        with torch.no_grad():
            truth = torch.zeros(values.shape[:4])
            counted = (self.overlaps(values, anchors, boxes.view(batch, -1, 4), size) <= 0.7).float()
            for t in truth, counted:
                t[image, anchor, cell[:, 1], cell[:, 0]] = 1
        return xy + wh + cls + F.binary_cross_entropy_with_logits(values[..., 4], truth, counted, reduction="sum")

    def overlaps(self, values, anchors, boxes, size):
        """The greatest with an object, of each prediction."""
        batch, _, rows, columns, _ = values.shape
        grid = torch.stack(torch.meshgrid(torch.arange(columns), torch.arange(rows), indexing="xy"), 2)
        middles = (values[..., :2].sigmoid() + grid) * size / columns
        half = values[..., 2:4].exp() * anchors[:, None, None] / 2
        found = torch.cat([middles - half, middles + half], -1).view(batch, -1, 4)
        return torch.stack([torchvision.ops.box_iou(f, b).amax(1) for f, b in zip(found, boxes)]).view(values.shape[:4])


def detector(name, classes):
    make = {"YOLOv3:DarkNet53": YOLOv3, "FasterRCNN:ResNet50": TwoStage, "MaskRCNN:ResNet50": TwoStage}
    if name not in make:
        raise SystemExit(f"no detector {name}")
    return make[name](name.split(":")[0], classes)
