"""entropy: the range that keeps most of the distribution's information."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import observer
from .histogram import BINS, LEVELS, Histogram
from .search import least


@observer("entropy")
class Entropy(Histogram):
    """Least Kullback-Leibler divergence between the values and their codes (Migacz, GTC 2017).

    P is the histogram clipped to the range: what lies outside counts at its ends. Q spreads the
    counts of the bins that share a code over those of them that are not empty. Memory: that of
    ``Histogram``.
    """

    def range(self) -> tuple[float, float]:
        """See ``Observer``."""
        return least(self, divergence) if self.seen else (0.0, 0.0)


def divergence(histogram: Histogram, lows: Tensor, highs: Tensor) -> Tensor:
    """Of the codes from the values in the histogram, for each of several ranges [K]."""
    value, count = histogram.centers, histogram.counts
    step = ((highs - lows) / (LEVELS - 1)).clamp_min(1e-30)[:, None]
    zero = torch.round(-lows[:, None] / step)
    code = (torch.round(value / step) + zero).clamp(0, LEVELS - 1).to(torch.int64)
    half = histogram.width / BINS / 2
    inside = (value + half >= lows[:, None]) & (value - half <= highs[:, None])
    kept = torch.where(inside, count, 0.0)
    filled = (inside & (count > 0)).to(torch.float64)
    zeros = torch.zeros(len(lows), LEVELS, dtype=torch.float64)
    of_code = zeros.scatter_add(1, code, kept)
    bins = zeros.scatter_add(1, code, filled)
    clipped = _clipped_to_the_ends(histogram, inside, kept)
    mean = torch.gather(of_code / bins.clamp_min(1), 1, code) * filled
    total = float(count.sum())
    p, q = clipped / total, mean / mean.sum(1, keepdim=True).clamp_min(1e-30)
    terms = torch.where(p > 0, p * torch.log(p / q.clamp_min(1e-12)), 0.0)
    return terms.sum(1)


def _clipped_to_the_ends(histogram: Histogram, inside: Tensor, kept: Tensor) -> Tensor:
    """Adds what lies outside to the outermost bins inside."""
    number = torch.arange(inside.shape[1]).expand_as(inside)
    first = torch.where(inside, number, inside.shape[1] - 1).amin(1, keepdim=True)
    last = torch.where(inside, number, 0).amax(1, keepdim=True)
    count = histogram.counts.expand_as(kept)
    below = torch.where(number < first, count, 0.0).sum(1, keepdim=True)
    above = torch.where(number > last, count, 0.0).sum(1, keepdim=True)
    return kept.scatter_add(1, first, below).scatter_add(1, last, above)
