"""Merging steps: batch norms into weights, activations and sums into the layers before them."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..ops.epilogue import ACTIVATIONS
from . import net_steps as steps
from .net_steps import NONE
from .regions import Notes

_OF_ADD = ("none", "relu", "clamp")


class Folded(nn.Identity):
    """Where a batch norm was: its numbers are in the weights of the layer before it."""

    def __init__(self, into: str, before: str) -> None:
        """``into``: that layer's path. ``before``: the norm's class name."""
        super().__init__()
        self.into = into
        self.before = before

    def extra_repr(self) -> str:
        return self.into


def fold_norms(graph: fx.Graph, model: nn.Module) -> dict[str, str]:
    """conv -> norm and linear -> norm become one layer, with other weights; {norm: layer}.

    ``w' = w * g, b' = (b - mean) * g + beta`` with ``g = gamma / sqrt(var + eps)``, in float64,
    rounded once. A layer or a norm that is called more than once stays, and so do tied weights. The
    layers' parameters are exchanged, not written to; the norms are still in ``model``.
    """
    calls = Counter(
        path_of(node) for node in graph.nodes if node.target in (steps.layer, steps.norm)
    )
    owners = Counter(
        id(p) for m in model.modules() for p in m._parameters.values() if p is not None
    )
    folded: dict[str, str] = {}
    for node in list(graph.nodes):
        before: Any = node.args[1] if node.target is steps.norm else None
        if before is None or before.target is not steps.layer or len(before.users) > 1:
            continue
        layer, norm = path_of(before), path_of(node)
        module = model.get_submodule(layer)
        ties = any(owners[id(p)] > 1 for p in module._parameters.values() if p is not None)
        of_rows = isinstance(module, nn.Linear) and len(before.meta["shape"]) != 2
        if (
            calls[layer] > 1
            or calls[norm] > 1
            or ties
            or of_rows
            or before.args[2:] != (None, NONE)
        ):
            continue
        fold_norm(module, model.get_submodule(norm))
        node.replace_all_uses_with(before)
        graph.erase_node(node)
        folded[norm] = layer
    return folded


def path_of(node: fx.Node) -> str:
    """The path of the module that a layer or norm step calls."""
    reference = node.args[0]
    assert isinstance(reference, fx.Node)
    return str(reference.target)


def fold_norm(layer: nn.Module, norm: Any) -> None:
    """Gives the layer a new weight and bias, those that it has with the norm behind it."""
    weight: Tensor = layer.weight.detach()  # type: ignore[operator]
    gain = torch.rsqrt(norm.running_var.double() + norm.eps)
    if norm.weight is not None:
        gain = gain * norm.weight.detach().double()
    bias = torch.zeros_like(gain) if layer.bias is None else layer.bias.detach().double()  # type: ignore[operator]
    bias = (bias - norm.running_mean.double()) * gain
    if norm.bias is not None:
        bias = bias + norm.bias.detach().double()
    scaled = weight.double() * gain.reshape(-1, *[1] * (weight.dim() - 1))
    layer.weight = nn.Parameter(scaled.to(weight.dtype), requires_grad=False)
    layer.bias = nn.Parameter(bias.to(weight.dtype), requires_grad=False)


def fuse_steps(graph: fx.Graph, model: nn.Module) -> Notes:
    """layer (+ sum) (+ activation) and sum + activation; what was fused, by the layer's path.

    Only where nothing else reads what comes between. Of two layers that are summed, the later in
    the graph takes the sum.
    """
    notes: Notes = defaultdict(list)
    for node in reversed(list(graph.nodes)):
        if node.target is steps.layer and len(node.users) == 1:
            _fuse_sum(node, model, notes)
    for node in list(graph.nodes):
        if node.target in (steps.layer, steps.add) and len(node.users) == 1:
            _fuse_activation(node, model, notes)
    return dict(notes)


def _only_user(node: fx.Node) -> fx.Node:
    return next(iter(node.users))


def _fuse_sum(node: fx.Node, model: nn.Module, notes: Notes) -> None:
    user = _only_user(node)
    if user.target is not steps.add or node.args[2:] != (None, NONE):
        return
    if isinstance(model.get_submodule(path_of(node)), nn.Linear):
        return
    left, right, _ = user.args
    other = right if left is node else left
    if other is node:  # y + y
        return
    notes[path_of(node)].append("residual")
    _merge(node, user, (*node.args[:2], other, NONE))


def _fuse_activation(node: fx.Node, model: nn.Module, notes: Notes) -> None:
    user = _only_user(node)
    if user.target is not steps.activate or node.args[-1] != NONE:
        return
    act: Any = user.args[1]
    if node.target is steps.add:
        if act[0] in _OF_ADD:
            _merge(node, user, (*node.args[:-1], act))
        return
    is_linear = isinstance(model.get_submodule(path_of(node)), nn.Linear)
    if is_linear and act[0] not in ACTIVATIONS:
        return
    notes[path_of(node)].append("relu6" if act[:3] == ("clamp", 0.0, 6.0) else act[0])
    _merge(node, user, (*node.args[:-1], act))


def _merge(node: fx.Node, user: fx.Node, arguments: tuple[Any, ...]) -> None:
    """The step with these arguments, in the place of its only reader: all operands are there."""
    with node.graph.inserting_before(user):
        new = node.graph.call_function(node.target, arguments)  # type: ignore[arg-type]
    new.meta["shape"] = user.meta["shape"]
    user.replace_all_uses_with(new)
    node.graph.erase_node(user)
    node.graph.erase_node(node)
