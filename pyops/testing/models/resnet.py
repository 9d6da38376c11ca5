"""ResNet-18 and ResNet-50 (v1.5) in plain torch, with random weights that behave like trained ones.

He et al., "Deep residual learning", arXiv:1512.03385; v1.5 strides in the 3x3 convolution of a
bottleneck. Modules have torchvision's names, so its checkpoints load. No package brings trained
weights: these are drawn as He et al. draw them before training, and BatchNorm's statistics are
those of what flows through, so that values keep the range that they have in a trained net.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from . import images

CLASSES = 1000
STAGES = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}
# What the statistics are taken from: enough positions for a mean in the smallest map (8 x 4 x 4).
SETTLING_BATCH, SETTLING_SIZE = 8, 128


def _conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x if self.downsample is None else self.downsample(x)
        activated: Tensor = self.relu(out)
        return activated


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut; the output is four times as wide."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = _conv(inputs, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _conv(width, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += x if self.downsample is None else self.downsample(x)
        activated: Tensor = self.relu(out)
        return activated


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    """Return the projection of a block that changes its shape; others have none."""
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


class ResNet(nn.Module):
    """Classifies images ``[N, 3, H, W]``."""

    def __init__(self, depth: int, classes: int = CLASSES) -> None:
        """Make the layers; ``depth`` is 18 or 50.

        Raises:
            ValueError: another depth.
        """
        super().__init__()
        if depth not in STAGES:
            raise ValueError(f"ResNet: depth is {depth}, expected one of {sorted(STAGES)}")
        self._block = BasicBlock if depth == 18 else Bottleneck
        self._channels = 64
        self.conv1 = _conv(3, 64, 7, 2)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        first, *others = STAGES[depth]
        self.layer1 = self._stage(64, first, 1)
        self.layer2, self.layer3, self.layer4 = (
            self._stage(64 << index, blocks, 2) for index, blocks in enumerate(others, 1)
        )
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(self._channels, classes)

    def _stage(self, width: int, blocks: int, stride: int) -> nn.Sequential:
        layers = []
        for index in range(blocks):
            layers.append(self._block(self._channels, width, 1 if index else stride))
            self._channels = width * self._block.expansion
        return nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return logits


@torch.no_grad()
def random_model(depth: int, seed: int = 0) -> ResNet:
    """Return the net in fp32, eval mode and channels_last, the same for the same ``seed``.

    The last BatchNorm of a block has small weights, as training leaves it: so the shortcut carries
    most of the sum. Other weights of BatchNorm are spread around one, biases around zero.
    """
    with torch.device("meta"):
        model = ResNet(depth)
    model = images.for_images(model.to_empty(device="cpu"))
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1]
            module.weight.normal_(0, (2 / fan_out) ** 0.5, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.uniform_(0.5, 1.5, generator=generator)
            module.bias.normal_(0, 0.2, generator=generator)
        elif isinstance(module, nn.Linear):
            module.weight.normal_(0, module.in_features**-0.5, generator=generator)
            module.bias.zero_()
    for module in model.modules():
        if isinstance(module, BasicBlock):
            module.bn2.weight.mul_(0.5)
        elif isinstance(module, Bottleneck):
            module.bn3.weight.mul_(0.5)
    return settle(model, images.synthetic(SETTLING_BATCH, SETTLING_SIZE, seed))


@torch.no_grad()
def settle(model: ResNet, batch: Tensor) -> ResNet:
    """Set the running statistics of every BatchNorm to those of ``batch``; return ``model``."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = 1.0
    model.train()
    model(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model.eval()
