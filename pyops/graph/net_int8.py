"""Exchanging the steps of a net for steps on codes, once every edge has its scale."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn

from . import net_calls as calls
from . import net_steps as steps
from .net_calls import At, act_of, out_of
from .net_edges import Edges, reads_sizes
from .net_fold import path_of
from .net_trace import drop_unread


def lower(graph: fx.Graph, model: nn.Module, edges: Edges, at: Mapping[str, At]) -> None:
    """In place. ``at``: scale and zero point by the owner's name (``Edges.names``).

    ``model`` holds the int8 layers already. Floats that somebody takes as codes are quantized where
    they are made, codes that somebody takes as floats are dequantized behind the step.
    """
    _Lowering(graph, model, edges, at).run()


class _Lowering:
    def __init__(
        self, graph: fx.Graph, model: nn.Module, edges: Edges, at: Mapping[str, At]
    ) -> None:
        self.graph = graph
        self.model = model
        self.edges = edges
        self.at = {node: _plain(at[edges.names[owner]]) for node, owner in edges.owner.items()}
        self.as_codes: dict[fx.Node, fx.Node] = {}
        self.as_floats: dict[fx.Node, fx.Node] = {}

    def run(self) -> None:
        for node in list(self.graph.nodes):
            self._rewrite(node)
        drop_unread(self.graph)
        self.graph.lint()

    def _rewrite(self, node: fx.Node) -> None:
        """Makes the node's codes and floats, whichever are read, from those of what it reads."""
        if node.op == "get_attr":
            return
        if node not in self.edges.steps8:
            if node.op != "placeholder":
                node.args = fx.map_arg(node.args, lambda one: self._floats(one, node))
                node.kwargs = fx.map_arg(node.kwargs, lambda one: self._floats(one, node))
            self.as_floats[node] = node
            return
        with self.graph.inserting_before(node):
            new = self._step(node)
        _is_step(new, node)
        (self.as_codes if node in self.edges.codes else self.as_floats)[node] = new

    def _after(self, node: fx.Node) -> Any:
        """A place behind the node, and behind all inputs of the graph."""
        last = node
        while last.next.op == "placeholder":
            last = last.next
        return self.graph.inserting_after(last)

    def _codes(self, node: fx.Node) -> fx.Node:
        if node not in self.as_codes:
            with self._after(node):
                new = self.graph.call_function(calls.quantize, (node, *self.at[node]))
            _is_step(new, node)
            self.as_codes[node] = new
        return self.as_codes[node]

    def _floats(self, node: fx.Node, reader: fx.Node) -> fx.Node:
        if node not in self.as_floats and node not in self.as_codes:
            return node  # no tensor, or a parameter
        if reads_sizes(reader) and node in self.as_codes:
            return self.as_codes[node]
        if node not in self.as_floats:
            codes = self.as_codes[node]
            with self._after(codes):
                new = self.graph.call_function(calls.dequantize, (codes, *self.at[node]))
            _is_step(new, node)
            self.as_floats[node] = new
        return self.as_floats[node]

    def _out(self, node: fx.Node) -> tuple[int, float, int]:
        return out_of(self.at.get(node) if node in self.edges.codes else None)

    def _step(self, node: fx.Node) -> fx.Node:
        call = self.graph.call_function
        args: Any = node.args
        if node.target is steps.layer:
            return self._layer(node)
        if node.target is steps.add:
            a, b, act = args
            at = (*self.at[a], *self.at[b])
            operands = (self._codes(a), self._codes(b))
            return call(calls.add, (*operands, at, act_of(act), self._out(node)))
        if node.target is steps.concat:
            xs, dim = args
            scales, points = zip(*(self.at[x] for x in xs), strict=True)
            parts = [self._codes(x) for x in xs]
            return call(calls.concat, (parts, list(scales), list(points), dim, self._out(node)))
        if node.target is steps.pool:
            x, *how = args
            return call(calls.pool, (self._codes(x), how, self.at[x], self._out(node)))
        if node.target is steps.adaptive_pool:
            x, kind, size = args
            arguments = (self._codes(x), kind, list(size), self.at[x], self._out(node))
            return call(calls.adaptive_pool, arguments)
        if node.target is steps.activate:
            x, act = args
            return call(torch.clamp, (self._codes(x), *_limits(act, self.at[x])))
        return self.graph.node_copy(node, self._operand_of_move)

    def _operand_of_move(self, node: fx.Node) -> fx.Node:
        return self._codes(node) if node in self.edges.codes else node

    def _layer(self, node: fx.Node) -> fx.Node:
        _, x, residual, act = node.args
        module = self.model.get_submodule(path_of(node))
        reference = self.graph.create_node("get_attr", path_of(node))
        assert isinstance(x, fx.Node)
        act_name: Any = act
        if not hasattr(module, "stride"):
            arguments = (reference, self._codes(x), act_name[0], self._out(node))
            return self.graph.call_function(calls.linear, arguments)
        other: Any = residual
        taken = (None, (1.0, 0)) if other is None else (self._codes(other), self.at[other])
        slope = self._slope(act_name[3])
        rest = (*taken, act_of(act_name), slope, self._out(node))
        rows = len(node.meta["shape"]) == 3
        function = calls.conv_of_rows if rows else calls.conv
        return self.graph.call_function(function, (reference, self._codes(x), self.at[x], *rest))

    def _slope(self, slope: Any) -> Any:
        if slope is None:
            return None
        if isinstance(slope, fx.Node):
            return self.graph.create_node("get_attr", str(slope.target))
        return self.graph.call_function(calls.constant, (slope,))


def _is_step(new: fx.Node, old: fx.Node) -> None:
    """Marks a step on codes, which ``net_join.py`` may join with others."""
    new.meta.update(int8=True, shape=old.meta.get("shape"))


def _plain(at: At) -> At:
    """Numbers that a graph's source can hold."""
    return float(at[0]), int(at[1])


def _limits(act: Any, at: At) -> tuple[int, int]:
    """The codes between which an activation leaves codes as they are."""
    scale, zero_point = at
    low, high = (0.0, math.inf) if act[0] == "relu" else (act[1], act[2])
    ends = (max(0.0, low / scale + zero_point), min(255.0, high / scale + zero_point))
    return min(255, round(ends[0])), max(0, round(ends[1]))
