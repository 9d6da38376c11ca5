"""Regions: int8 layers and norms that run as one call, because each takes its rows by themselves.

A region is a set of such nodes. It grows in the order of the graph: a node joins the region that
makes what it reads, or that reads what it reads. The region's call takes the place of the first
node outside that reads from it, so a node may join only if all that it needs from outside is there
by then. That keeps every other node where it is, and no path can leave a region and come back.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import fx, nn

from ..nn.int8_linear import Int8Linear
from ..ops.epilogue import ACTIVATION_CODE
from ..ops.int8_gemm_rows_reference import LINEAR
from . import calls
from .norms import Norm

# Relative path of an int8 layer -> what runs in its call.
Notes = dict[str, list[str]]


def layer_path(node: fx.Node) -> str:
    """The path of the layer that a ``calls.linear`` node calls."""
    reference = node.args[0]
    assert isinstance(reference, fx.Node)
    return str(reference.target)


@dataclass
class _Step:
    """A node of a region. ``sources``: x, residual and gate, as they were before any rewrite."""

    node: fx.Node
    width: int
    sources: tuple[fx.Node | None, ...]
    depth: int  # the width of x; residual and gate have that of the result
    path: str | None = None  # of an int8 layer
    norm: Norm | None = None
    bias: bool = False

    @classmethod
    def of(cls, node: fx.Node, owner: nn.Module, norms: dict[fx.Node, Norm]) -> _Step | None:
        norm = norms.get(node)
        if norm is not None:
            return cls(node, norm.width, (norm.x, None, None), norm.width, norm=norm)
        if node.target is not calls.linear:
            return None
        layer = owner.get_submodule(layer_path(node))
        assert isinstance(layer, Int8Linear)
        _, x, residual, _, gate = node.args
        if not isinstance(x, fx.Node):
            return None
        sources: Any = (x, residual, gate)
        n, bias = layer.out_features, layer._buffers["bias"] is not None
        return cls(node, n, sources, layer.in_features, layer_path(node), None, bias)

    @property
    def wide(self) -> list[tuple[fx.Node, int]]:
        """The nodes that it reads, with the width that they must have."""
        widths = (self.depth, self.width, self.width)
        pairs = zip(self.sources, widths, strict=True)
        return [(source, width) for source, width in pairs if source is not None]

    @property
    def tensors(self) -> Iterator[fx.Node]:
        """Nodes that must be there when the call is made and that are not rows."""
        if self.norm is not None:
            yield from (one for one in (self.norm.weight, self.norm.bias) if one is not None)


@dataclass
class _Region:
    steps: list[_Step] = field(default_factory=list)

    def __contains__(self, node: fx.Node) -> bool:
        return any(step.node is node for step in self.steps)

    def takes(self, step: _Step, position: dict[fx.Node, int]) -> bool:
        """Whether the step can run in this region's call, whose other nodes stay where they are."""
        if step.path is not None and step.path in (own.path for own in self.steps):
            return False
        outside = dict(self.inputs)
        made = {own.node: own.width for own in self.steps}
        for source, width in step.wide:
            if (made[source] if source in made else outside.get(source, width)) != width:
                return False
        needed = [one for one, _ in step.wide if one not in made] + list(step.tensors)
        users = [user for own in self.steps for user in own.node.users if user not in made]
        call_at = min((position[user] for user in users if user is not step.node), default=None)
        return call_at is None or all(
            one.op == "get_attr" or position[one] < call_at for one in needed
        )

    @property
    def inputs(self) -> dict[fx.Node, int]:
        """What is read from outside, with its width."""
        return {source: w for step in self.steps for source, w in step.wide if source not in self}

    def pays(self) -> bool:
        layers = [step for step in self.steps if step.path is not None]
        gates = any(step.sources[2] is not None for step in layers)
        return bool(layers) and (len(self.steps) > 1 or gates)


def fuse_regions(
    graph: fx.Graph, owner: nn.Module, norms: dict[fx.Node, Norm], notes: Notes
) -> None:
    """Makes one call of every region with a layer and more than one node."""
    results: dict[fx.Node, fx.Node] = {}
    for region in _grow(graph, owner, norms):
        if region.pays():
            _note(region, notes)
            _emit(graph, region, results)
    for node in reversed(graph.nodes):
        if node.op == "get_attr" and not node.users:
            graph.erase_node(node)


