"""Our own weight-only int8 product, beside int4: what the smaller weight is worth."""

from __future__ import annotations

from case import Call, Case
from rotate import rotate

from pyops import ops

NAME = "pyops int8 weight-only"
KINDS = ("int4_weight",)
SLOW = False


def make(case: Case) -> Call:
    """Return ``int8_weight_linear``."""
    x, bias = case.tensors["x"], case.tensors["bias"]
    codes, scale = ops.quantize_weight(case.tensors["weight"])
    packed = ops.int8_weight_pack(codes)
    return rotate(packed, lambda copy: ops.int8_weight_linear(x, copy, scale, bias))
