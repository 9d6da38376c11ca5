"""``pyops.prune(model)``: layers with weights removed; ``pyops.prune.Pruner``: step by step.

The name is both this package and the function, as with ``pyops.quantize``. Type checkers see an
instance of the class below.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

from .channels import (
    apply_channel_plan,
    channel_groups,
    channel_plan,
    masked_channels,
    prune_channels,
)
from .prune import prune
from .pruner import Pruner
from .regularizer import regularizer
from .schedule import CubicSchedule
from .unmask import unmask

__all__ = [
    "CubicSchedule",
    "Pruner",
    "apply_channel_plan",
    "channel_groups",
    "channel_plan",
    "masked_channels",
    "prune",
    "prune_channels",
    "regularizer",
    "unmask",
]

_Pruner, _CubicSchedule = Pruner, CubicSchedule


class CallablePackage(ModuleType):
    """The package, which can be called."""

    __call__ = staticmethod(prune)
    Pruner = _Pruner
    CubicSchedule = _CubicSchedule
    regularizer = staticmethod(regularizer)
    unmask = staticmethod(unmask)
    apply_channel_plan = staticmethod(apply_channel_plan)
    channel_groups = staticmethod(channel_groups)
    channel_plan = staticmethod(channel_plan)
    masked_channels = staticmethod(masked_channels)
    prune_channels = staticmethod(prune_channels)

    def __reduce__(self) -> tuple[Any, ...]:
        return importlib.import_module, (self.__name__,)


sys.modules[__name__].__class__ = CallablePackage
