"""Several processes (torch.distributed): one statistic and one mask for all of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor


def several() -> bool:
    """Whether other processes work on the same model."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def sum_over_ranks(tensors: Sequence[Tensor]) -> None:
    """Replaces each tensor by its sum over all processes."""
    if several():
        for tensor in tensors:
            dist.all_reduce(tensor)


def from_first_rank(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors of the first process."""
    if not several():
        return list(tensors)
    received = [tensor.contiguous() for tensor in tensors]
    for tensor in received:
        dist.broadcast(tensor, 0)
    return received


def largest_over_ranks(numbers: Sequence[int], device: torch.device) -> list[int]:
    """The largest of each number over all processes."""
    if not several():
        return list(numbers)
    tensor = torch.tensor(numbers, device=device)
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return tensor.tolist()
