"""Joining the steps of a lowered net: each run of steps becomes one call of ``run_net``."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from ..ops import NetProgram
from ..ops.epilogue import CONV_ACTIVATIONS, OUT_DTYPES
from . import net_calls as calls
from . import net_steps as steps
from .net_run import Layer, NetRun
from .net_trace import drop_unread, part_of

_TINY, _HUGE = torch.finfo(torch.float32).tiny, torch.finfo(torch.float32).max
_FLOATS = calls.out_of(None)
_HOMOGENEOUS = ("none", "relu", "clamp", "leaky_relu")


class _Owner:
    """Stands for the module that owns a graph in the arguments of its nodes."""

    def __repr__(self) -> str:
        return "self"  # as the graph's source calls it


def join_runs(graph: fx.Graph, model: nn.Module) -> list[int]:
    """In place, for a graph that ``lower`` made; the number of steps of each run.

    A run is two or more steps that follow one another; convolutions of rows, and moves other than
    flattening, end it. What is read outside a run is an output of it.
    """
    runs: list[list[fx.Node]] = [[]]
    for node in graph.nodes:
        if node.op in ("get_attr", "placeholder") or node.target is calls.constant:
            continue
        if _joins(node, model):
            runs[-1].append(node)
        elif runs[-1]:
            runs.append([])
    runs = [run for run in runs if len(run) > 1]
    for number, run in enumerate(runs):
        _Joining(graph, model, f"run_{number}").replace(run)
    drop_unread(graph)
    graph.lint()
    return [len(run) for run in runs]


def _joins(node: fx.Node, model: nn.Module) -> bool:
    if node.meta.get("floats"):
        return True
    if not node.meta.get("int8"):
        return False
    if node.target is calls.linear:
        return len(node.args[1].meta["shape"]) not in (0, 4)  # type: ignore[union-attr]
    return node.target in _ADDS or node.target is torch.clamp or flattens(node, model)


def flattens(node: fx.Node, model: nn.Module) -> bool:
    """Whether all dimensions but the first become one."""
    x: Any = node.args[0] if node.args else None
    if not isinstance(x, fx.Node) or len(x.meta.get("shape") or ()) < 2:
        return False
    module = part_of(node, model)
    if module is not None:
        dims: Any = (getattr(module, "start_dim", None), getattr(module, "end_dim", None))
        return type(module) is nn.Flatten and bool(dims == (1, -1))
    if node.target is not torch.flatten and (node.op, node.target) != ("call_method", "flatten"):
        return False
    given = dict(zip(("start_dim", "end_dim"), node.args[1:], strict=False)) | node.kwargs
    return bool(given.get("start_dim", 0) == 1 and given.get("end_dim", -1) == -1)


class _Joining:
    """One run becoming one call."""

    def __init__(self, graph: fx.Graph, model: nn.Module, name: str) -> None:
        self.graph, self.model, self.name = graph, model, name
        self.registers: dict[fx.Node, int] = {}
        self.layers: list[dict[str, Any]] = []
        self.slopes: list[fx.Node] = []

    def replace(self, run: list[fx.Node]) -> None:
        inside = set(run)
        inputs: dict[fx.Node, None] = {}
        for node in run:
            for one in node.all_input_nodes:
                if one not in inside and one.op != "get_attr" and one.target is not calls.constant:
                    inputs[one] = None
        self.program = NetProgram(len(inputs))
        self.registers.update({one: i for i, one in enumerate(inputs)})
        for node in run:
            self.registers[node] = self._add(node)
        outputs = [node for node in run if any(user not in inside for user in node.users)]
        self.program.returns(*(self.registers[node] for node in outputs))
        count = len(inputs)
        layers = tuple(
            Layer(**one | {"slope": count + one["slope"] if one["slope"] >= 0 else -1})
            for one in self.layers
        )
        target: Any = NetRun(self.program, layers, self.name)
        owner: Any = _Owner()
        with self.graph.inserting_after(run[-1]):
            call = self.graph.call_function(target, (owner, *inputs, *self.slopes))
        for i, node in reversed(list(enumerate(outputs))):
            with self.graph.inserting_after(call):
                one = self.graph.call_function(operator.getitem, (call, i))
            one.meta.update(node.meta)
            node.replace_all_uses_with(one, delete_user_cb=lambda user: user not in inside)

    def _add(self, node: fx.Node) -> int:
        if node.target in _ADDS:
            return _ADDS[node.target](self, *node.args)
        x: Any = node.args[0]
        if node.target is torch.clamp:
            _, low, high = node.args
            return self.program.clamp(self.registers[x], low, high)  # type: ignore[arg-type]
        return self.program.flatten(self.registers[x])

    def slope(self, slope: fx.Node | None) -> int:
        """Its place among the slopes of the call."""
        if slope is None:
            return -1
        self.slopes.append(slope)
        return len(self.slopes) - 1

    def layer(
        self, path: str, at: Any, act: str, out: Any, slope: int, rest: list[float] | None
    ) -> None:
        """Notes a layer whose numbers come next. ``rest``: those between its two scales, divided
        by the scale of what it makes; None where that cannot be."""
        module: Any = self.model.get_submodule(path)
        dtype, out_scale, _ = out
        folded = None
        if dtype == calls.CODES and act in _HOMOGENEOUS and rest is not None:
            folded = (1.0, *rest, 1.0)
        self.layers.append(
            {
                "path": path,
                "numbers": len(self.program.numbers),
                "bias": module._buffers["bias"] is not None,
                "slope": slope,
                "folded": folded,
                "ratio": at[0] / out_scale,
                "out_scale": out_scale,
            }
        )


def _to(out: Any) -> tuple[torch.dtype, float, int]:
    return OUT_DTYPES[out[0]], out[1], out[2]


def _act(act: Any) -> dict[str, Any]:
    return {"activation": CONV_ACTIVATIONS[act[0]], "low": act[1], "high": act[2]}


def _quantize(j: _Joining, x: fx.Node, scale: float, zero_point: int) -> int:
    return j.program.quantize(j.registers[x], (torch.uint8, scale, zero_point))


def _dequantize(j: _Joining, x: fx.Node, scale: float, zero_point: int) -> int:
    return j.program.dequantize(j.registers[x], (scale, zero_point))


def _conv(
    j: _Joining,
    reference: fx.Node,
    x: fx.Node,
    at: Any,
    residual: fx.Node | None,
    residual_at: Any,
    act: Any,
    slope: fx.Node | None,
    out: Any,
) -> int:
    path = str(reference.target)
    module: Any = j.model.get_submodule(path)
    how = _act(act)
    place = j.slope(slope)
    bounds = [n / out[1] if how["activation"] == "clamp" else n for n in act[1:]]
    shortcut = 1.0 if residual is None else residual_at[0] / out[1]
    fits = _TINY <= shortcut <= _HUGE and all(abs(n) <= _HUGE or math.isinf(n) for n in bounds)
    rest = [shortcut, *bounds] if fits else None
    j.layer(path, at, how["activation"], out, place, rest)
    return j.program.conv(
        j.registers[x],
        at,
        module.packed.shape,
        stride=module.stride,
        padding=module.padding,
        dilation=module.dilation,
        bias=module._buffers["bias"] is not None,
        residual=None if residual is None else j.registers[residual],
        residual_at=residual_at,
        out=_to(out),
        **how,
    )


def _float_conv(
    j: _Joining,
    reference: fx.Node,
    x: fx.Node,
    residual: fx.Node | None,
    act: Any,
    slope: fx.Node | None,
) -> int:
    path = str(reference.target)
    module: Any = j.model.get_submodule(path)
    how, bias = _act(act), module._buffers["bias"] is not None
    j.layer(path, (1.0, 0), how["activation"], _FLOATS, j.slope(slope), None)
    if module.rank == 0:
        return j.program.float_linear(
            j.registers[x], module.packed.n, bias=bias, activation=how["activation"]
        )
    return j.program.float_conv(
        j.registers[x],
        module.packed.shape,
        stride=module.stride,
        padding=module.padding,
        dilation=module.dilation,
        bias=bias,
        residual=None if residual is None else j.registers[residual],
        **how,
    )


def _linear(j: _Joining, reference: fx.Node, x: fx.Node, act: str, out: Any) -> int:
    path = str(reference.target)
    module: Any = j.model.get_submodule(path)
    at = (module.input_scale, module.input_zero_point)
    j.layer(path, at, act, out, -1, [])
    bias = module._buffers["bias"] is not None
    n = module.packed.n
    return j.program.linear(j.registers[x], at, n, bias=bias, activation=act, out=_to(out))


def _add(j: _Joining, a: fx.Node, b: fx.Node, at: Any, act: Any, out: Any) -> int:
    r = j.registers
    return j.program.add(r[a], at[:2], r[b], at[2:], out=_to(out), **_act(act))


def _concat(
    j: _Joining, xs: list[fx.Node], scales: list[float], points: list[int], dim: int, out: Any
) -> int:
    ats = list(zip(scales, points, strict=True))
    return j.program.concat([j.registers[x] for x in xs], ats, dim, _to(out))


def _pool(j: _Joining, x: fx.Node, how: Any, at: Any, out: Any) -> int:
    kind, kernel, stride, (height, width), dilation, ceil_mode, include, divisor = how
    padding = [height, height, width, width]
    window = (kernel, stride, padding, dilation, ceil_mode, include, divisor)
    return j.program.pool(j.registers[x], at, kind, *window, _to(out))


def _adaptive_pool(j: _Joining, x: fx.Node, kind: int, size: Any, at: Any, out: Any) -> int:
    return j.program.adaptive_pool(j.registers[x], at, kind, size, _to(out))


def _float_pool(j: _Joining, x: fx.Node, kind: int, *how: Any) -> int:
    return j.program.float_pool(j.registers[x], kind, *how)


def _float_adaptive_pool(j: _Joining, x: fx.Node, kind: int, size: Any) -> int:
    return j.program.float_adaptive_pool(j.registers[x], kind, size)


_ADDS: dict[Any, Callable[..., int]] = {
    calls.quantize: _quantize,
    calls.dequantize: _dequantize,
    calls.conv: _conv,
    calls.linear: _linear,
    calls.add: _add,
    calls.concat: _concat,
    calls.pool: _pool,
    calls.adaptive_pool: _adaptive_pool,
    calls.float_conv: _float_conv,
    steps.pool: _float_pool,
    steps.adaptive_pool: _float_adaptive_pool,
}
