"""torch.ao's static int8 of the whole net, by FX graph mode with the x86 engine."""

from __future__ import annotations

import torch_fx
from case import Call, Case

NAME = "torch FX int8"
KINDS = ("convnet int8",)
SLOW = True


def make(case: Case) -> Call:
    """Return the calibrated and converted model."""
    return torch_fx.make(case, "x86")
