"""The steps of a net in float: what the nodes of a whole model's graph call.

``net_forms.py`` writes a model as calls of these, so that one thing has one form; ``net_fold.py``
merges them, and ``net_int8.py`` exchanges them for steps on codes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Act(NamedTuple):
    """One of ``pyops.ops.epilogue.CONV_ACTIVATIONS``.

    ``slope``: of "leaky_relu", a number, or one for each channel.
    """

    name: str = "none"
    low: float = 0.0
    high: float = 0.0
    slope: Any = None


NONE = Act()
MAX, AVERAGE = 0, 1

_PLAIN: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "hardswish": F.hardswish,
}


def activate(x: Tensor, act: Sequence[Any]) -> Tensor:
    """An activation by itself."""
    name, low, high, slope = act
    if name == "clamp":
        return torch.clamp(x, low, high)
    if name == "leaky_relu":
        return F.prelu(x, slope) if isinstance(slope, Tensor) else F.leaky_relu(x, slope)
    return _PLAIN[name](x)


def layer(module: nn.Module, x: Tensor, residual: Tensor | None, act: Sequence[Any]) -> Tensor:
    """``act(module(x) + residual)``; the module is a convolution or a Linear."""
    y = module(x)
    return activate(y if residual is None else y + residual, act)


def norm(module: nn.Module, x: Tensor) -> Tensor:
    """Batch norm in eval mode."""
    out: Tensor = module(x)
    return out


def add(a: Tensor, b: Tensor, act: Sequence[Any]) -> Tensor:
    """``act(a + b)``, of one shape."""
    return activate(a + b, act)


def concat(xs: Sequence[Tensor], dim: int) -> Tensor:
    """``torch.cat``."""
    return torch.cat(list(xs), dim)


def pool(
    x: Tensor,
    kind: int,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int,
) -> Tensor:
    """Max or average pooling of ``[N, C, H, W]``; ``padding`` is (height, width)."""
    if kind == MAX:
        maximum: Tensor = F.max_pool2d(x, kernel, stride, padding, dilation, ceil_mode)
        return maximum
    return F.avg_pool2d(x, kernel, stride, padding, ceil_mode, count_include_pad, divisor or None)


def adaptive_pool(x: Tensor, kind: int, size: Sequence[int]) -> Tensor:
    """Max or average pooling of ``[N, C, H, W]`` to ``[N, C, *size]``."""
    pooled: Callable[..., Tensor] = F.adaptive_max_pool2d if kind == MAX else F.adaptive_avg_pool2d
    out = pooled(x, list(size))
    return out
