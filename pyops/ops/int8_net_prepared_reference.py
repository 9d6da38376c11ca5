"""Reference and fake of the ops on prepared nets: those of ``int8_net``."""

import itertools
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from .int8_net_reference import int8_net_fake, int8_net_reference

if TYPE_CHECKING:
    from .int8_net_prepared import PreparedNet

# By number. Those of the reference are above all that the kernels give.
prepared: "weakref.WeakValueDictionary[int, PreparedNet]" = weakref.WeakValueDictionary()
_numbers = itertools.count(1 << 40)


def _arguments(
    net: int,
) -> tuple[Sequence[Tensor], Sequence[int], Sequence[float], Sequence[int]]:
    found = prepared.get(net)
    if found is None:
        raise ValueError(
            f"int8_net_run: net is {net}, which int8_net_prepare has not returned, or which is "
            "forgotten"
        )
    return found.arguments


def int8_net_prepare_reference(
    tensors: Sequence[Tensor],
    steps: Sequence[int],
    numbers: Sequence[float],
    outputs: Sequence[int],
) -> int:
    return next(_numbers)


def int8_net_prepare_fake(
    tensors: Sequence[Tensor],
    steps: Sequence[int],
    numbers: Sequence[float],
    outputs: Sequence[int],
) -> int:
    return next(_numbers)


def int8_net_run_reference(inputs: Sequence[Tensor], net: int) -> list[Tensor]:
    return int8_net_reference(inputs, *_arguments(net))


def int8_net_run_fake(inputs: Sequence[Tensor], net: int) -> list[Tensor]:
    return int8_net_fake(inputs, *_arguments(net))
