"""``torch._int_mm``: int8 times int8 to int32, without scales."""

from __future__ import annotations

import torch
from case import Call, Case, UnavailableError

NAME = "torch _int_mm"
KINDS = ("int32_gemm",)
SLOW = False


def make(case: Case) -> Call:
    """Return ``a @ b.T``, with b stored as [K, N] as ``_int_mm`` reads it best."""
    if not hasattr(torch, "_int_mm"):
        raise UnavailableError(f"torch {torch.__version__} has no _int_mm")
    a, b = case.tensors["a"], case.tensors["b"].t().contiguous()
    return lambda: torch._int_mm(a, b)
