"""torch's Linear in bf16 on copies of its weight, beside our weight-only products."""

from __future__ import annotations

import torch.nn.functional as F
from case import Call, Case
from rotate import rotate

NAME = "torch bf16, copies"
KINDS = ("int8_weight", "int4_weight")
SLOW = False


def make(case: Case) -> Call:
    """Return ``F.linear``; input, weight and bias are cast before."""
    x, weight, bias = (case.tensors[name].bfloat16() for name in ("x", "weight", "bias"))
    return rotate(weight, lambda copy: F.linear(x, copy, bias))
