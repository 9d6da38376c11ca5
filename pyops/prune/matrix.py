"""A layer's weight as the matrix that our kernels multiply by, and units: its rectangles."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def matrix_of(weight: Tensor) -> Tensor:
    """``[OC, K]``, with K running over the kernel's positions and, innermost, input channels.

    A Linear's ``[N, K]`` is that already, a convolution's ``[OC, C, ...]`` is permuted.
    """
    return weight.movedim(1, -1).reshape(len(weight), -1)


def weight_of(matrix: Tensor, like: Tensor) -> Tensor:
    """The inverse: a tensor of ``like``'s shape and strides, and the matrix's dtype."""
    shape = [*like.movedim(1, -1).shape]
    new = torch.empty_like(like, dtype=matrix.dtype)
    return new.copy_(matrix.view(shape).movedim(-1, 1))


def unit_counts(shape: torch.Size, rows: int, cols: int) -> tuple[int, int]:
    """How many units lie above and beside one another; the last ones may be cut."""
    return -(-shape[0] // rows), -(-shape[1] // cols)


def unit_sums(matrix: Tensor, rows: int, cols: int) -> Tensor:
    """The sum of each unit."""
    if rows == cols == 1:
        return matrix
    above, beside = unit_counts(matrix.shape, rows, cols)
    rest = beside * cols - matrix.shape[1], above * rows - matrix.shape[0]
    padded = F.pad(matrix, (0, rest[0], 0, rest[1]))
    return padded.view(above, rows, beside, cols).sum((1, 3))


def unit_sizes(shape: torch.Size, rows: int, cols: int) -> Tensor:
    """How many weights each unit holds, as float64."""
    return unit_sums(torch.ones(shape, dtype=torch.float64), rows, cols)


def spread(units: Tensor, rows: int, cols: int, shape: torch.Size) -> Tensor:
    """The matrix of this shape in which every weight has the value of its unit."""
    if rows == cols == 1:
        return units
    wide = units.repeat_interleave(rows, 0).repeat_interleave(cols, 1)
    return wide[: shape[0], : shape[1]]


def drop_lowest(values: Tensor, count: int | Tensor) -> Tensor:
    """bool, like ``values``: False at the ``count`` lowest of each row.

    ``count``: for all rows, or (int64 ``[rows, 1]`` for ``values [rows, n]``) for each its own.
    Among equal values those of lower index go first.
    """
    order = torch.sort(values, dim=-1, stable=True).indices
    stays = torch.arange(values.shape[-1], device=values.device) >= count
    return torch.empty_like(values, dtype=torch.bool).scatter_(
        -1, order, stays.expand(values.shape)
    )
