"""moving_average: the bounds of the batches, averaged with weights that decay."""

from __future__ import annotations

from torch import Tensor

from .base import bounds, observer


@observer("moving_average")
class MovingAverage:
    """``range += 0.1 * (bounds of the batch - range)`` (Jacob et al. 2018, arXiv:1712.05877).

    Outliers of single batches count less than with ``min_max``; 16 bytes.
    """

    momentum = 0.1

    def __init__(self) -> None:
        self._range: tuple[float, float] | None = None

    def update(self, x: Tensor) -> None:
        """See ``Observer``."""
        if x.numel() == 0:
            return
        low, high = bounds(x)
        if self._range is not None:
            low = self._range[0] + self.momentum * (low - self._range[0])
            high = self._range[1] + self.momentum * (high - self._range[1])
        self._range = low, high

    def range(self) -> tuple[float, float]:
        """See ``Observer``."""
        return self._range or (0.0, 0.0)
