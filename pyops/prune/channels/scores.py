"""What a channel is worth: one number for each channel of a group; the lowest leave first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .groups import ChannelGroup, Member
from .layers import KINDS, depthwise

Score = Callable[[nn.Module, ChannelGroup, torch.Generator], Tensor | None]
_CRITERIA: dict[str, Score] = {}


def criterion(name: str) -> Callable[[Score], Score]:
    """Registers a criterion: float64 ``[size]``, or None for a group that it cannot score."""

    def register(function: Score) -> Score:
        _CRITERIA[name] = function
        return function

    return register


def criteria() -> tuple[str, ...]:
    """The names of all criteria."""
    return tuple(sorted(_CRITERIA))


def score(
    name: str, model: nn.Module, group: ChannelGroup, generator: torch.Generator
) -> Tensor | None:
    """The scores of a group's channels, float64 ``[size]`` on the CPU."""
    with torch.no_grad():
        return _CRITERIA[name](model, group, generator)


@criterion("l1")
def _l1(model: nn.Module, group: ChannelGroup, generator: torch.Generator) -> Tensor:
    """The sum of the absolute weights that leave with the channel.

    Filters by their L1 norm: Li et al., "Pruning filters for efficient ConvNets", ICLR 2017
    (arXiv:1608.08710); here with all that depends on them, as DepGraph does.
    """
    return _sum(model, group, torch.abs)


@criterion("l2")
def _l2(model: nn.Module, group: ChannelGroup, generator: torch.Generator) -> Tensor:
    """The Euclidean norm of the weights that leave with the channel."""
    return _sum(model, group, torch.square).sqrt()


@criterion("random")
def _random(model: nn.Module, group: ChannelGroup, generator: torch.Generator) -> Tensor:
    """Uniform noise, from the generator."""
    return torch.rand(group.size, dtype=torch.float64, generator=generator)


@criterion("bn")
def _bn(model: nn.Module, group: ChannelGroup, generator: torch.Generator) -> Tensor | None:
    """The sum of ``|gamma|`` of the channel's batch norms.

    Liu et al., "Learning efficient convolutional networks through network slimming", ICCV 2017
    (arXiv:1708.06519).
    """
    total = None
    for member in group.members:
        layer: Any = model.get_submodule(member.path)
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.weight is not None:
            found = layer.weight.detach().double().abs().cpu()[member.positions].sum(1)
            total = found if total is None else total + found
    return total


def _sum(model: nn.Module, group: ChannelGroup, size: Callable[[Tensor], Tensor]) -> Tensor:
    total = torch.zeros(group.size, dtype=torch.float64)
    for member, layer in _weights(model, group):
        weight: Tensor = layer.weight.detach()
        sizes = size(weight.double()).flatten(1)
        if member.axis == "out":
            each = sizes.sum(1)
        else:  # [groups, outputs, inputs of a group, taps]
            groups = int(getattr(layer, "groups", 1))
            each = sizes.view(groups, len(weight) // groups, weight.shape[1], -1).sum((1, 3))
        total += each.flatten().cpu()[member.positions].sum(1)
    return total


def _weights(model: nn.Module, group: ChannelGroup) -> Iterator[tuple[Member, Any]]:
    """The sides of layers that multiply; a depthwise filter is on two sides, and counts once."""
    for member in group.members:
        layer = model.get_submodule(member.path)
        twice = member.axis == "in" and depthwise(layer)
        if KINDS[type(layer)].multiplies and not twice:
            yield member, layer
