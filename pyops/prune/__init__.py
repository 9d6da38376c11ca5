"""``pyops.prune(model)``: layers with weights removed; ``pyops.prune.Pruner``: step by step.

The name is both this package and the function, as with ``pyops.quantize``.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

from .prune import prune
from .pruner import Pruner
from .regularizer import regularizer
from .schedule import CubicSchedule
from .unmask import unmask

__all__ = ["CubicSchedule", "Pruner", "prune", "regularizer", "unmask"]


class _CallablePackage(ModuleType):
    __call__ = staticmethod(prune)

    def __reduce__(self) -> tuple[Any, ...]:
        return importlib.import_module, (self.__name__,)


sys.modules[__name__].__class__ = _CallablePackage
