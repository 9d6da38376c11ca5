"""Which channels of a model can only be removed together, with where they lie in each layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...graph.net_inputs import guess_inputs
from ...graph.simple_code import CannotTraceError
from ...quantize.copying import copy_model, evaluating
from ...quantize.measure import arguments_of
from ...quantize.quantize import check_model
from ...quantize.static.batches import Call
from . import reshapes, rules  # noqa: F401  (register what calls do)
from .graphs import Graphs, graphs_of
from .layers import KINDS
from .walk import Walk


@dataclass(frozen=True, eq=False)
class Member:
    """One side of a layer: ``axis`` is "out" (of a norm: its channels) or "in".

    ``positions`` int64 ``[size, run]``: where each channel of the group lies there. ``run`` is 1,
    but more where a flattened channel is a run of columns, where one tensor is concatenated with
    itself, and in a grouped convolution, whose groups lose the same channels.
    """

    path: str
    axis: str
    positions: Tensor


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """``size`` channels, each of which leaves all ``members`` or none.

    ``reason``: why they all stay; None where they can be removed.
    """

    size: int
    members: tuple[Member, ...]
    reason: str | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """The layers whose outputs these channels are (and their norms), in the model's order."""
        return tuple(member.path for member in self.members if member.axis == "out")

    @property
    def name(self) -> str:
        """The first layer that makes these channels."""
        return (self.paths or tuple(member.path for member in self.members))[0]

    def __str__(self) -> str:
        sides = ", ".join(f"{member.path} {member.axis}" for member in self.members)
        stay = f"; stay: {self.reason}" if self.reason else ""
        return f"{self.size} channels of {sides}{stay}"


class ChannelGroups(tuple[ChannelGroup, ...]):
    """All groups of a model, in the order of its layers; printed, a line for each."""

    __slots__ = ()

    def __str__(self) -> str:
        return "\n".join(map(str, self))


def channel_groups(model: nn.Module, example_inputs: Any = None) -> ChannelGroups:
    """The channels of a model's layers, grouped by what can only be removed together.

    ``nn.Linear``, ``nn.Conv1d`` to ``3d``, ``nn.BatchNorm1d`` to ``3d`` and ``nn.PReLU`` have
    channels. They are followed on the model's graph in eval mode, and on that in train mode where
    it is another one (auxiliary heads), through what acts on each channel by itself, sums and
    products (which tie the channels of their operands), concatenation, flattening, views and
    permutations. Where a call is not understood, its channels stay, and the group says why. So do
    the channels of the model's inputs and outputs. (Groups on the graph: Fang et al., "DepGraph:
    Towards Any Structural Pruning", CVPR 2023, arXiv:2301.12900.)

    Args:
        model: any ``nn.Module`` that ``torch.fx`` can trace. It is not changed.
        example_inputs: a tensor, a tuple of positional arguments or a dict of keywords. The model
            runs on them, for the sizes of its values. None: noise, for a model of one argument.

    Raises:
        TypeError: not an ``nn.Module``; a scripted, compiled or wrapped one; one that cannot be
            copied.
        ValueError: the model cannot be traced, or fails on ``example_inputs``; in train mode, if it
            has layers that eval mode does not reach.
    """
    check_model(model, False, "channel_groups")
    work = copy_model(model, True, "channel_groups")
    with torch.random.fork_rng(devices=[]):
        call = call_of(work, example_inputs, "channel_groups")
        return groups_of(work, graphs_of(work, call, "channel_groups"))


def call_of(model: nn.Module, example_inputs: Any, workflow: str) -> Call:
    """``example_inputs`` as positional and keyword arguments, or noise that the model takes.

    Raises:
        ValueError: none are given, and no noise fits.
    """
    if example_inputs is not None:
        return arguments_of(example_inputs)
    try:
        with evaluating(model):
            return (), dict(guess_inputs(model, copy_model(model, True, workflow).to("meta")))
    except CannotTraceError as error:
        raise ValueError(f"{workflow}: example_inputs is None: {error}") from error


def groups_of(model: nn.Module, graphs: Graphs) -> ChannelGroups:
    """The groups of a model with these graphs."""
    return _grouped(Walk(model, graphs.each, graphs.shapes))


def _grouped(walk: Walk) -> ChannelGroups:
    """Units that lie the same number of times in the same sides of layers are one group."""
    unit_of, reasons = walk.atoms.solve()
    slots = walk.slots()
    sides: dict[int, list[tuple[int, int]]] = {}
    for index, (_, _, atoms) in enumerate(slots):
        for unit, count in zip(*_counted(unit_of[atoms]), strict=True):
            sides.setdefault(unit, []).append((index, count))
    groups: dict[Any, list[int]] = {}
    for unit, where in sides.items():
        groups.setdefault((tuple(where), reasons.get(unit)), []).append(unit)
    found = []
    for (where, reason), units in groups.items():
        wanted = np.sort(np.array(units))
        members = [
            Member(path, axis, _positions(unit_of[atoms], wanted, run))
            for (path, axis, atoms), run in ((slots[index], run) for index, run in where)
        ]
        found.append(ChannelGroup(len(wanted), tuple(members), reason))
    order = {path: index for index, (path, _, _) in enumerate(slots)}
    return ChannelGroups(sorted(found, key=lambda group: order[group.name]))


def _counted(units: Any) -> tuple[list[int], list[int]]:
    names, counts = np.unique(units, return_counts=True)
    return names.tolist(), counts.tolist()


def _positions(units: Any, wanted: Any, run: int) -> Tensor:
    order = np.argsort(units, kind="stable")
    chosen = order[np.isin(units[order], wanted)]
    return torch.from_numpy(chosen.reshape(len(wanted), run))


def kept_of(
    groups: Sequence[ChannelGroup], removed: Mapping[int, Tensor], model: nn.Module
) -> dict[str, dict[str, Tensor]]:
    """Of each layer that loses channels, the positions that stay: {path: {axis: int64}}.

    ``removed``: of the group with this index, the numbers of the channels that leave.
    """
    gone: dict[tuple[str, str], list[Tensor]] = {}
    for index, units in removed.items():
        for member in groups[index].members:
            if len(units):
                found = gone.setdefault((member.path, member.axis), [])
                found.append(member.positions[units].flatten())
    kept: dict[str, dict[str, Tensor]] = {}
    for (path, axis), positions in gone.items():
        layer = model.get_submodule(path)
        stays = torch.ones(int(getattr(layer, KINDS[type(layer)].counts[axis])), dtype=torch.bool)
        stays[torch.cat(positions)] = False
        kept.setdefault(path, {})[axis] = stays.nonzero().flatten()
    return kept
