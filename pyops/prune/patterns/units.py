"""Patterns that remove a share of all units."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..matrix import drop_lowest, spread, unit_counts, unit_sums
from .base import Pattern, Scored


class Units(Pattern):
    """Of n units ``round(sparsity * n)`` are removed, but not the best one of any weight."""

    def masks(self, weights: Sequence[Scored], sparsity: float) -> list[Tensor]:
        """See ``Pattern``."""
        total = sum(self.count(one.scores.shape) for one in weights)
        return self.remove(weights, round(sparsity * total))

    def remove(self, weights: Sequence[Scored], count: int, floor: int = 1) -> list[Tensor]:
        """Masks without the ``count`` worst units; each keeps ``floor`` (0 or 1) at least."""
        grids = [one.units(self.rows, self.cols) for one in weights]
        flat = torch.cat([grid.flatten() for grid in grids])
        if floor:
            flat = _save_the_best(flat, [grid.numel() for grid in grids])
        keep = _all_but_lowest(flat, min(count, len(flat) - floor * len(grids)))
        masks = []
        for part, grid, one in zip(
            torch.split(keep, [grid.numel() for grid in grids]), grids, weights, strict=True
        ):
            masks.append(self._mask(part.view_as(grid), one))
        return masks

    def masks_by_row(self, weight: Scored, sparsity: float) -> Tensor:
        """See ``Pattern``."""
        units = weight.units(self.rows, self.cols)
        return self._mask(drop_lowest(units, _share_of(units.shape[1], sparsity)), weight)

    def removes(self, shape: torch.Size, sparsity: float, by_row: bool) -> int:
        """See ``Pattern``."""
        above, beside = unit_counts(shape, self.rows, self.cols)
        if by_row:
            return above * _share_of(beside, sparsity)
        return _share_of(above * beside, sparsity)

    def gone(self, left: Tensor) -> int:
        """See ``Pattern``."""
        return int((unit_sums(left.float(), self.rows, self.cols) == 0).sum())

    def count(self, shape: torch.Size) -> int:
        """How many units a weight has."""
        above, beside = unit_counts(shape, self.rows, self.cols)
        return above * beside

    def _mask(self, keep: Tensor, weight: Scored) -> Tensor:
        mask = spread(keep, self.rows, self.cols, weight.scores.shape)
        return mask if weight.left is None else mask & weight.left


def _share_of(units: int, sparsity: float) -> int:
    return min(round(sparsity * units), units - 1)


def _save_the_best(flat: Tensor, sizes: list[int]) -> Tensor:
    """Infinite at the best of each part: the last of equal ones, as lower indices go first."""
    flat = flat.clone()
    for part in torch.split(flat, sizes):
        part[len(part) - 1 - int(part.flip(0).argmax())] = float("inf")
    return flat


def _all_but_lowest(flat: Tensor, count: int) -> Tensor:
    """As ``drop_lowest``, in linear time."""
    if count <= 0:
        return torch.ones_like(flat, dtype=torch.bool)
    threshold = torch.kthvalue(flat, count).values
    keep = flat >= threshold
    equal = (flat == threshold).nonzero().flatten()
    keep[equal[: count - int((~keep).sum())]] = False
    return keep
