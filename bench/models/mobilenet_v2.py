"""MobileNetV2 with its ImageNet weights: the whole net, static int8 and float."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from case import Case, UnavailableError
from convnets import BATCHES, Net
from torch import Tensor

from pyops.testing.models import images, mobilenet_v2
from pyops.testing.models.packages import MissingPackageError

SLOW_PEERS = True


def cases(shapes: str, batches: tuple[int, ...] = BATCHES) -> Iterator[Case]:
    """Yield one case per batch and precision.

    Raises:
        UnavailableError: the package with the weights or one with photos is not installed.
    """
    return net().cases(shapes, batches)


def net() -> Net:
    """The net on labelled photos, calibrated with others.

    Raises:
        UnavailableError: the package with the weights or one with photos is not installed.
    """
    try:
        model = mobilenet_v2.load_model()
        photos, others = images.labelled(every_crop=False)[0], images.photos()
    except MissingPackageError as error:
        raise UnavailableError(str(error)) from error
    return Net(
        "mobilenet_v2",
        model,
        images=lambda count, size: resized(photos, count, size),
        calibration=lambda count, size: resized(others, count, size),
    )


def resized(batch: Tensor, count: int, size: int) -> Tensor:
    """Return ``count`` images of ``batch``, spread over it, repeated where there are fewer."""
    chosen = batch[[index * len(batch) // count for index in range(count)]]
    if size != chosen.shape[-1]:
        chosen = F.interpolate(chosen, size=(size, size))
    return chosen.contiguous(memory_format=torch.channels_last)
