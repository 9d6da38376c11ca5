"""Writing a traced net as steps (``net_steps.py``): one form for each way to say the same thing.

What has no form stays the node it was, and runs in float. ``moves`` only put values elsewhere, so
they take codes as they take floats.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Container
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from ..nn.registry import has_hooks
from . import net_steps as steps
from .guards import runs_own_forward
from .net_pools import (
    Arguments,
    adaptive_avg,
    adaptive_max,
    avg_pool,
    form_of_pool_module,
    max_pool,
    mean,
)
from .net_steps import NONE, Act
from .net_trace import part_of

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_RELU6 = Act("clamp", 0.0, 6.0)


class Shapes(fx.Interpreter):
    """Runs a graph and leaves at each node the shape of its float tensor, None for all else."""

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        is_float = isinstance(value, Tensor) and value.is_floating_point()
        n.meta["shape"] = tuple(value.shape) if is_float else None
        return value


def rewrite_as_steps(graph: fx.Graph, model: nn.Module, layers: Container[str]) -> None:
    """In place; the nodes know their shapes (``Shapes``), and the new ones take them over.

    ``layers``: paths of those convolutions and Linears that become steps.
    """
    for node in list(graph.nodes):
        if node.meta.get("shape") is None:
            continue
        form = (
            _form_of_module(node, model, layers)
            if node.op == "call_module"
            else _form_of_call(node)
        )
        if form is not None:
            _exchange(node, *form)


def _exchange(node: fx.Node, step: Callable[..., Any], arguments: Arguments) -> None:
    with node.graph.inserting_before(node):
        shape = node.meta["shape"]
        flat = len(shape) == 3 and step in (steps.pool, steps.adaptive_pool)
        if flat:  # [N, C, L] as one row of an image
            arguments = (_move(node, torch.unsqueeze, arguments[0], 2), *arguments[1:])
        new = node.graph.call_function(step, arguments)
        new.meta["shape"] = (*shape[:2], 1, shape[2]) if flat else shape
        if flat:
            new = _move(node, torch.squeeze, new, 2)
            new.meta["shape"] = shape
    node.replace_all_uses_with(new)
    node.graph.erase_node(node)


def _move(node: fx.Node, function: Any, x: fx.Node, dim: int) -> fx.Node:
    new = node.graph.call_function(function, (x, dim))
    n, c, length = (x.meta["shape"] * 2)[:3]
    new.meta["shape"] = (n, c, 1, length)
    return new


def _form_of_module(
    node: fx.Node, model: nn.Module, layers: Container[str]
) -> tuple[Any, Arguments] | None:
    module = part_of(node, model)
    assert module is not None
    if has_hooks(module) or not runs_own_forward(module):
        return None
    if len(node.args) != 1 or node.kwargs or not isinstance(node.args[0], fx.Node):
        return None
    x = node.args[0]
    if node.target in layers:
        return steps.layer, (_reference(node), x, None, NONE)
    if type(module) in NORMS and module.running_mean is not None:
        return steps.norm, (_reference(node), x)
    act = _act_of_module(node, module)
    if act is not None:
        return steps.activate, (x, act)
    return form_of_pool_module(x, module)


def _reference(node: fx.Node, name: str = "") -> fx.Node:
    with node.graph.inserting_before(node):
        return node.graph.create_node("get_attr", str(node.target) + name)


def _act_of_module(node: fx.Node, module: nn.Module | None) -> Act | None:
    if type(module) is nn.Hardtanh:
        return Act("clamp", float(module.min_val), float(module.max_val))
    if type(module) is nn.LeakyReLU:
        return Act("leaky_relu", slope=float(module.negative_slope))
    if type(module) is nn.GELU:
        return _gelu_of(module.approximate)
    if type(module) is nn.PReLU:
        return Act("leaky_relu", slope=_reference(node, ".weight"))
    plain = {nn.ReLU: Act("relu"), nn.ReLU6: _RELU6, nn.SiLU: Act("silu")}
    return {**plain, nn.Hardswish: Act("hardswish")}.get(type(module))  # type: ignore[arg-type]


def _form_of_call(node: fx.Node) -> tuple[Any, Arguments] | None:
    if node.op not in ("call_function", "call_method"):
        return None
    name = node.target if node.op == "call_method" else _NAMES.get(node.target)
    form = _FORMS.get(str(name))
    if form is None or not node.args:
        return None
    first = node.args[0]
    if name != "cat" and not (isinstance(first, fx.Node) and first.meta.get("shape")):
        return None
    kwargs = {key: value for key, value in node.kwargs.items() if key != "inplace"}
    try:
        return form(*node.args, **kwargs)
    except TypeError:  # other arguments than a form has
        return None


def _clamp(x: fx.Node, min: Any = None, max: Any = None) -> tuple[Any, Arguments] | None:
    given = [one for one in (min, max) if one is not None]
    if not all(isinstance(one, (int, float)) for one in given):
        return None
    if max is None and min == 0:
        return steps.activate, (x, Act("relu"))
    low = float("-inf") if min is None else float(min)
    high = float("inf") if max is None else float(max)
    return steps.activate, (x, Act("clamp", low, high))


def _plain(name: str) -> Callable[..., tuple[Any, Arguments]]:
    return lambda input: (steps.activate, (input, Act(name)))


def _gelu_of(approximate: Any) -> Act | None:
    name = {"none": "gelu", "tanh": "gelu_tanh"}.get(approximate)
    return None if name is None else Act(name)


def _gelu(input: fx.Node, approximate: Any = "none") -> tuple[Any, Arguments] | None:
    act = _gelu_of(approximate)
    return None if act is None else (steps.activate, (input, act))


def _leaky(input: fx.Node, negative_slope: float = 0.01) -> tuple[Any, Arguments]:
    return steps.activate, (input, Act("leaky_relu", slope=float(negative_slope)))


def _hardtanh(input: fx.Node, min_val: float = -1.0, max_val: float = 1.0) -> Any:
    return steps.activate, (input, Act("clamp", float(min_val), float(max_val)))


def _add(input: fx.Node, other: Any) -> tuple[Any, Arguments] | None:
    if not isinstance(other, fx.Node) or other.meta.get("shape") != input.meta["shape"]:
        return None
    return steps.add, (input, other, NONE)


def _cat(tensors: Any, dim: int = 0) -> tuple[Any, Arguments] | None:
    nodes = isinstance(tensors, (list, tuple)) and all(
        isinstance(one, fx.Node) and one.meta.get("shape") for one in tensors
    )
    return (steps.concat, (tuple(tensors), dim)) if nodes and type(dim) is int else None


def _view(input: fx.Node, *shape: Any) -> tuple[Any, Arguments]:
    """Codes may be channels_last where the float tensor was not, so a view may need a copy."""
    sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], (list, tuple)) else shape
    return torch.reshape, (input, tuple(sizes))


_FORMS: dict[str, Callable[..., tuple[Any, Arguments] | None]] = {
    "relu": _plain("relu"),
    "relu6": lambda input: (steps.activate, (input, _RELU6)),
    "gelu": _gelu,
    "silu": _plain("silu"),
    "hardswish": _plain("hardswish"),
    "hardtanh": _hardtanh,
    "leaky_relu": _leaky,
    "clamp": _clamp,
    "add": _add,
    "cat": _cat,
    "mean": mean,
    "max_pool": max_pool,
    "avg_pool": avg_pool,
    "adaptive_avg_pool": adaptive_avg,
    "adaptive_max_pool": adaptive_max,
    "view": _view,
    "reshape": _view,
}
_NAMES: dict[Any, str] = {
    torch.relu: "relu",
    F.relu: "relu",
    F.relu6: "relu6",
    F.gelu: "gelu",
    F.silu: "silu",
    F.hardswish: "hardswish",
    F.hardtanh: "hardtanh",
    F.leaky_relu: "leaky_relu",
    torch.clamp: "clamp",
    operator.add: "add",
    torch.add: "add",
    torch.cat: "cat",
    torch.concat: "cat",
    torch.mean: "mean",
    F.max_pool1d: "max_pool",
    F.max_pool2d: "max_pool",
    torch.max_pool1d: "max_pool",
    torch.max_pool2d: "max_pool",
    F.avg_pool1d: "avg_pool",
    F.avg_pool2d: "avg_pool",
    F.adaptive_avg_pool1d: "adaptive_avg_pool",
    F.adaptive_avg_pool2d: "adaptive_avg_pool",
    F.adaptive_max_pool1d: "adaptive_max_pool",
    F.adaptive_max_pool2d: "adaptive_max_pool",
}
