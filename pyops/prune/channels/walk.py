"""Follows channels through a model's graph, from the layers that make them to those that read them.

A value has one dimension that is followed: that of the channels of the layer before it. What a
call does with it is a rule (``rules.py``, ``reshapes.py``); a call without one keeps all channels
that reach it. The idea of groups of layers that can only be pruned together, found on the graph, is
that of Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023 (arXiv:2301.12900).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, fx, nn

from ...graph.guards import runs_own_forward
from ...graph.net_trace import part_of
from ...nn.registry import has_hooks
from .atoms import Atoms, Ids
from .layers import KINDS, count_of, depthwise, tensors_in, why_whole


@dataclass(frozen=True)
class Channels:
    """A tensor whose dimension ``dim`` holds these atoms in this order."""

    dim: int
    atoms: Ids


@dataclass(frozen=True)
class Sizes:
    """A tensor's shape, whose item ``dim`` is the number of these channels."""

    dim: int
    atoms: Ids


@dataclass(frozen=True)
class Count:
    """The number of these channels."""

    atoms: Ids


Value = Channels | Sizes | Count | None


class KeptError(Exception):
    """A call of which no smaller version is known: why its inputs keep their channels."""


Rule = Callable[["Walk", fx.Node], Value]
_RULES: dict[Any, tuple[Rule, bool]] = {}


def rule(*calls: Any, reads_sizes: bool = False) -> Callable[[Rule], Rule]:
    """Registers what these calls do with channels.

    ``calls``: classes of modules, functions, and names of methods. ``reads_sizes``: whether it
    knows what to do with a number of channels among its arguments.
    """

    def register(function: Rule) -> Rule:
        for call in calls:
            if call in _RULES:
                raise AssertionError(f"{call} has two rules")
            _RULES[call] = function, reads_sizes
        return function

    return register


