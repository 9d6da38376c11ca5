"""mse: the range with the least squared error."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import observer
from .histogram import LEVELS, Histogram
from .search import least


@observer("mse")
class MeanSquaredError(Histogram):
    """Least ``sum count * (value - dequantized)^2``, rounding and clipping together.

    (Sung et al. 2015, arXiv:1511.06488.) Memory: that of ``Histogram``.
    """

    def range(self) -> tuple[float, float]:
        """See ``Observer``."""
        return least(self, squared_error) if self.seen else (0.0, 0.0)


def squared_error(histogram: Histogram, lows: Tensor, highs: Tensor) -> Tensor:
    """Of the values in the histogram, for each of several ranges [K]."""
    value, count = histogram.centers, histogram.counts
    step = ((highs - lows) / (LEVELS - 1)).clamp_min(1e-30)[:, None]
    zero = torch.round(-lows[:, None] / step)
    code = (torch.round(value / step) + zero).clamp(0, LEVELS - 1)
    return (count * (value - (code - zero) * step).square()).sum(1)
