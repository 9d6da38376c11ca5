"""torch.compile of the float model; compiling takes long, so only with ``--slow``."""

from __future__ import annotations

import torch
from case import Call, Case, as_model

NAME = "torch.compile fp32"
KINDS = ("model",)
SLOW = True


def make(case: Case) -> Call:
    """Return the compiled model."""
    model, inputs = as_model(case)
    compiled = torch.compile(model, dynamic=False)
    return lambda: compiled(*inputs)
