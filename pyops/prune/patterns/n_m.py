"""N:M and N:MxT: N of M consecutive inputs."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..matrix import drop_lowest, spread
from .base import Pattern, Scored, pattern


@pattern("N:M", r"(\d+):(\d+)")
@pattern("N:MxT", r"(\d+):(\d+)x(\d+)")
class NOfM(Pattern):
    """Every M consecutive inputs keep N (Mishra et al. 2021, arXiv:2104.08378).

    Where M does not divide K, the last m < M inputs keep ``min(N, m)``. With T, each T consecutive
    outputs (the last may be fewer) keep the same inputs, those of the best mean score. At a
    sparsity below that of the pattern, as on the way there, M inputs keep
    ``ceil((1 - sparsity) * M)``.
    """

    def __init__(self, name: str, n: int, m: int, t: int = 1) -> None:
        super().__init__(name)
        self.n, self.m, self.rows = n, m, t
        self.sparsity = 1 - n / m

    @property
    def span(self) -> int:
        return self.m

    @classmethod
    def parse(cls, name: str, found: re.Match[str]) -> NOfM:
        """See ``Pattern``."""
        n, m, *t = (int(number) for number in found.groups())
        if not 1 <= n < m or t == [0]:
            raise ValueError("expected 1 <= N < M and T of at least 1 in 'N:MxT'")
        return cls(name, n, m, *t)

    def masks(self, weights: Sequence[Scored], sparsity: float) -> list[Tensor]:
        """See ``Pattern``. Every group is chosen by itself."""
        return [self.masks_by_row(one, sparsity) for one in weights]

    def removes(self, shapes: Sequence[torch.Size], sparsity: float, by_row: bool) -> int:
        """See ``Pattern``."""
        kept, total = self._kept(sparsity), 0
        for rows, k in shapes:
            columns = k // self.m * (self.m - kept) + max(0, k % self.m - kept)
            total += -(-rows // self.rows) * columns
        return total

    def conflict(self, left: Tensor) -> str | None:
        """See ``Pattern``."""
        cut = super().conflict(left)
        if cut is not None:
            return cut
        units = self._left_in_units(left) > 0
        rest = -units.shape[1] % self.m
        groups = F.pad(units, (0, rest)).view(len(units), -1, self.m).sum(2)
        wanted = torch.full_like(groups, self.n)
        if rest:
            wanted[:, -1] = min(self.n, self.m - rest)
        short = int((groups < wanted).sum())
        if not short:
            return None
        least = int(groups.min())
        return (
            f"has less than {self.n} of {self.m} inputs left in {short} of its {groups.numel()} "
            f"groups already (in one {least}), and pattern {self.name!r} keeps {self.n}"
        )

    def _kept(self, sparsity: float) -> int:
        return max(self.n, math.ceil((1 - sparsity) * self.m - 1e-9))

    def masks_by_row(self, weight: Scored, sparsity: float) -> Tensor:
        """See ``Pattern``."""
        kept = self._kept(sparsity)
        units = weight.units(self.rows, 1)
        whole = units.shape[1] // self.m * self.m
        groups = units[:, :whole].reshape(len(units), -1, self.m)
        tail = units[:, whole:]
        keep = drop_lowest(groups, self.m - kept).flatten(1)
        keep_tail = drop_lowest(tail, max(0, tail.shape[1] - kept))
        mask = spread(torch.cat([keep, keep_tail], 1), self.rows, 1, weight.scores.shape)
        return mask if weight.left is None else mask & weight.left
