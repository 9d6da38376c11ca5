"""The full-size twin of a smaller model: the same channels are zero instead of gone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...quantize.copying import copy_model
from .groups import ChannelGroup
from .layers import KINDS, depthwise, in_weight


def masked_channels(
    model: nn.Module, groups: Sequence[ChannelGroup], removed: Mapping[int, Iterable[int]]
) -> nn.Module:
    """A copy in which all parameters are zero that leave with these channels.

    Filters and their biases, scale and shift of norms, and the columns that read the channels. So
    it computes in eval mode what the smaller model does, up to the order of sums; unless it takes
    what is infinite at 0 of them (a logarithm, a quotient): 0 times that is NaN.

    Args:
        model: the one that ``groups`` are of. It is not changed.
        groups: what ``channel_groups`` found.
        removed: {index of a group: numbers of its channels, from 0}.

    Raises:
        TypeError: the model cannot be copied.
        ValueError: there is no such group or channel, or the group's channels stay.
    """
    units = {index: _units(groups, index, list(which)) for index, which in removed.items()}
    new = copy_model(model, True, "masked_channels")
    mask(new, groups, units)
    return new


def _units(groups: Sequence[ChannelGroup], index: int, which: list[int]) -> Tensor:
    if not 0 <= index < len(groups):
        raise ValueError(
            f"masked_channels: there is no group {index}, expected 0 to {len(groups) - 1}"
        )
    group = groups[index]
    if group.reason is not None:
        raise ValueError(f"masked_channels: the channels of group {index} stay: {group.reason}")
    wrong = [one for one in which if not 0 <= one < group.size]
    if wrong:
        raise ValueError(
            f"masked_channels: group {index} has no channel {wrong[0]}, expected 0 to "
            f"{group.size - 1}"
        )
    return torch.tensor(which, dtype=torch.int64)


@torch.no_grad()
def mask(model: nn.Module, groups: Sequence[ChannelGroup], removed: Mapping[int, Tensor]) -> None:
    """The same in place, for numbers that are right."""
    for index, units in removed.items():
        for member in groups[index].members if len(units) else ():
            layer: Any = model.get_submodule(member.path)
            _clear(layer, member.axis, member.positions[units].flatten())


@torch.no_grad()
def unread(model: nn.Module, groups: Sequence[ChannelGroup], removed: Mapping[int, Tensor]) -> None:
    """Zeroes, in place, only the columns that read these channels.

    What the channels hold does not matter then, as long as it is finite: not even where the model
    takes a logarithm of them.
    """
    for index, units in removed.items():
        for member in groups[index].members if len(units) else ():
            if member.axis == "in":
                layer = model.get_submodule(member.path)
                _clear(layer, "in", member.positions[units].flatten())


def _clear(layer: Any, axis: str, positions: Tensor) -> None:
    if axis == "in" and depthwise(layer):
        return  # its filters are on the other side too
    for name, axes in KINDS[type(layer)].tensors.items():
        parameter = layer._parameters.get(name)
        if parameter is not None and axis in axes:
            where = in_weight(layer, axis, positions).to(parameter.device)
            parameter.index_fill_(axes.index(axis), where, 0)
