"""Cross-layer equalization: channels that share a tensor's scale get ranges alike.

Nagel et al. 2019, "Data-free quantization through weight equalization and bias correction",
arXiv:1906.04721. ``act(s y) = s act(y)`` for s > 0 where ``act`` is linear on each side of 0, so a
layer's output channel c can be multiplied by ``s_c`` if all readers divide their weights for it.
Weights have a scale per output channel here, so those of the producer lose nothing; the factor
trades the rounding of activations against that of the readers' weights. With steps ``da`` of the
tensor and ``dw_o`` of a reader's output channel, the noise of the readers' outputs is ::

    sum_c |w_c|^2 da^2 / s_c^2  +  sum_c s_c^2 E[x_c^2] sum_o dw_o^2

which is least at ``s_c^4 = |w_c|^2 da^2 / (E[x_c^2] sum_o dw_o^2)``. ``s_c`` stays between 1 and
what fills the tensor's range, so that neither step grows (and a ReLU6 cuts off nothing that
calibration saw). In a depthwise reader ``dw`` shrinks with the weight: all of the range is free.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from ...graph import net_steps as steps
from ...graph.net_fold import path_of
from .net import Net, Steps

_HOMOGENEOUS = ("none", "relu", "leaky_relu")
_JOINING = (steps.add, steps.pool, steps.adaptive_pool)


@dataclass
class _Group:
    """Values whose channels are scaled together. ``readers``: (layer, the value that it reads)."""

    values: list[fx.Node]
    makers: list[fx.Node] = field(default_factory=list)
    readers: list[tuple[fx.Node, fx.Node]] = field(default_factory=list)


def equalize(net: Net, batches: Iterable[Mapping[str, Tensor]]) -> list[str]:
    """Changes the weights of ``net.model``'s layers, in place; the function stays the same.

    Returns the paths of the layers whose output channels were scaled.
    """
    groups = _groups(net)
    watched = {node for group in groups for node in group.values}
    statistics = _Statistics(net, watched)
    with torch.no_grad():
        for batch in batches:
            statistics.values(batch)
        done = []
        for group in groups:
            factors = _factors(net, group, statistics)
            if factors is not None:
                _apply(net, group, factors)
                done += [path_of(maker) for maker in group.makers]
    return done


def _groups(net: Net) -> list[_Group]:
    """By following sums and pools from each layer; groups with another reader are left out."""
    calls = Counter(path_of(n) for n in net.graph.nodes if n.target is steps.layer)
    seen: set[fx.Node] = set()
    found = []
    for node in net.graph.nodes:
        if node.target is steps.layer and node not in seen:
            group = _grown(node)
            if group is not None:
                seen.update(group.values)
                layers = [*group.makers, *(reader for reader, _ in group.readers)]
                if group.readers and all(_is_plain(net, one, calls) for one in layers):
                    found.append(group)
    return found


def _is_plain(net: Net, node: fx.Node, calls: Counter[str]) -> bool:
    module = net.model.get_submodule(path_of(node))
    return calls[path_of(node)] == 1 and len(node.meta["shape"]) == 4 and type(module) is nn.Conv2d


def _grown(start: fx.Node) -> _Group | None:
    group = _Group([start])
    for value in group.values:  # grows
        if value.op == "placeholder" or not _scales(value):
            return None
        before: list[Any] = list(value.args[2:3])
        if value.target is steps.layer:
            group.makers.append(value)
        else:
            before = list(value.args[:2] if value.target is steps.add else value.args[:1])
        neighbours = [one for one in before if isinstance(one, fx.Node)]
        for user in value.users:
            if user.target is steps.layer and user.args[1] is value:
                group.readers.append((user, value))
            if user.target in _JOINING or (user.target is steps.layer and user.args[2] is value):
                neighbours.append(user)
            elif user.target is not steps.layer:
                return None
        group.values += [one for one in dict.fromkeys(neighbours) if one not in group.values]
    return group


def _scales(value: fx.Node) -> bool:
    """Whether scaling what a step reads scales what it makes, a ReLU6's limit left aside."""
    if value.target not in (steps.layer, *_JOINING):
        return False
    if value.target in (steps.pool, steps.adaptive_pool):
        return True
    act: Any = value.args[-1]
    name, low, _, slope = act
    return (name in _HOMOGENEOUS and not isinstance(slope, fx.Node)) or (
        name == "clamp" and low == 0 and value.args[-2] is None
    )


