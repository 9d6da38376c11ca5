"""torch.compile of the float model; compiling takes long, so only with ``--slow``."""

from __future__ import annotations

from case import Call, Case, as_model
from compiling import compiled

NAME = "torch.compile fp32"
KINDS = ("model", "convnet fp32")
SLOW = True


def make(case: Case) -> Call:
    """Return the compiled model."""
    return compiled(*as_model(case))