def _grow(graph: fx.Graph, owner: nn.Module, norms: dict[fx.Node, Norm]) -> list[_Region]:
    position = {node: i for i, node in enumerate(graph.nodes)}
    regions: list[_Region] = []
    home: dict[fx.Node, _Region] = {}  # by a node that is read: the last region that has to do
    for node in graph.nodes:  # with it
        step = _Step.of(node, owner, norms)
        if step is None:
            continue
        for source, _ in step.wide:
            region = home.get(source)
            if region is not None and region.takes(step, position):
                break
        else:
            region = _Region()
            regions.append(region)
        region.steps.append(step)
        home[node] = home[step.wide[0][0]] = region
    return regions


def _readers(region: _Region, node: fx.Node) -> list[str]:
    """The layers that multiply what this node makes."""
    return [s.path for s in region.steps if s.path is not None and s.sources[0] is node]


def _note(region: _Region, notes: Notes) -> None:
    paths = [step.path for step in region.steps if step.path is not None]
    layers = {step.node: step.path for step in region.steps if step.path is not None}
    for step in region.steps:
        if step.norm is None:
            continue
        for path in (readers := _readers(region, step.node)):
            notes.setdefault(path, []).insert(0, f"{step.norm.name} + quantize")
        if not readers and step.norm.x in layers:
            notes.setdefault(layers[step.norm.x], []).append(step.norm.name)
    for path in paths:
        others = ", ".join(other for other in paths if other != path)
        if others:
            notes.setdefault(path, []).append(f"one call with {others}")


def _emit(graph: fx.Graph, region: _Region, results: dict[fx.Node, fx.Node]) -> None:
    """Puts the call in; ``results``: what stands for the nodes of calls that are in already."""
    inputs = list(region.inputs)
    register = {node: i for i, node in enumerate((*inputs, *(s.node for s in region.steps)))}
    users = {user for step in region.steps for user in step.node.users if user not in region}
    call_at = next((node for node in graph.nodes if node in users), None)
    if call_at is None:
        return
    outputs = [s for s in region.steps if any(user not in region for user in s.node.users)]
    with graph.inserting_before(call_at):

        def here(node: fx.Node | None) -> fx.Node | None:
            if node is None:
                return None
            node = results.get(node, node)
            attribute = node.op == "get_attr"
            return graph.create_node("get_attr", str(node.target)) if attribute else node

        parts = tuple(_part(step, here) for step in region.steps)
        program = [_integers(step, register) for step in region.steps]
        arguments: tuple[Any, ...] = (
            tuple(here(node) for node in inputs),
            parts,
            tuple(value for step in program for value in step),
            tuple(0.0 if step.norm is None else step.norm.eps for step in region.steps),
            tuple(register[step.node] for step in outputs),
            tuple(region.inputs.values()),
        )
        made = graph.call_function(calls.rows, arguments)
        for i, step in enumerate(outputs):
            results[step.node] = graph.call_function(operator.getitem, (made, i))
    for step in outputs:
        result = results[step.node]
        step.node.replace_all_uses_with(result, delete_user_cb=lambda user: user not in region)
    for step in reversed(region.steps):
        graph.erase_node(step.node)


def _part(step: _Step, here: Any) -> Any:
    if step.norm is None:
        return here(step.node.args[0])
    if step.norm.module is not None:
        return step.node.graph.create_node("get_attr", step.norm.module)
    return here(step.norm.weight), here(step.norm.bias), step.norm.form


def _integers(step: _Step, register: dict[fx.Node, int]) -> tuple[int, ...]:
    """The step as ``csrc/cpu/int8_gemm/rows.h`` has it."""
    if step.norm is not None:
        return step.norm.kind, register[step.norm.x], -1, -1, 0, step.norm.given
    operands = (-1 if source is None else register[source] for source in step.sources)
    activation: Any = step.node.args[3]
    return LINEAR, *operands, ACTIVATION_CODE[activation], int(step.bias)
