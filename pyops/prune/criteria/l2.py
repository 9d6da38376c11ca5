"""l2: the square."""

from __future__ import annotations

from torch import Tensor

from .base import Criterion, Work, criterion


@criterion("l2")
class L2(Criterion):
    """``w^2``, so units of equal size go by their L2 norm."""

    def scores(self, work: Work) -> Tensor:
        """See ``Criterion``. In float64, where squares of small float32 values do not vanish."""
        return work.weight.double().square()
