"""torch's float Linear on copies of its weight, beside our weight-only products."""

from __future__ import annotations

import torch.nn.functional as F
from case import Call, Case
from rotate import rotate

NAME = "torch fp32, copies"
KINDS = ("int8_weight", "int4_weight")
SLOW = False


def make(case: Case) -> Call:
    """Return ``F.linear``."""
    x, weight, bias = (case.tensors[name] for name in ("x", "weight", "bias"))
    return rotate(weight, lambda copy: F.linear(x, copy, bias))
