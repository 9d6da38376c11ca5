"""Small models to prune, and what a model with fewer channels has to compute."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..prune.channels import (
    ChannelGroups,
    channel_groups,
    channel_plan,
    masked_channels,
    prune_channels,
)

# How many dimensions of a layer's input and output follow its channels; others: those after two.
_BEHIND = {nn.Linear: 0, nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}


def with_zeros(model: nn.Module, plan: dict[str, Any]) -> nn.Module:
    """A copy of the old size that zeroes, at each call of a layer, what the plan does not keep.

    It works on what flows and not on weights, so it knows nothing of how these are cut.
    """
    new = copy.deepcopy(model)
    for path, axes in plan["layers"].items():
        layer = new.get_submodule(path)
        if "in" in axes:
            layer.register_forward_pre_hook(_before(axes["in"]))
        if "out" in axes:
            layer.register_forward_hook(_after(axes["out"]))
    return new


def _before(side: dict[str, Any]) -> Any:
    def hook(layer: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        return (_zeroed(layer, args[0], side),)

    return hook


def _after(side: dict[str, Any]) -> Any:
    def hook(layer: nn.Module, args: Any, output: Tensor) -> Tensor:
        return _zeroed(layer, output, side)

    return hook


def _zeroed(layer: nn.Module, x: Tensor, side: dict[str, Any]) -> Tensor:
    dim = x.dim() - 1 - _BEHIND.get(type(layer), x.dim() - 2)
    if x.shape[dim] != side["channels"]:
        raise AssertionError(f"{list(x.shape)} has no {side['channels']} channels at {dim}")
    factor = torch.zeros(side["channels"], dtype=x.dtype)
    factor[side["kept"]] = 1
    return x * factor.view(-1, *[1] * (x.dim() - 1 - dim))


IMAGES = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class Residual(nn.Module):
    """Two branches that are summed, and a head."""

    def __init__(self, width: int = 32, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.bn0 = nn.BatchNorm2d(width)
        self.inner = nn.Conv2d(width, 48, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(48)
        self.outer = nn.Conv2d(48, width, 1)
        self.bn2 = nn.BatchNorm2d(width)
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn0(self.stem(x)))
        y = F.relu(self.bn1(self.inner(x)))
        x = F.relu(x + self.bn2(self.outer(y)))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


class Net(nn.Module):
    """Layers by name, and a forward that is a function of them."""

    def __init__(self, forward: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        self.forward_of = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Any:
        return self.forward_of(self, x)


def net(forward: Callable[..., Any], **layers: nn.Module) -> nn.Module:
    """``forward(model, x)`` over layers that are the model's attributes."""
    return filled(Net(forward, **layers))


def filled(model: nn.Module) -> nn.Module:
    """In float64 and eval mode, with numbers in all norms and slopes."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(0, 0.5, generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
                if module.affine:
                    module.weight.normal_(generator=generator)
                    module.bias.normal_(generator=generator)
            elif isinstance(module, nn.PReLU):
                module.weight.uniform_(-1, 1, generator=generator)
    return model.double().eval()


def conv(inputs: int, outputs: int, size: int = 1, **options: Any) -> nn.Conv2d:
    """A convolution that keeps the size of its image."""
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, **options)


def pooled(x: Tensor) -> Tensor:
    """The mean over an image."""
    return x.mean((2, 3))


def reasons(model: nn.Module) -> dict[str, str | None]:
    """Why the channels of each group stay, by its first layer."""
    return {group.name: group.reason for group in channel_groups(model, IMAGES) if group.paths}


def check_pruned(
    model: nn.Module, x: Tensor = IMAGES, sparsity: float = 0.5, **options: Any
) -> Any:
    """The model with fewer channels, compared with zeros in what flows and zeros in the weights."""
    small = prune_channels(model, sparsity, **{"round_to": 1, "example_inputs": x, **options})
    plan, groups = channel_plan(small), channel_groups(model, x)
    masked = masked_channels(model, groups, _removed(groups, plan))
    with torch.no_grad():
        expected = with_zeros(model, plan)(x)
        assert torch.allclose(small(x), expected, rtol=1e-9, atol=1e-11)
        assert torch.allclose(masked(x), expected, rtol=1e-9, atol=1e-11)
        assert not torch.allclose(expected, model(x), rtol=1e-3)
        other = torch.cat([x, 2 * x])  # another batch than that of the example
        assert small(other).shape == model(other).shape
    return small


def _removed(groups: ChannelGroups, plan: dict[str, Any]) -> dict[int, list[int]]:
    removed = {}
    for index, group in enumerate(groups):
        member = group.members[0]
        side = plan["layers"].get(member.path, {}).get(member.axis)
        if side is not None and group.reason is None:
            gone = set(range(side["channels"])) - set(side["kept"])
            first = member.positions[:, 0].tolist()
            removed[index] = [i for i, at in enumerate(first) if at in gone]
    return removed
