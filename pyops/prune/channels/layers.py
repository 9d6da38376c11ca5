"""The layers that have channels of their own: where these lie in their tensors, and how to cut."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ...graph.guards import runs_own_forward
from ...nn.registry import has_hooks

SHRUNK = "channels pruned"  # how the records of smaller layers begin


@dataclass(frozen=True)
class Kind:
    """``counts``: by axis ("out", "in"), the attribute that says how many channels it has.

    ``tensors``: by name, the axes of the first dimensions. ``behind``: how many dimensions of the
    layer's input follow its channels; None: channels are dimension 1.
    """

    counts: Mapping[str, str]
    tensors: Mapping[str, tuple[str, ...]]
    behind: int | None

    @property
    def multiplies(self) -> bool:
        """Whether it makes other channels of its input's."""
        return "in" in self.counts


_WEIGHTS = {"weight": ("out", "in"), "bias": ("out",)}
_NORM = Kind(
    {"out": "num_features"},
    dict.fromkeys(("weight", "bias", "running_mean", "running_var"), ("out",)),
    None,
)


def _conv(spatial: int) -> Kind:
    return Kind({"out": "out_channels", "in": "in_channels"}, _WEIGHTS, spatial)


# Exact types: a subclass may do anything with its channels.
KINDS: dict[type[nn.Module], Kind] = {
    nn.Linear: Kind({"out": "out_features", "in": "in_features"}, _WEIGHTS, 0),
    nn.Conv1d: _conv(1),
    nn.Conv2d: _conv(2),
    nn.Conv3d: _conv(3),
    nn.BatchNorm1d: _NORM,
    nn.BatchNorm2d: _NORM,
    nn.BatchNorm3d: _NORM,
    nn.PReLU: Kind({"out": "num_parameters"}, {"weight": ("out",)}, None),
}


def tensors_in(module: nn.Module) -> dict[str, Tensor]:
    """A module's own parameters and buffers."""
    own = {**module._parameters, **module._buffers}
    return {name: tensor for name, tensor in own.items() if tensor is not None}


def why_whole(module: nn.Module) -> str | None:
    """Why a layer of one of these kinds cannot be cut; None where it can be."""
    kind = KINDS[type(module)]
    if parametrize.is_parametrized(module):
        return "has a parametrization"
    if has_hooks(module):
        return "has hooks"
    if not runs_own_forward(module) or "forward" in module.__dict__:
        return "has a forward of its own"
    for name, tensor in tensors_in(module).items():
        if name == "num_batches_tracked":
            continue
        if name not in kind.tensors:
            return f"holds {name!r} besides its own tensors"
        plain = type(tensor) in (nn.Parameter, Tensor) and type(tensor.data) is Tensor
        if not plain:
            return f"its {name} is a {type(tensor).__name__}, not a plain tensor"
    if kind.multiplies and "weight" not in module._parameters:
        return "its weight is not a Parameter"
    return None


def depthwise(module: nn.Module) -> bool:
    """Whether each input channel has output channels of its own: its groups are its channels."""
    groups = getattr(module, "groups", 1)
    return bool(groups > 1 and groups == module.in_channels)


def count_of(module: nn.Module, axis: str) -> int:
    """How many channels the layer has on one side."""
    return int(getattr(module, KINDS[type(module)].counts[axis]))


@dataclass(frozen=True)
class Cut:
    """What a layer becomes: tensors in the place of its own, and the attributes that count them."""

    module: nn.Module
    tensors: dict[str, Tensor]
    attributes: dict[str, int]

    def make(self) -> None:
        """Changes the layer; raises nothing."""
        for name, tensor in self.tensors.items():
            own = self.module._parameters if name in self.module._parameters else None
            if own is None:
                self.module._buffers[name] = tensor
            else:
                assert isinstance(tensor, nn.Parameter)
                own[name] = tensor
        for name, value in self.attributes.items():
            setattr(self.module, name, value)


def cuts_of(layers: Iterable[tuple[nn.Module, Mapping[str, Tensor]]]) -> list[Cut]:
    """The cuts that leave each layer the channels ``{axis: kept}``; nothing is changed yet.

    Tensors that several layers share stay shared.
    """
    made: dict[int, Tensor] = {}
    cuts = []
    for module, kept in layers:
        kind = KINDS[type(module)]
        tensors = {}
        for name, tensor in tensors_in(module).items():
            axes = kind.tensors.get(name, ())
            if set(axes) & set(kept):
                if id(tensor) not in made:
                    made[id(tensor)] = _slice(module, tensor, axes, kept)
                tensors[name] = made[id(tensor)]
        attributes = {kind.counts[axis]: len(one) for axis, one in kept.items()}
        if depthwise(module) and "in" in kept:
            attributes["groups"] = len(kept["in"])
        cuts.append(Cut(module, tensors, attributes))
    return cuts


def _slice(
    module: nn.Module, tensor: Tensor, axes: tuple[str, ...], kept: Mapping[str, Tensor]
) -> Tensor:
    new = tensor.detach()
    for dim, axis in enumerate(axes):
        if axis in kept:
            new = new.index_select(dim, in_weight(module, axis, kept[axis]).to(new.device))
    if new.dim() == 4 and _is_channels_last(tensor):
        new = new.contiguous(memory_format=torch.channels_last)
    if not isinstance(tensor, nn.Parameter):
        return new
    return nn.Parameter(new, requires_grad=tensor.requires_grad)


def _is_channels_last(tensor: Tensor) -> bool:
    last = tensor.is_contiguous(memory_format=torch.channels_last)
    return last and not tensor.is_contiguous()


def in_weight(module: nn.Module, axis: str, positions: Tensor) -> Tensor:
    """Where these channels lie in a weight: that of a grouped convolution counts in one group.

    Its groups lose the same channels, so those of the first one say it all.
    """
    groups = int(getattr(module, "groups", 1))
    if axis != "in" or groups == 1:
        return positions
    if depthwise(module):
        return torch.zeros(1, dtype=torch.int64)
    share = count_of(module, "in") // groups
    return positions[positions < share]


def describe(module: nn.Module, before: Mapping[str, int]) -> str:
    """A layer's channels before and now, for its record."""
    names = {"in": "inputs", "out": "outputs"}
    if not KINDS[type(module)].multiplies:
        names = {"out": "channels"}
    text = [f"{names[a]} {before[a]} -> {count_of(module, a)}" for a in names if a in before]
    return f"{SHRUNK}: " + ", ".join(text)
