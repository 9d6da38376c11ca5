"""Reference and fake of the ops on prepared nets: those of ``run_net``."""

import itertools
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from .net_reference import run_net_fake, run_net_reference

if TYPE_CHECKING:
    from .net_prepared import PreparedNet

# By number. Those of the reference are above all that the kernels give.
prepared: "weakref.WeakValueDictionary[int, PreparedNet]" = weakref.WeakValueDictionary()
_numbers = itertools.count(1 << 40)


def _arguments(
    net: int,
) -> tuple[Sequence[Tensor], Sequence[int], Sequence[float], Sequence[int]]:
    found = prepared.get(net)
    if found is None:
        raise ValueError(
            f"run_prepared_net: net is {net}, which prepare_net has not returned, or which is "
            "forgotten"
        )
    return found.arguments


def prepare_net_reference(
    tensors: Sequence[Tensor],
    steps: Sequence[int],
    numbers: Sequence[float],
    outputs: Sequence[int],
) -> int:
    return next(_numbers)


def prepare_net_fake(
    tensors: Sequence[Tensor],
    steps: Sequence[int],
    numbers: Sequence[float],
    outputs: Sequence[int],
) -> int:
    return next(_numbers)


def run_prepared_net_reference(inputs: Sequence[Tensor], net: int) -> list[Tensor]:
    return run_net_reference(inputs, *_arguments(net))


def run_prepared_net_fake(inputs: Sequence[Tensor], net: int) -> list[Tensor]:
    return run_net_fake(inputs, *_arguments(net))
