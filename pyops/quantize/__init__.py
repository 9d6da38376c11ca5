"""``pyops.quantize(model)``: float layers replaced by int8 or int4 layers.

The name is both this package and the function, so that ``pyops.quantize(model)`` and
``import pyops.quantize.measure as m`` work: the module's class has a ``__call__``. A function bound
over the submodule in ``pyops/__init__.py`` would break the second. Type checkers see the function.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

from .quantize import quantize

__all__ = ["quantize"]


class _CallablePackage(ModuleType):
    __call__ = staticmethod(quantize)

    def __reduce__(self) -> tuple[Any, ...]:
        return importlib.import_module, (self.__name__,)


sys.modules[__name__].__class__ = _CallablePackage