class Walk:
    """``shapes``: of each node's tensor; nodes that are no tensors are not in it."""

    def __init__(
        self,
        model: nn.Module,
        graphs: Sequence[fx.Graph],
        shapes: Mapping[fx.Node, tuple[int, ...]],
    ) -> None:
        self.model = model
        self.shapes = shapes
        self.atoms = Atoms()
        self.values: dict[fx.Node, Value] = {}
        self.paths = {id(module): path for path, module in model.named_modules()}
        self._slots: dict[int, dict[str, Ids]] = {}
        for graph in graphs:  # a layer in several of them has one input and one output
            for node in graph.nodes:
                self.values[node] = self._visit(node)
        self._tie_shared_tensors()

    def slots(self) -> list[tuple[str, str, Ids]]:
        """(path, axis, atoms) of each side of each layer that runs."""
        modules = dict(self.model.named_modules())
        found = ((path, self._slots.get(id(module))) for path, module in modules.items())
        return [(path, axis, ids) for path, one in found if one for axis, ids in one.items()]

    def slot(self, module: nn.Module, axis: str) -> Ids:
        """The atoms of one side of a layer, the same at each of its calls."""
        if id(module) not in self._slots:
            self._slots[id(module)] = self._new_slots(module)
        return self._slots[id(module)][axis]

    def channels(self, node: Any) -> Channels | None:
        """What is followed in a tensor."""
        value = self.values.get(node) if isinstance(node, fx.Node) else None
        return value if isinstance(value, Channels) else None

    def shape(self, node: Any) -> tuple[int, ...]:
        """A tensor's shape.

        Raises:
            KeptError: it is no tensor.
        """
        if not isinstance(node, fx.Node) or node not in self.shapes:
            raise KeptError(f"{self.name(node)} is not a tensor")
        return self.shapes[node]

    def name(self, node: Any) -> str:
        """What a node calls, in the words of an error."""
        if not isinstance(node, fx.Node):
            return repr(node)
        part = part_of(node, self.model)
        if part is not None:
            return f"{node.target} ({type(part).__name__})"
        return str(getattr(node.target, "__name__", node.target))

    def _new_slots(self, module: nn.Module) -> dict[str, Ids]:
        counts = {axis: count_of(module, axis) for axis in KINDS[type(module)].counts}
        slots = {axis: self.atoms.new(count) for axis, count in counts.items()}
        why = why_whole(module)
        groups = int(getattr(module, "groups", 1))
        for ids in slots.values():
            if why is not None:
                self.atoms.keep(ids, f"{self.paths[id(module)]} {why}")
            if groups > 1 and not depthwise(module):  # each of its groups loses the same channels
                first, *others = np.split(ids, groups)
                for other in others:
                    self.atoms.tie(first, other)
        if depthwise(module):
            self.atoms.tie(np.repeat(slots["in"], counts["out"] // counts["in"]), slots["out"])
        return slots

    def _visit(self, node: fx.Node) -> Value:
        if node.op == "placeholder":
            return None
        if node.op == "get_attr":
            self._keep_read(node)
            return None
        if node.op == "output":
            self._keep_inputs(node, "they are the model's output")
            return None
        try:
            value = self._apply(node)
        except KeptError as error:
            self._keep_inputs(node, str(error))
            part = part_of(node, self.model)
            if part is not None and type(part) in KINDS:
                for axis in KINDS[type(part)].counts:
                    self.atoms.keep(self.slot(part, axis), str(error))
            return None
        size = self.shapes[node][value.dim] if isinstance(value, Channels) else 0
        if isinstance(value, Channels) and len(value.atoms) != size:
            raise AssertionError(f"{self.name(node)}: {len(value.atoms)} channels of {size}")
        return value

    def _apply(self, node: fx.Node) -> Value:
        part = part_of(node, self.model)
        if part is not None and (has_hooks(part) or not runs_own_forward(part)):
            raise KeptError(f"{self.name(node)} has hooks or a forward of its own")
        if not node.args:
            raise KeptError(f"{self.name(node)} is called with keywords alone")
        found, reads_sizes = _RULES.get(node.target if part is None else type(part), (None, False))
        sizes = [n for n in node.all_input_nodes if isinstance(self.values[n], (Count, Sizes))]
        if sizes and not reads_sizes:
            raise KeptError(f"{self.name(node)} computes with their number")
        if found is None:
            raise KeptError(f"they reach {self.name(node)}, of which no smaller version is known")
        return found(self, node)

    def _keep_inputs(self, node: fx.Node, reason: str) -> None:
        for one in node.all_input_nodes:
            value = self.values[one]
            if value is not None:
                self.atoms.keep(value.atoms, reason)

    def _keep_read(self, node: fx.Node) -> None:
        """A graph that reads a layer's tensor itself needs it as it is."""
        owner, _, name = str(node.target).rpartition(".")
        try:
            tensor = getattr(self.model.get_submodule(owner), name)
        except AttributeError:
            return
        for module in self.model.modules():
            if type(module) in KINDS and any(one is tensor for one in tensors_in(module).values()):
                for axis in KINDS[type(module)].counts:
                    reason = f"the model reads {node.target} itself"
                    self.atoms.keep(self.slot(module, axis), reason)

    def _tie_shared_tensors(self) -> None:
        """Layers with one tensor for both lose the same channels; other owners keep it whole."""
        owners: dict[int, list[tuple[nn.Module, str]]] = {}
        tensors: dict[int, Tensor] = {}
        for module in self.model.modules():
            for name, tensor in tensors_in(module).items():
                owners.setdefault(id(tensor), []).append((module, name))
                tensors[id(tensor)] = tensor
        for shared in owners.values():
            if len(shared) > 1:
                self._tie_owners(shared)

    def _tie_owners(self, shared: list[tuple[nn.Module, str]]) -> None:
        ours = [module for module, _ in shared if id(module) in self._slots]
        axes = [
            tuple(
                (axis, self._slots[id(module)][axis].shape, getattr(module, "groups", 1))
                for axis in KINDS[type(module)].tensors.get(name, ())
            )
            for module, name in shared
            if id(module) in self._slots
        ]
        alike = len(ours) == len(shared) and len(set(axes)) == 1
        for module in ours:
            if not alike:
                path = self.paths[id(module)]
                for ids in self._slots[id(module)].values():
                    self.atoms.keep(ids, f"{path} shares a tensor with another kind of user")
                continue
            for axis, _, _ in axes[0]:
                self.atoms.tie(self._slots[id(ours[0])][axis], self._slots[id(module)][axis])
