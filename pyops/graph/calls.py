"""What the nodes of a rewritten graph call. Each does exactly what the original nodes did.

A fused call is taken where the layer is still an int8 layer that nobody watches; a layer with
hooks, one that was exchanged, or a residual of another shape or type runs as written by the user.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from ..nn.int8_linear import Int8Linear, forward_group

_FLOAT: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda y: y,
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda y: F.gelu(y, approximate="tanh"),
    "silu": F.silu,
}


def linear(
    layer: nn.Module, x: Tensor, residual: Tensor | None = None, activation: str = "none"
) -> Tensor:
    """``activation(layer(x) + residual)``."""
    if type(layer) is Int8Linear and not _watched(layer):
        if residual is None or layer.takes(x, residual):
            return layer.forward(x, residual=residual, activation=activation)
    y: Tensor = layer(x)
    return _FLOAT[activation](y if residual is None else y + residual)


def linears(layers: Sequence[nn.Module], x: Tensor, activations: Sequence[str]) -> list[Tensor]:
    """``[activation(layer(x)) ...]`` of layers that read one tensor."""
    if all(type(layer) is Int8Linear and not _watched(layer) for layer in layers):
        return forward_group(layers, x, activations)  # type: ignore[arg-type]
    return [
        linear(layer, x, None, activation)
        for layer, activation in zip(layers, activations, strict=True)
    ]


def _watched(layer: nn.Module) -> bool:
    return bool(
        layer._forward_hooks
        or layer._forward_pre_hooks
        or torch_module._global_forward_hooks
        or torch_module._global_forward_pre_hooks
    )
