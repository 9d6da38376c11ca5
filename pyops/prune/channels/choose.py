"""Which channels leave: per group or over all, to a multiple that kernels like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .groups import ChannelGroup

# Floats of an AVX-512 vector, and output channels of a tile of our convolutions. A tile of 16 takes
# more than half the time of one of 32. In one run of MobileNetV2 at batch 1 with sparsity 0.5, the
# time fell by 0.73 to 0.79 times as much as the products with multiples of 16, or where groups of
# 32 might keep 16, and by 0.84 to 0.86 times with multiples of 32 (bench/channels.py).
_LANES, _PANEL = 16, 32


@dataclass(frozen=True)
class Choice:
    """``removed``: by index of the group, the channels that leave, rising. ``notes``: roundings."""

    removed: dict[int, Tensor]
    notes: dict[int, str]


@dataclass(frozen=True)
class Limits:
    """``sparsity``: the share that leaves; ``least``: what stays of each group.

    ``round_to``: what stays is a multiple of it; None: of what kernels like.
    """

    sparsity: float
    round_to: int | None
    least: int

    def step(self, size: int) -> int:
        """What stays of a group of this size is a multiple of it."""
        step = self.round_to
        if step is None:
            step = _PANEL if size >= _PANEL else _LANES
        while step > size:
            step //= 2
        return step


def choose(
    groups: Sequence[ChannelGroup], scores: Mapping[int, Tensor], scope: str, limits: Limits
) -> Choice:
    """The channels with the lowest scores; of equal ones, the last leave first.

    Raises:
        ValueError: ``least`` leaves fewer channels than ``sparsity`` removes.
    """
    wanted = _SCOPES[scope](groups, scores, limits)
    removed, notes = {}, {}
    for index, share in wanted.items():
        size = groups[index].size
        keep = rounded(size, share, limits)
        if keep != share:
            notes[index] = f"{keep} stay and not {share}: multiples of {limits.step(size)}"
            if keep == limits.least:
                notes[index] += f", least={limits.least}"
        best = torch.sort(scores[index], descending=True, stable=True).indices
        removed[index] = best[keep:].sort().values
    return Choice(removed, notes)


def rounded(size: int, wanted: int, limits: Limits) -> int:
    """How many of ``size`` channels stay, where ``wanted`` would: at least ``least``.

    The nearest of ``size`` and the multiples of the step below it, the larger of two as near.
    """
    step = limits.step(size)
    fits = [n for n in range(step, size, step) if n >= limits.least]
    return min((*fits, size), key=lambda n: (abs(n - wanted), -n))


def _per_group(
    groups: Sequence[ChannelGroup], scores: Mapping[int, Tensor], limits: Limits
) -> dict[int, int]:
    return {i: groups[i].size - round(groups[i].size * limits.sparsity) for i in scores}


def _over_all(
    groups: Sequence[ChannelGroup], scores: Mapping[int, Tensor], limits: Limits
) -> dict[int, int]:
    """One threshold over each score divided by the largest of its group, so that groups compare.

    (Divided by the mean, groups of even scores lose nearly all: the trained digits net then reads
    52 % with half of its channels, and 99 % this way.)
    """
    relative, owner = [], []
    for index, own in scores.items():
        largest = own.max()
        even = torch.ones_like(own) if float(largest) == 0 else own / largest
        order = torch.sort(even, descending=True, stable=True).values
        relative.append(order[min(limits.least, len(order)) :])  # the best ones stay
        owner.append(torch.full((len(relative[-1]),), index))
    total = sum(groups[index].size for index in scores)
    count = round(total * limits.sparsity)
    free = sum(map(len, owner))
    if count > free:
        raise ValueError(
            f"prune_channels: sparsity={limits.sparsity} removes {count} of {total} channels, but "
            f"least={limits.least} lets only {free} of them go"
        )
    lowest = torch.sort(torch.cat(relative), stable=True).indices[:count]
    gone = torch.cat(owner)[lowest]
    return {index: groups[index].size - int((gone == index).sum()) for index in scores}


_SCOPES = {"layer": _per_group, "global": _over_all}


def scopes() -> tuple[str, ...]:
    """The names of all scopes."""
    return tuple(_SCOPES)
