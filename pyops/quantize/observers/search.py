"""Looking for the range with the least loss, on a histogram."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .histogram import Histogram

_STEPS = 96  # shares of each side that are tried: 1/96 to all of it
_ROUNDS = 2

# (histogram, lows [K], highs [K]) -> loss [K]
Loss = Callable[[Histogram, Tensor, Tensor], Tensor]


def least(histogram: Histogram, loss: Loss) -> tuple[float, float]:
    """(low, high), each between 0 and its bound, where the loss is least.

    One side at a time, the other one kept, twice. The range includes 0, which needs a code.
    """
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    shares = torch.arange(1, _STEPS + 1, dtype=torch.float64) / _STEPS
    best_low, best_high = low, high
    for _ in range(_ROUNDS):
        if high > 0:
            highs = high * shares
            best_high = float(
                highs[loss(histogram, torch.full_like(highs, best_low), highs).argmin()]
            )
        if low < 0:
            lows = low * shares
            best_low = float(lows[loss(histogram, lows, torch.full_like(lows, best_high)).argmin()])
        if low == 0 or high == 0:
            break
    return best_low, best_high
