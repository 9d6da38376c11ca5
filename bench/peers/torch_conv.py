"""torch's convolution and ReLU in eager mode, channels_last, in the dtype of the case."""

from __future__ import annotations

import torch.nn.functional as F
from case import Call, Case

NAME = "torch conv"
KINDS = ("conv",)
SLOW = False


def make(case: Case) -> Call:
    """Return ``F.conv2d`` and ``F.relu`` on the case's tensors."""
    x, weight = case.tensors["x"], case.tensors["weight"]
    bias, geometry = case.tensors["bias"].to(x.dtype), case.geometry
    return lambda: F.relu(F.conv2d(x, weight, bias, **geometry), inplace=True)
