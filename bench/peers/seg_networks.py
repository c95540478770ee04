"""The segmenters of `native/zoo/src/segment` in PyTorch, from torchvision's parts where it has them."""

import torch
import torch.nn.functional as F
import torchvision
from torch import nn


def unit(inputs, outputs, kernel=1, act=True, **options):
    padding = options.get("dilation", 1) * (kernel // 2)
    layers = [nn.Conv2d(inputs, outputs, kernel, padding=padding, bias=False, **options), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if act else []))


def separable(inputs, outputs, dilation=1):
    return nn.Sequential(unit(inputs, inputs, 3, act=False, groups=inputs, dilation=dilation), unit(inputs, outputs))


def resize(x, like):
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)


class UNet(nn.Module):
    def __init__(self, classes):
        super().__init__()
        double = lambda inputs, outputs: nn.Sequential(unit(inputs, outputs, 3), unit(outputs, outputs, 3))
        widths = [64, 128, 256, 512, 512]
        self.down = nn.ModuleList(double(i, o) for i, o in zip([3, *widths], widths))
        self.up = nn.ModuleList(double(i, o) for i, o in [(1024, 256), (512, 128), (256, 64), (128, 64)])
        self.classifier = nn.Conv2d(64, classes, 3, padding=1)

    def forward(self, image):
        x = self.down[0](image)
        shortcuts = []
        for block in self.down[1:]:
            shortcuts.append(x)
            x = block(F.max_pool2d(x, 2))
        for block in self.up:
            shortcut = shortcuts.pop()
            x = block(torch.cat([resize(x, shortcut), shortcut], 1))
        return self.classifier(x)


class ResNet50vd(nn.Module):
    """torchvision's dilated ResNet-50 with the stem and the shortcuts of the variant D."""

    channels = 256, 2048

    def __init__(self):
        super().__init__()
        net = torchvision.models.resnet50(replace_stride_with_dilation=[False, True, True])
        self.stem = nn.Sequential(unit(3, 32, 3, stride=2), unit(32, 32, 3), unit(32, 64, 3), net.maxpool)
        self.stages = nn.ModuleList([net.layer1, net.layer2, net.layer3, net.layer4])
        for stage, dilation in zip(self.stages, [1, 1, 2, 4]):
            first = stage[0]
            conv, norm = first.downsample
            shortcut = [nn.Conv2d(conv.in_channels, conv.out_channels, 1, bias=False), norm]
            if conv.stride != (1, 1):
                shortcut.insert(0, nn.AvgPool2d(2, 2, ceil_mode=True))
            first.downsample = nn.Sequential(*shortcut)
            # torchvision dilates the first block of a stage as the stage before.
            first.conv2.dilation = first.conv2.padding = (dilation, dilation)

    def forward(self, image):
        low = self.stages[0](self.stem(image))
        return low, self.stages[3](self.stages[2](self.stages[1](low)))


class MobileNetV2(nn.Module):
    """torchvision's without its last convolution, dilated from a sixteenth of the size on."""

    channels = 24, 320

    def __init__(self):
        super().__init__()
        features = torchvision.models.mobilenet_v2().features
        self.low, self.high = features[:4], features[4:-1]
        for block in features[14:-1]:
            for conv in block.modules():
                if isinstance(conv, nn.Conv2d) and conv.groups > 1:
                    conv.stride, conv.dilation, conv.padding = (1, 1), (2, 2), (2, 2)

    def forward(self, image):
        low = self.low(image)
        return low, self.high(low)


class DeepLabV3P(nn.Module):
    def __init__(self, backbone, dilations, classes):
        super().__init__()
        self.backbone = backbone
        low, high = backbone.channels
        self.pyramid = nn.ModuleList([unit(high, 256), *(separable(high, 256, d) for d in dilations)])
        self.pool = unit(high, 256)
        self.project = nn.Sequential(unit(5 * 256, 256), nn.Dropout(0.1))
        self.shortcut = unit(low, 48)
        self.decoder = nn.Sequential(separable(304, 256), separable(256, 256), nn.Conv2d(256, classes, 1))

    def forward(self, image):
        low, high = self.backbone(image)
        parts = [branch(high) for branch in self.pyramid]
        parts.append(resize(self.pool(F.adaptive_avg_pool2d(high, 1)), high))
        x = self.project(torch.cat(parts, 1))
        x = self.decoder(torch.cat([resize(x, low), self.shortcut(low)], 1))
        return resize(x, image)


def segmenter(name, classes):
    if name == "UNet":
        return UNet(classes)
    if name == "DeepLabV3P:ResNet50_vd":
        return DeepLabV3P(ResNet50vd(), [12, 24, 36], classes)
    if name == "DeepLabV3P:MobileNetV2":
        return DeepLabV3P(MobileNetV2(), [6, 12, 18], classes)
    raise SystemExit(f"no segmenter {name}")
