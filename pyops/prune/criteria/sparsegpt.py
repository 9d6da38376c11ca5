"""sparsegpt: layers reconstructed on their inputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..patterns.base import Pattern, Scored
from ..patterns.share_out import share_out
from ..patterns.units import Units
from .base import Criterion, Work, criterion

DAMPING = 0.01  # of the mean diagonal element, added to the diagonal
COLUMNS = 128  # whose updates reach the columns behind them together


@criterion("sparsegpt")
class SparseGPT(Criterion):
    """Optimal brain surgery in the order of columns (Frantar and Alistarh 2023, arXiv:2301.00774).

    ``H = X^T X`` over the inputs of all batches, and U the upper Cholesky factor of its inverse.
    Column by column, weights with the least ``w^2 / U_jj^2`` go (chosen among 128 columns, for N:M
    among M), and the columns behind make up for the error: ``W -= ((w - kept) / U_jj) U_j``. Inputs
    are those of the model before pruning. Memory: ``K^2`` float32 for each layer and group.
    """

    data = "inputs"
    local = True

    def collect(self, columns: Tensor, seen: Tensor | None) -> Tensor:
        """See ``Criterion``: ``[groups, K, K]``."""
        if seen is None:
            return columns @ columns.transpose(1, 2)
        return seen.baddbmm_(columns, columns.transpose(1, 2))

    def scores(self, work: Work) -> Tensor:
        """Not used: scores change as columns are done."""
        raise NotImplementedError

    def choose(
        self, works: Sequence[Work], pattern: Pattern, sparsity: float
    ) -> list[tuple[Tensor, Tensor | None]]:
        """See ``Criterion``."""
        return [self._solve(work, pattern, sparsity) for work in works]

    def _solve(self, work: Work, pattern: Pattern, sparsity: float) -> tuple[Tensor, Tensor]:
        assert work.seen is not None
        rows = len(work.weight) // work.groups
        if work.groups > 1 and rows % pattern.rows:
            raise ValueError(
                f"prune: sparsegpt solves the {work.groups} groups of {work.name!r} by themselves, "
                f"and units of pattern {pattern.name!r} do not fit in their {rows} outputs"
            )
        goal = pattern.removes([work.weight.shape], sparsity, by_row=False)
        every = torch.ones_like(work.weight, dtype=torch.bool)
        lefts = torch.split(every if work.left is None else work.left, rows)
        goals = share_out(
            goal, [pattern.count(left.shape) for left in lefts], [pattern.gone(x) for x in lefts]
        )
        parts = [
            _Columns(work.name, weight, gram, left).solve(pattern, sparsity, own)
            for weight, gram, left, own in zip(
                torch.split(work.weight, rows), work.seen, lefts, goals, strict=True
            )
        ]
        masks, weights = zip(*parts, strict=True)
        return torch.cat(masks), torch.cat(weights)


class _Columns:
    """The columns of one weight ``[rows, K]``, from the left."""

    def __init__(self, name: str, weight: Tensor, gram: Tensor, left: Tensor) -> None:
        self.left = left
        self.weight = weight.clone()
        gram = gram.to(weight.dtype)
        diagonal = gram.diagonal()
        dead = diagonal == 0  # inputs that are always 0: their weights change nothing
        damped = gram + torch.diag(DAMPING * diagonal.mean() + dead.to(gram.dtype))
        lower, failed = torch.linalg.cholesky_ex(damped)
        inverse = torch.cholesky_inverse(lower)
        self.upper, failed_too = torch.linalg.cholesky_ex(inverse, upper=True)
        if int(failed) or int(failed_too):
            raise ValueError(f"prune: X^T X of the inputs of {name!r} has no inverse in float32")
        self.weight[:, dead] = 0
        self.mask = torch.ones_like(weight, dtype=torch.bool)

    def solve(self, pattern: Pattern, sparsity: float, goal: int) -> tuple[Tensor, Tensor]:
        """(mask, weight) without ``goal`` units."""
        weight, k = self.weight, self.weight.shape[1]
        width = max(COLUMNS // pattern.span, 1) * pattern.span
        lefts = torch.split(self.left, width, 1)
        goals = share_out(
            goal, [pattern.count(left.shape) for left in lefts], [pattern.gone(x) for x in lefts]
        )
        for start, own in zip(range(0, k, width), goals, strict=True):
            stop = min(start + width, k)
            errors = torch.empty_like(weight[:, start:stop])
            if isinstance(pattern, Units):
                scored = self._scored(slice(start, stop))
                self.mask[:, start:stop] = pattern.remove([scored], own, floor=0)[0]
            for j in range(start, stop):
                if not isinstance(pattern, Units) and (j - start) % pattern.span == 0:
                    part = slice(j, min(j + pattern.span, stop))
                    self.mask[:, part] = pattern.masks([self._scored(part)], sparsity)[0]
                kept = weight[:, j].masked_fill(~self.mask[:, j], 0)
                error = (weight[:, j] - kept) / self.upper[j, j]
                weight[:, j:stop] -= torch.outer(error, self.upper[j, j:stop])
                weight[:, j] = kept
                errors[:, j - start] = error
            weight[:, stop:] -= errors @ self.upper[start:stop, stop:]
        return self.mask, weight

    def _scored(self, part: slice) -> Scored:
        scores = (self.weight[:, part] / self.upper.diagonal()[part]).square()
        return Scored(scores, self.left[:, part])
