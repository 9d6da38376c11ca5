"""A histogram whose range grows with the data, in 16 KiB for each edge."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import bounds

BINS = 2048
LEVELS = 256
_SAMPLE = 1 << 18  # values of one tensor that are counted; its smallest and largest always are


class Histogram:
    """Counts in ``BINS`` equal bins over ``[start, start + width]``, and the exact bounds.

    Memory: 2048 counts of 8 bytes, whatever it sees, and while it updates 12 bytes for each of at
    most 262,144 values (a larger tensor is sampled at a constant, odd stride). A value outside
    doubles the width, away from the side that fits: pairs of bins become one, so no count is ever
    split. The data therefore fill at least a quarter of the bins.
    """

    def __init__(self) -> None:
        self.counts = torch.zeros(BINS, dtype=torch.float64)
        self.start = self.width = 0.0
        self.low = self.high = 0.0
        self.seen = False

    def update(self, x: Tensor) -> None:
        """Counts the values; see ``Observer``."""
        if x.numel() == 0:
            return
        low, high = bounds(x)
        self._cover(low, high)
        self.low = min(low, self.low) if self.seen else low
        self.high = max(high, self.high) if self.seen else high
        self.seen = True
        flat = x.detach().reshape(-1) if x.is_contiguous() else _in_memory_order(x)
        if flat.numel() > _SAMPLE:
            flat = flat[:: (flat.numel() // _SAMPLE) | 1]
        places = (flat.to(torch.float32) - self.start) * (BINS / self.width)
        index = places.to(torch.int64).clamp_(0, BINS - 1).cpu()
        self.counts += torch.bincount(index, minlength=BINS).to(torch.float64)

    def _cover(self, low: float, high: float) -> None:
        if not self.seen:
            self.start = low
            self.width = max(high - low, abs(low) * 1e-6, 1e-30)
            return
        while low < self.start or high > self.start + self.width:
            merged = self.counts.reshape(-1, 2).sum(1)
            empty = torch.zeros_like(merged)
            if low < self.start:
                self.counts = torch.cat([empty, merged])
                self.start -= self.width
            else:
                self.counts = torch.cat([merged, empty])
            self.width *= 2

    @property
    def centers(self) -> Tensor:
        """The middle of each bin, fp64."""
        steps = torch.arange(BINS, dtype=torch.float64) + 0.5
        return self.start + steps * (self.width / BINS)

    def quantile(self, share: float) -> float:
        """The value below which this share of the counts lies, linear inside a bin."""
        total = self.counts.cumsum(0)
        target = share * float(total[-1])
        at = min(int(torch.searchsorted(total, target)), BINS - 1)
        before = float(total[at - 1]) if at else 0.0
        inside = (target - before) / max(float(self.counts[at]), 1e-30)
        value = self.start + (at + min(max(inside, 0.0), 1.0)) * (self.width / BINS)
        return min(max(value, self.low), self.high)


def _in_memory_order(x: Tensor) -> Tensor:
    order = sorted(range(x.dim()), key=lambda d: -x.stride()[d])
    return x.detach().permute(order).reshape(-1)
