"""``torch._weight_int8pack_mm``: torch's own weight-only int8 product, in bf16 and without bias."""

from __future__ import annotations

import torch
from case import Call, Case, UnavailableError
from rotate import rotate

from pyops import ops

NAME = "torch int8pack"
KINDS = ("int8_weight", "int4_weight")
SLOW = False


def make(case: Case) -> Call:
    """Return the product and the sum with the bias."""
    if not hasattr(torch, "_weight_int8pack_mm"):
        raise UnavailableError(f"torch {torch.__version__} has no _weight_int8pack_mm")
    if case.tensors["weight"].shape[0] % 16 or case.tensors["weight"].shape[1] % 16:
        raise UnavailableError("it faults at K = 37: only multiples of 16 are tried")
    x, bias = case.tensors["x"].bfloat16(), case.tensors["bias"].bfloat16()
    codes, scale = ops.quantize_weight(case.tensors["weight"])
    scale = scale.bfloat16()
    return rotate(codes, lambda copy: torch._weight_int8pack_mm(x, copy, scale).add_(bias))
