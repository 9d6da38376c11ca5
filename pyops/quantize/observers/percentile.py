"""percentile: all but the outermost values of either side."""

from __future__ import annotations

from .base import observer
from .histogram import Histogram


@observer("percentile")
class Percentile(Histogram):
    """From the 0.001th to the 99.999th percentile (McKinstry et al. 2018, arXiv:1809.04191).

    A side that ends at 0, as behind a ReLU, keeps its end. Memory: that of ``Histogram``.
    """

    outside = 1e-5  # share of the values beyond either end

    def range(self) -> tuple[float, float]:
        """See ``Observer``."""
        if not self.seen:
            return 0.0, 0.0
        return self.quantile(self.outside), self.quantile(1 - self.outside)
