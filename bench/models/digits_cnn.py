"""The digits CNN with its trained weights, on MNIST: the whole net, static int8 and float."""

from __future__ import annotations

from collections.abc import Iterator

from case import Case, UnavailableError
from convnets import BATCHES, Net

from models.mobilenet_v2 import resized
from pyops.testing.models import digits_cnn
from pyops.testing.models.packages import MissingPackageError

SLOW_PEERS = True


def cases(shapes: str, batches: tuple[int, ...] = BATCHES) -> Iterator[Case]:
    """Yield one case per batch and precision.

    Raises:
        UnavailableError: the package with the weights or that with the digits is not installed.
    """
    return net().cases(shapes, batches)


def net() -> Net:
    """The net on every second digit, calibrated with the others.

    Raises:
        UnavailableError: the package with the weights or that with the digits is not installed.
    """
    try:
        model, (digits, _) = digits_cnn.load_model(), digits_cnn.load_digits()
    except MissingPackageError as error:
        raise UnavailableError(str(error)) from error
    return Net(
        "digits_cnn",
        model,
        images=lambda count, size: resized(digits[::2], count, size),
        calibration=lambda count, size: resized(digits[1::2], count, size),
        size=digits_cnn.SIZE,
        tiny_size=digits_cnn.SIZE,
    )
