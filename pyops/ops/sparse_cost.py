"""About what a product with a sparse weight takes, against the dense one.

Cycles of 64 tokens on AVX-512; levels with narrower vectors take twice as many of either. The
numbers are those with which the estimates cross where ``python bench/run.py sparse_gemm
--breakeven`` does, on a Zen 5 and 2 threads: at 37 to 40 % zeros without a pattern and 10 to 15 %
in blocks of 32 outputs, in float32; at 68 to 76 % and 56 to 65 % in bfloat16, whose dense products
are twice as fast.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .conv_relu import multiplies_pairs

# Of the dense product: 4 fused multiply-adds, two a cycle, at 88 % of that. Winograd's algorithm
# takes 16 products for 36, and its transforms.
DENSE = {"direct": 2.27, "winograd": 1.33}
ENTRY = 3.4  # of one output by itself
SHARED_ENTRY = 10.0  # of four outputs with one pattern
OUTPUTS_SHARING = 4
# Of transposing a value of k, of transposing and finishing an output, and of an output's sums that
# come and go with a block of k.
VALUE, OUTPUT, BLOCK = 7.0, 14.0, 12.0
BLOCK_DEPTH = 192
# Below it a weight counts as one that pays.
LEAST_GAIN = 0.95


def sparse_cycles(weight: Tensor, groups: int = 1) -> float:
    """Of 64 tokens by ``weight [OC, C / groups, KH, KW]``."""
    outputs, k = weight.shape[0], weight[0].numel()
    entries = (weight != 0).reshape(outputs, k)
    fours = outputs // OUTPUTS_SHARING
    split = entries[: fours * OUTPUTS_SHARING].reshape(fours, OUTPUTS_SHARING, k)
    any_of, all_of = split.any(1).sum(1), split.sum((1, 2))
    # As the packing decides (section.cpp), but for a whole row and not for a block of it.
    shared = (3 * all_of >= 10 * any_of) & (all_of > 0)
    alone = int(entries.sum()) - int(all_of[shared].sum())
    blocks = -(-k // BLOCK_DEPTH)
    own = ENTRY * alone + SHARED_ENTRY * int(any_of[shared].sum())
    return own + outputs * (OUTPUT + BLOCK * blocks) + groups * k * VALUE


def share_of_dense(
    weight: Tensor,
    groups: int = 1,
    algorithm: str = "direct",
    dtype: torch.dtype | None = None,
) -> float:
    """The estimated time of the sparse product / that of the dense one by ``algorithm``, with the
    weight in ``dtype``, by default its own.

    Below 1 where sparse weights pay. Depthwise weights never do.
    """
    if weight.shape[1] == 1 and groups > 1:
        return float("inf")
    with torch.no_grad():
        dense = DENSE[algorithm] * weight.numel()
        if multiplies_pairs(dtype or weight.dtype):
            dense /= 2
        return sparse_cycles(weight, groups) / (LEAST_GAIN * dense) if dense else float("inf")
