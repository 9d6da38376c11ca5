"""torchao's dynamic int8 under torch.compile, as it is meant to run."""

from __future__ import annotations

import torchao_dynamic
from case import Call, Case
from compiling import compiled

NAME = "torchao compiled"
KINDS = ("model",)
SLOW = True


def make(case: Case) -> Call:
    """Return the converted and compiled model."""
    return compiled(*torchao_dynamic.converted(case))
