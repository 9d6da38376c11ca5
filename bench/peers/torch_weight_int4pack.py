"""``torch._weight_int4pack_mm_for_cpu``: torch's own int4 product, which torchao calls; in bf16."""

from __future__ import annotations

import torch
from case import Call, Case, UnavailableError
from rotate import rotate

from pyops import ops

NAME = "torch int4pack"
KINDS = ("int4_weight",)
SLOW = False
GROUP_SIZE = 128


def make(case: Case) -> Call:
    """Return the product and the sum with the bias; its weight is (code - 8) * scale + zero."""
    if not hasattr(torch, "_weight_int4pack_mm_for_cpu"):
        raise UnavailableError(f"torch {torch.__version__} has no _weight_int4pack_mm_for_cpu")
    x, bias = case.tensors["x"].bfloat16(), case.tensors["bias"].bfloat16()
    if x.shape[1] % GROUP_SIZE or bias.shape[0] % 16:
        raise UnavailableError("takes K in multiples of 128 and N in multiples of 16")
    codes, scale, _ = ops.quantize_weight_int4(case.tensors["weight"], GROUP_SIZE)
    packed = torch._convert_weight_to_int4pack_for_cpu((codes + 8).int(), 1)
    scale_and_zero = torch.stack((scale, torch.zeros_like(scale)), -1)
    scale_and_zero = scale_and_zero.transpose(0, 1).contiguous().bfloat16()

    def call(copy: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor = torch._weight_int4pack_mm_for_cpu(
            x, copy, GROUP_SIZE, scale_and_zero
        )
        return product.add_(bias)

    return rotate(packed, call)
