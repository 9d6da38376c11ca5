"""Patterns that remove a share of all units."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..matrix import drop_lowest, spread, unit_counts
from .base import Pattern, Scored
from .share_out import share_out


class Units(Pattern):
    """Of n units ``round(sparsity * n)`` are removed, but not the best one of any weight."""

    def masks(self, weights: Sequence[Scored], sparsity: float) -> list[Tensor]:
        """See ``Pattern``."""
        shapes = [one.scores.shape for one in weights]
        return self.remove(weights, self.removes(shapes, sparsity, False))

    def remove(self, weights: Sequence[Scored], count: int, floor: int = 1) -> list[Tensor]:
        """Masks without the ``count`` worst units; each keeps ``floor`` (0 or 1) at least."""
        grids = [one.units(self.rows, self.cols) for one in weights]
        sizes = [grid.numel() for grid in grids]
        flat, saved = torch.cat([grid.flatten() for grid in grids]), 0
        if floor:
            flat, saved = _save_the_best(flat, sizes)
        keep = torch.split(_all_but_lowest(flat, min(count, len(flat) - saved)), sizes)
        return [
            self._mask(part.view_as(grid), one)
            for part, grid, one in zip(keep, grids, weights, strict=True)
        ]

    def masks_by_row(self, weight: Scored, sparsity: float) -> Tensor:
        """See ``Pattern``."""
        units = weight.units(self.rows, self.cols)
        above, beside = units.shape
        gone = (units == float("-inf")).sum(1).tolist()
        goal = self.removes([weight.scores.shape], sparsity, by_row=True)
        counts = torch.tensor(share_out(goal, [beside] * above, gone), device=units.device)
        return self._mask(drop_lowest(units, counts[:, None]), weight)

    def removes(self, shapes: Sequence[torch.Size], sparsity: float, by_row: bool) -> int:
        """See ``Pattern``."""
        if by_row:
            grids = [unit_counts(shape, self.rows, self.cols) for shape in shapes]
            return sum(above * _share_of(beside, sparsity) for above, beside in grids)
        units = sum(self.count(shape) for shape in shapes)
        return min(round(sparsity * units), units - len(shapes))

    def _mask(self, keep: Tensor, weight: Scored) -> Tensor:
        mask = spread(keep, self.rows, self.cols, weight.scores.shape)
        return mask if weight.left is None else mask & weight.left


def _share_of(units: int, sparsity: float) -> int:
    return min(round(sparsity * units), units - 1)


def _save_the_best(flat: Tensor, sizes: list[int]) -> tuple[Tensor, int]:
    """Infinite at the best of each part: the last of equal ones, as lower indices go first.

    And how many these are: of a part that is gone there is none to save.
    """
    flat, saved = flat.clone(), 0
    for part in torch.split(flat, sizes):
        best = len(part) - 1 - int(part.flip(0).argmax())
        if part[best] > float("-inf"):
            part[best] = float("inf")
            saved += 1
    return flat, saved


def _all_but_lowest(flat: Tensor, count: int) -> Tensor:
    """As ``drop_lowest``, in linear time."""
    if count <= 0:
        return torch.ones_like(flat, dtype=torch.bool)
    threshold = torch.kthvalue(flat, count).values
    keep = flat >= threshold
    equal = (flat == threshold).nonzero().flatten()
    keep[equal[: count - int((~keep).sum())]] = False
    return keep
