"""gradient: how much the loss depends on a weight being there."""

from __future__ import annotations

from torch import Tensor

from .base import Criterion, Work, criterion


@criterion("gradient")
class Gradient(Criterion):
    """``|w * dL/dw|``, L summed over the batches: SNIP (Lee et al. 2019, arXiv:1810.02340)."""

    data = "loss"

    def scores(self, work: Work) -> Tensor:
        """See ``Criterion``. In float64, where products of small float32 values do not vanish."""
        assert work.seen is not None
        return (work.weight.double() * work.seen).abs()
