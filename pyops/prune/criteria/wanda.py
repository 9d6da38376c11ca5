"""wanda: magnitudes weighed by the inputs."""

from __future__ import annotations

from torch import Tensor

from .base import Criterion, Work, criterion


@criterion("wanda")
class Wanda(Criterion):
    """``|w_ij| * ||x_j||_2`` within each output i (Sun et al. 2023, arXiv:2306.11695).

    ``x_j`` holds the values of input j in all batches. For a convolution j runs over the unfolded
    inputs: a position of the kernel and a channel.
    """

    data = "inputs"
    by_row = True

    def collect(self, columns: Tensor, seen: Tensor | None) -> Tensor:
        """See ``Criterion``: the sum of squares, ``[groups, K]`` in float64."""
        squares = columns.double().square().sum(2)
        return squares if seen is None else seen.add_(squares)

    def scores(self, work: Work) -> Tensor:
        """See ``Criterion``."""
        assert work.seen is not None
        rows = len(work.weight) // work.groups
        return work.weight.abs() * work.seen.sqrt().repeat_interleave(rows, 0)
