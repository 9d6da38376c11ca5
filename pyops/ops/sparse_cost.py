"""About what a product with a sparse weight takes, against the dense one.

Cycles of 64 tokens on AVX-512; levels with narrower vectors take twice as many of either. The
numbers are those with which the estimates cross where sparse products begin to win on a Zen 5
with 2 threads. ``python bench/run.py sparse_gemm --breakeven``: at 37 to 40 % zeros without a
pattern and 10 to 15 % in blocks of 32 outputs, in float32; at 48 to 62 % and 10 to 20 % in
bfloat16, where both multiply pairs; at 68 to 76 % and 56 to 65 % where only the dense one does.
int8: at about 60 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from . import conv_relu_checks
from .pairs import multiplies_pairs
from .sparse_gemm import OP as SPARSE_OP


@dataclass(frozen=True)
class Costs:
    """``dense``: a weight of the dense product, by algorithm. ``entry``: one of an output by
    itself; ``shared``: one k of four outputs with one pattern, which pays from ``least_shared``
    entries for a k on. ``value``: transposing a value of k; ``output``: transposing and finishing
    an output; ``block``: an output's sums that come and go with ``depth`` values of k. ``panels``:
    a k of an output (or a pair of bfloat16 k) in panels of so many outputs, each of which has all k
    that one of them has (``csrc/cpu/sparse_gemm/blocks.h``).
    """

    dense: dict[str, float]
    entry: float
    shared: float
    least_shared: float
    value: float
    output: float
    block: float
    depth: int
    panels: dict[int, float] = field(default_factory=dict)


# 4 fused multiply-adds for a weight, two a cycle, at 88 % of that. Winograd's algorithm takes 16
# products for 36, and its transforms.
PANELS = {32: 2.27, 16: 2.6}
FLOAT = Costs({"direct": 2.27, "winograd": 1.33}, 3.4, 10.0, 10 / 3, 7.0, 14.0, 12.0, 192, PANELS)
# bfloat16 where two entries are multiplied at once.
PAIRS = Costs(FLOAT.dense, 2.2, 4.9, 2.4, 4.0, 14.0, 12.0, 384, PANELS)
# 4 vectors of products for four weights, two a cycle, at 95 % of that.
CODES = Costs({"direct": 0.53}, 1.3, 2.9, 2.2, 8.0, 16.0, 14.0, 512)
OUTPUTS_SHARING = 4
# Panels of int8 (csrc/cpu/int8_sparse_gemm/panels.cpp has the same): a weight that a panel of 32
# outputs holds four k at a time, one of the four that a window of 8 or 16 k has place for, an
# output, and a value of k of an output.
PANEL_OUTPUTS, PANEL_DEPTH, PANEL_ENTRIES = 32, 4, 4
PANEL_WINDOWS = (8, 16)
QUAD, WINDOW, PANEL_OUTPUT, PANEL_VALUE = 0.5, 0.76, 30.0, 0.015
# What is estimated to take less than this share of the dense time is packed sparse: the estimate
# itself holds no margin.
LEAST_GAIN = 0.95
# What has some zeros and is estimated to take less than this share is worth timing: estimates are
# off by less.
LEAST_ZEROS = 0.1
WORTH_TIMING = 1.3
_STEPS = 40  # of bisection


def costs_of(dtype: torch.dtype) -> Costs:
    """Of weights in ``dtype``, by the kernels that are active."""
    if dtype == torch.int8:
        return CODES
    return PAIRS if multiplies_pairs(SPARSE_OP, dtype) else FLOAT


def sparse_cycles(weight: Tensor, groups: int, costs: Costs) -> float:
    """Of 64 tokens by ``weight [OC, C / groups, KH, KW]``."""
    outputs, k = weight.shape[0], weight[0].numel()
    entries = (weight != 0).reshape(outputs, k)
    fours = outputs // OUTPUTS_SHARING
    split = entries[: fours * OUTPUTS_SHARING].reshape(fours, OUTPUTS_SHARING, k)
    any_of, all_of = split.any(1).sum(1), split.sum((1, 2))
    # As the packing decides (section.cpp), but for a whole row and not for a block of it.
    shared = (all_of >= costs.least_shared * any_of) & (all_of > 0)
    alone = int(entries.sum()) - int(all_of[shared].sum())
    blocks = -(-k // costs.depth)
    own = costs.entry * alone + costs.shared * int(any_of[shared].sum())
    return own + outputs * (costs.output + costs.block * blocks) + groups * k * costs.value


def panel_cycles(weight: Tensor, groups: int, pairs: bool, costs: Costs) -> float:
    """Of 64 tokens by ``weight [OC, C / groups, KH, KW]`` in the better of ``costs.panels``."""
    channels, taps = weight.shape[1], weight[0, 0].numel()
    if pairs and channels % 2 and taps > 1:  # a pair of two taps
        return math.inf
    entries = (weight != 0).reshape(groups, weight.shape[0] // groups, channels, taps)
    if pairs:
        whole = F.pad(entries, (0, 0, 0, channels % 2))
        entries = whole[:, :, ::2] | whole[:, :, 1::2]
    best = math.inf
    for outputs, cost in costs.panels.items():
        spare = -entries.shape[1] % outputs
        padded = F.pad(entries, (0, 0, 0, 0, 0, spare))
        split = padded.reshape(groups, -1, outputs, *padded.shape[2:])
        kept = int(split.any(2).sum())
        best = min(best, outputs * (cost * kept + costs.output * groups * split.shape[1]))
    return best


def code_panel_cycles(weight: Tensor) -> float:
    """Of 64 tokens by an int8 ``weight [OC, C / groups, KH, KW]`` in panels of the better form."""
    outputs, k = weight.shape[0], weight[0].numel()
    entries = (weight != 0).permute(0, 2, 3, 1).reshape(outputs, k)
    fixed = outputs * (PANEL_OUTPUT + PANEL_VALUE * k)
    rows, depth = -outputs % PANEL_OUTPUTS, -k % PANEL_DEPTH
    whole = F.pad(entries, (0, depth, 0, rows))
    steps = (k + depth) // PANEL_DEPTH
    quads = whole.reshape(-1, PANEL_OUTPUTS, steps, PANEL_DEPTH).any(3).any(1)
    held = QUAD * PANEL_OUTPUTS * PANEL_DEPTH * int(quads.sum())
    for window in PANEL_WINDOWS:
        padded = F.pad(entries, (0, -k % window)).reshape(outputs, -1, window)
        if int(padded.sum(2).max()) <= PANEL_ENTRIES:
            held = min(held, WINDOW * PANEL_ENTRIES * outputs * padded.shape[1])
    return held + fixed


def share_of_dense(
    weight: Tensor,
    groups: int = 1,
    algorithm: str = "direct",
    dtype: torch.dtype | None = None,
) -> float:
    """The estimated time of the sparse product / that of the dense one by ``algorithm``, with the
    weight in ``dtype``, by default its own.

    Infinite for depthwise weights, which have no sparse kernels.
    """
    if weight.shape[1] == 1 and groups > 1:
        return float("inf")
    dtype = dtype or weight.dtype
    costs = costs_of(dtype)
    with torch.no_grad():
        dense = costs.dense[algorithm] * weight.numel()
        pairs = costs is not CODES and multiplies_pairs(conv_relu_checks.OP, dtype)
        if pairs:
            dense /= 2
        if not dense:
            return float("inf")
        if costs is CODES:
            panels = code_panel_cycles(weight)
        else:
            panels = panel_cycles(weight, groups, pairs, costs)
        return min(sparse_cycles(weight, groups, costs), panels) / dense


def break_even(
    shape: Sequence[int],
    groups: int = 1,
    algorithm: str = "direct",
    dtype: torch.dtype = torch.float32,
) -> float | None:
    """The share of zeros, spread without a pattern, above which the sparse product with a weight
    ``[OC, C / groups, KH, KW]`` of ``dtype`` is estimated to be faster than the dense one.

    None where no zeros make it so. Expected values of what ``share_of_dense`` counts.
    """
    outputs, k = shape[0], math.prod(shape[1:])
    if (shape[1] == 1 and groups > 1) or not outputs * k:
        return None
    costs = costs_of(dtype)
    pairs = costs is not CODES and multiplies_pairs(conv_relu_checks.OP, dtype)
    dense = costs.dense[algorithm] / (1 + pairs)
    fixed = (costs.output + costs.block * -(-k // costs.depth)) / k + groups * costs.value / outputs

    def gains(left: float) -> bool:
        any_of = 1 - (1 - left) ** OUTPUTS_SHARING
        shares = OUTPUTS_SHARING * left >= costs.least_shared * any_of
        each = costs.shared * any_of / OUTPUTS_SHARING if shares else costs.entry * left
        return each + fixed < dense

    low, high = 0.0, 1.0  # of what is left
    if not gains(low):
        return None
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if gains(middle) else (low, middle)
    return 1 - low


def worth_timing(zeros: float, share: float) -> bool:
    """Whether a weight with these zeros and ``share_of_dense`` might be the faster one sparse."""
    return zeros >= LEAST_ZEROS and share < WORTH_TIMING


def pays(share: float) -> bool:
    """Whether a weight of that ``share_of_dense`` is packed sparse where nothing is timed."""
    return share < LEAST_GAIN


def zeros_of(weight: Tensor) -> float:
    """The share of ``weight`` that is 0; of a weight without entries 0."""
    return float((weight == 0).double().mean()) if weight.numel() else 0.0


def why_dense(zeros: float, share: float, even: float | None) -> str:
    """What ``explain`` says of a weight that stays dense, by its zeros, its ``share_of_dense`` and
    its ``break_even``.
    """
    told = "sparse kernels never pay"
    if even is not None:
        told = f"sparse: {share:.2f} of its time by the estimate, break-even at {even:.0%} zeros"
        if share < 1 and not pays(share):
            told += f", taken below {LEAST_GAIN}"
    return f"dense: {zeros:.0%} of the weight are 0 ({told})"


def why_sparse(share: float) -> str:
    """What it says of one that is packed sparse and was not timed."""
    return f"sparse: {share:.2f} of the dense time by the estimate"


def packed_sparse(zeros: float) -> str:
    """What it says of one that is packed sparse."""
    return f"packed sparse: {zeros:.1%} of the weight are 0"
