"""ResNet-18 with random weights: the whole net, static int8 and float."""

from __future__ import annotations

from collections.abc import Iterator

from case import Case
from convnets import BATCHES, Net

from pyops.testing.models import images, resnet

SLOW_PEERS = True


def cases(shapes: str, batches: tuple[int, ...] = BATCHES) -> Iterator[Case]:
    """Yield one case per batch and precision."""
    return net().cases(shapes, batches)


def net() -> Net:
    """The net on images with the spectrum of photos; it knows no real ones."""
    return Net(
        "resnet18",
        resnet.random_model(18),
        images=lambda count, size: images.synthetic(count, size, seed=1),
        calibration=lambda count, size: images.synthetic(count, size, seed=2),
    )
