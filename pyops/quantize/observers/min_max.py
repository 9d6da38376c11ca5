"""min_max: everything that was seen."""

from __future__ import annotations

from torch import Tensor

from .base import bounds, observer


@observer("min_max")
class MinMax:
    """The smallest and the largest value of all batches; 16 bytes."""

    def __init__(self) -> None:
        self._range: tuple[float, float] | None = None

    def update(self, x: Tensor) -> None:
        """See ``Observer``."""
        if x.numel() == 0:
            return
        low, high = bounds(x)
        if self._range is not None:
            low, high = min(low, self._range[0]), max(high, self._range[1])
        self._range = low, high

    def range(self) -> tuple[float, float]:
        """See ``Observer``."""
        return self._range or (0.0, 0.0)
