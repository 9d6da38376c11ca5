"""The forms of pooling, for ``net_forms.py``: each way to say it as one step."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn
from torch.nn.modules.utils import _pair, _single

from . import net_steps as steps
from .net_steps import AVERAGE, MAX

Arguments = tuple[Any, ...]


def form_of_pool_module(x: fx.Node, module: Any) -> tuple[Any, Arguments] | None:
    """A pooling module; None for any other module, or for one that has no form."""
    kind = MAX if "Max" in type(module).__name__ else AVERAGE
    if type(module) in (nn.MaxPool1d, nn.MaxPool2d) and not module.return_indices:
        sizes = (module.kernel_size, module.stride, module.padding, module.dilation)
        return _pool(x, kind, *sizes, module.ceil_mode, True, None)
    if type(module) in (nn.AvgPool1d, nn.AvgPool2d):
        sizes = (module.kernel_size, module.stride, module.padding, 1)
        divisor = getattr(module, "divisor_override", None)
        return _pool(x, kind, *sizes, module.ceil_mode, module.count_include_pad, divisor)
    if type(module) in (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d):
        return _adaptive(x, kind, module.output_size)
    if type(module) in (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d) and not module.return_indices:
        return _adaptive(x, kind, module.output_size)
    return None


def _pool(
    x: fx.Node,
    kind: int,
    kernel: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> tuple[Any, Arguments] | None:
    rank = len(x.meta["shape"])
    stride = kernel if stride is None or stride == [] else stride
    sizes = [_sizes(rank, value) for value in (kernel, stride, padding, dilation)]
    if rank not in (3, 4) or None in sizes or (divisor or 0) < 0:
        return None
    kernel, stride, padding, dilation = sizes
    if rank == 3:
        kernel, stride, padding, dilation = (
            (1, *kernel),
            (1, *stride),
            (0, *padding),
            (1, *dilation),
        )
    arguments = (kernel, stride, padding, dilation, bool(ceil_mode), bool(count_include_pad))
    return steps.pool, (x, kind, *arguments, divisor or 0)


def _adaptive(x: fx.Node, kind: int, size: Any) -> tuple[Any, Arguments] | None:
    shape = x.meta["shape"]
    if len(shape) not in (3, 4):
        return None
    spatial = _single(size) if len(shape) == 3 else _pair(size)
    if any(type(one) is not int for one in spatial):  # None: as many as the image has
        return None
    wanted = tuple(spatial)
    return steps.adaptive_pool, (x, kind, (1, *wanted) if len(shape) == 3 else wanted)


def _sizes(rank: int, value: Any) -> tuple[int, ...] | None:
    pair = _single(value) if rank == 3 else _pair(value)
    return tuple(pair) if all(type(one) is int for one in pair) else None


def max_pool(
    input: fx.Node,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> tuple[Any, Arguments] | None:
    """``F.max_pool1d`` and ``F.max_pool2d``."""
    sizes = (kernel_size, stride, padding, dilation)
    return None if return_indices else _pool(input, MAX, *sizes, ceil_mode)


def avg_pool(
    input: fx.Node,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> tuple[Any, Arguments] | None:
    """``F.avg_pool1d`` and ``F.avg_pool2d``."""
    sizes = (kernel_size, stride, padding, 1)
    return _pool(input, AVERAGE, *sizes, ceil_mode, count_include_pad, divisor_override)


def adaptive_avg(input: fx.Node, output_size: Any) -> tuple[Any, Arguments] | None:
    """``F.adaptive_avg_pool1d`` and ``F.adaptive_avg_pool2d``."""
    return _adaptive(input, AVERAGE, output_size)


def adaptive_max(
    input: fx.Node, output_size: Any, return_indices: bool = False
) -> tuple[Any, Arguments] | None:
    """``F.adaptive_max_pool1d`` and ``F.adaptive_max_pool2d``."""
    return None if return_indices else _adaptive(input, MAX, output_size)


def mean(input: fx.Node, dim: Any = None, keepdim: bool = False) -> tuple[Any, Arguments] | None:
    """``x.mean((2, 3))`` of an image."""
    shape = input.meta["shape"]
    dims = sorted(one % len(shape) for one in (dim if isinstance(dim, (list, tuple)) else ()))
    if len(shape) != 4 or dims != [2, 3]:
        return None
    graph = input.graph
    return (
        (steps.adaptive_pool, (input, AVERAGE, (1, 1)))
        if keepdim
        else (torch.flatten, (_pooled(graph, input), 1))
    )


def _pooled(graph: fx.Graph, x: fx.Node) -> fx.Node:
    with graph.inserting_after(x):
        new = graph.call_function(steps.adaptive_pool, (x, AVERAGE, (1, 1)))
    new.meta["shape"] = (*x.meta["shape"][:2], 1, 1)
    return new
