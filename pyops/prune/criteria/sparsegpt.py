"""sparsegpt: layers reconstructed on their inputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..patterns.base import Pattern, Scored
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
        goal = pattern.removes(work.weight.shape, sparsity, by_row=False)
        parts = []
        for group, (weight, gram) in enumerate(
            zip(torch.split(work.weight, rows), work.seen, strict=True)
        ):
            left = None if work.left is None else work.left[group * rows : (group + 1) * rows]
            own = goal * (group + 1) // work.groups - goal * group // work.groups
            parts.append(_Columns(work.name, weight, gram, left).solve(pattern, sparsity, own))
        masks, weights = zip(*parts, strict=True)
        return torch.cat(masks), torch.cat(weights)


class _Columns:
    """The columns of one weight ``[rows, K]``, from the left."""

    def __init__(self, name: str, weight: Tensor, gram: Tensor, left: Tensor | None) -> None:
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
        self.removed = 0

    def solve(self, pattern: Pattern, sparsity: float, goal: int) -> tuple[Tensor, Tensor]:
        """(mask, weight) without ``goal`` units."""
        weight, k = self.weight, self.weight.shape[1]
        width = max(COLUMNS // pattern.span, 1) * pattern.span
        for start in range(0, k, width):
            stop = min(start + width, k)
            errors = torch.empty_like(weight[:, start:stop])
            if isinstance(pattern, Units):
                self._choose_units(pattern, goal, slice(start, stop))
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

    def _choose_units(self, pattern: Units, goal: int, part: slice) -> None:
        """As many as all columns up to here should lack, less what the earlier ones lack."""
        scored = self._scored(part)
        upto = pattern.count(torch.Size((len(self.weight), part.stop)))
        total = pattern.count(self.weight.shape)
        count = round(goal * upto / total) - self.removed
        self.removed += count
        self.mask[:, part] = pattern.remove([scored], count, floor=0)[0]

    def _scored(self, part: slice) -> Scored:
        scores = (self.weight[:, part] / self.upper.diagonal()[part]).square()
        return Scored(scores, None if self.left is None else self.left[:, part])
