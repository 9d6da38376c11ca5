"""torch's own ops on its quantized tensors: max pool, global mean, add with ReLU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from case import Call, Case
from torch import Tensor

NAME = "torch quantized"
KINDS = ("codes_max", "codes_mean", "codes_add")
SLOW = False


def make(case: Case) -> Call:
    """Return the call on the case's codes as quint8 tensors."""
    scales = case.static
    assert scales is not None

    def quantized(name: str, scale: float) -> Tensor:
        q = torch._make_per_tensor_quantized_tensor(case.tensors[name], scale, scales.zero_point_x)
        return q.contiguous(memory_format=torch.channels_last)

    x = quantized("x", scales.scale_x)
    if case.kind == "codes_max":
        return lambda: F.max_pool2d(x, 3, 2, 1)
    if case.kind == "codes_mean":
        return lambda: F.adaptive_avg_pool2d(x, 1)
    b, add = quantized("b", float(scales.scale_w)), torch.ops.quantized.add_relu
    return lambda: add(x, b, scales.scale_out, scales.zero_point_out)
