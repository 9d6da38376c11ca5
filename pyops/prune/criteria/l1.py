"""l1: the magnitude."""

from __future__ import annotations

from torch import Tensor

from .base import Criterion, Work, criterion


@criterion("l1")
class L1(Criterion):
    """``|w|`` (Han et al. 2015, arXiv:1506.02626)."""

    def scores(self, work: Work) -> Tensor:
        """See ``Criterion``."""
        return work.weight.abs()