class _Statistics(Steps):
    """Largest size and mean square of each channel of the watched values."""

    def __init__(self, net: Net, watched: set[fx.Node]) -> None:
        super().__init__(net)
        self.watched = watched
        self.largest: dict[fx.Node, Tensor] = {}
        self.squares: dict[fx.Node, Tensor] = {}
        self.count: Counter[fx.Node] = Counter()

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n in self.watched and value.numel():
            channels = value.detach().float().transpose(0, 1).flatten(1)
            largest = channels.abs().amax(1)
            if n in self.largest:
                largest = torch.maximum(largest, self.largest[n])
            self.largest[n] = largest
            self.squares[n] = self.squares.get(n, 0) + channels.square().sum(1).double()
            self.count[n] += channels.shape[1]
        return value


def _factors(net: Net, group: _Group, seen: _Statistics) -> Tensor | None:
    if any(value not in seen.largest for value in group.values):
        return None
    room = torch.stack([_room(seen.largest[value]) for value in group.values]).amin(0).double()
    gain = loss = torch.zeros_like(room)
    for reader, value in group.readers:
        module: Any = net.model.get_submodule(path_of(reader))
        weight = module.weight.detach().double()
        da = float(seen.largest[value].max()) / 255
        if module.groups == module.in_channels and module.groups > 1:
            of_channel = weight.reshape(module.groups, -1).square().sum(1)
            gain = gain + of_channel * da**2
        else:
            dw = weight.flatten(1).abs().amax(1) / 127
            gain = gain + _columns(weight.square(), module.groups).sum(0) * da**2
            per_column = dw.square().reshape(module.groups, -1).sum(1)
            per_column = per_column.repeat_interleave(weight.shape[1])
            taps = weight[0, 0].numel()
            power = seen.squares[value] / max(1, seen.count[value])
            loss = loss + power * per_column * taps
    best = (gain / loss.clamp_min(1e-60)).pow(0.25)
    return torch.minimum(best.clamp_min(1), room)


def _room(largest: Tensor) -> Tensor:
    """The factor that fills the range; 1 for a channel that is always 0."""
    return torch.where(largest > 0, largest.max() / largest, 1.0)


def _columns(values: Tensor, groups: int) -> Tensor:
    """[OC, C / groups, KH, KW] -> [OC / groups, C], the taps added up."""
    o, c = values.shape[:2]
    summed = values.sum((2, 3)).reshape(groups, o // groups, c)
    return summed.transpose(0, 1).reshape(o // groups, groups * c)


def _apply(net: Net, group: _Group, factors: Tensor) -> None:
    for maker in group.makers:
        module: Any = net.model.get_submodule(path_of(maker))
        weight, bias = module.weight, module.bias
        scaled = weight.double() * factors.reshape(-1, 1, 1, 1)
        module.weight = nn.Parameter(scaled.to(weight.dtype), requires_grad=False)
        if bias is not None:
            module.bias = nn.Parameter((bias.double() * factors).to(bias.dtype), False)
    for reader, _ in group.readers:
        module = net.model.get_submodule(path_of(reader))
        weight = module.weight
        o, c = weight.shape[:2]
        by_row = factors.reshape(module.groups, 1, c).expand(-1, o // module.groups, -1)
        scaled = weight.double() / by_row.reshape(o, c, 1, 1)
        module.weight = nn.Parameter(scaled.to(weight.dtype), requires_grad=False)
