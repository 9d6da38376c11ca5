"""What the nodes of a rewritten graph call. Each does exactly what the original nodes did.

``forward.py`` runs a graph only while its layers are those that were fused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ..nn.int8_linear import Int8Linear, forward_group, forward_mlp

_FLOAT: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda y: y,
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda y: F.gelu(y, approximate="tanh"),
    "silu": F.silu,
}


def unpack(values: Any, expected: int) -> tuple[Any, ...]:
    """What unpacking ``values`` into ``expected`` names assigns.

    Raises:
        ValueError: there are more or fewer, in Python's own words.
    """
    found = len(values)
    if found > expected:
        raise ValueError(f"too many values to unpack (expected {expected})")
    if found < expected:
        raise ValueError(f"not enough values to unpack (expected {expected}, got {found})")
    return tuple(values)


def linear(
    layer: Int8Linear, x: Tensor, residual: Tensor | None = None, activation: str = "none"
) -> Tensor:
    """``activation(layer(x) + residual)``; the residual may broadcast or promote."""
    if residual is None or layer.takes(x, residual):
        return layer.forward(x, residual=residual, activation=activation)
    return _FLOAT[activation](layer.forward(x) + residual)


def linears(layers: Sequence[Int8Linear], x: Tensor, activations: Sequence[str]) -> list[Tensor]:
    """``[activation(layer(x)) ...]`` of layers that read one tensor."""
    return forward_group(layers, x, activations)


def mlp(
    up: Int8Linear, down: Int8Linear, x: Tensor, residual: Tensor | None, activation: str
) -> Tensor:
    """``down(activation(up(x))) + residual``."""
    if residual is None or down.takes(x, residual):
        return forward_mlp(up, down, x, residual, activation)
    return linear(down, linear(up, x, None, activation), residual)
