"""What can be fused around int8 layers: rewrites of one graph, in this order.

1. Dropout and Identity go (the model is in eval mode; int8 layers refuse train mode).
2. linear -> activation:               one call
3. linear -> (+ residual):             one call; an activation may follow the sum, not precede it
4. linears that read the same tensor:  one call, which quantizes that tensor once
5. linear -> linear:                   one call, block of rows by block of rows

Each rewrite needs the inner value to have a single reader. Results are those of the unfused layers
up to the rounding of the activation: the epilogue adds bias and residual in float32 in that order.
"""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from ..nn.int8_linear import Int8Linear
from . import calls
from .guards import runs_own_forward
from .simple_code import DROPOUTS
from .trace import containers

_ACTIVATION_FUNCTIONS: dict[Any, str] = {
    F.relu: "relu",
    torch.relu: "relu",
    F.silu: "silu",
}
_ACTIVATION_METHODS = {"relu": "relu"}
_ACTIVATION_MODULES = {
    "torch.nn.modules.activation.ReLU": "relu",
    "torch.nn.modules.activation.SiLU": "silu",
    "transformers.activations.GELUActivation": "gelu",
    "transformers.activations.GELUTanh": "gelu_tanh",
    "transformers.activations.PytorchGELUTanh": "gelu_tanh",
    "transformers.activations.NewGELUActivation": "gelu_tanh",
    "transformers.activations.SiLUActivation": "silu",
}
_GELU = {"none": "gelu", "tanh": "gelu_tanh"}

# Relative path of an int8 layer -> what runs in its call.
Notes = dict[str, list[str]]


def rewrite(graph: fx.Graph, owner: nn.Module) -> Notes:
    """Fuses in place; what was fused, by the path of the layer from ``owner``."""
    notes: Notes = defaultdict(list)
    _drop_identities(graph, owner)
    for node in list(graph.nodes):
        if _is_layer_call(node, owner):
            _as_call(node)
    for node in list(graph.nodes):
        if node.target is calls.linear and len(node.users) == 1:
            _fuse_residual(node, notes)
    for node in list(graph.nodes):
        if node.target is calls.linear and len(node.users) == 1:
            _fuse_activation(node, owner, notes)
    _fuse_siblings(graph, notes)
    for node in list(graph.nodes):
        if node.target is calls.linear:
            _fuse_mlp(node, notes)
    return dict(notes)


def layer_path(node: fx.Node) -> str:
    """The path of the layer that a ``calls.linear`` node calls."""
    reference = node.args[0]
    assert isinstance(reference, fx.Node)
    return str(reference.target)


def _submodule(owner: nn.Module, node: fx.Node) -> nn.Module | None:
    """What the node calls, if it is a part that ``forward.py`` watches."""
    if node.op != "call_module":
        return None
    parent, _, name = str(node.target).rpartition(".")
    part = owner.get_submodule(parent)
    module = part._modules[name]
    watched = any(part is one for one in containers(owner))
    return module if watched and module is not None and runs_own_forward(module) else None


def _is_layer_call(node: fx.Node, owner: nn.Module) -> bool:
    layer = _submodule(owner, node)
    return type(layer) is Int8Linear and len(node.args) == 1 and not node.kwargs


def _as_call(node: fx.Node) -> None:
    """``self.up(x)`` as ``calls.linear(self.up, x, None, "none")``, at the same place."""
    with node.graph.inserting_before(node):
        layer = node.graph.create_node("get_attr", str(node.target))
        new = node.graph.call_function(calls.linear, (layer, node.args[0], None, "none"))
    _replace(node, new)


def _replace(node: fx.Node, new: fx.Node) -> None:
    node.replace_all_uses_with(new)
    node.graph.erase_node(node)


def _drop_identities(graph: fx.Graph, owner: nn.Module) -> None:
    for node in list(graph.nodes):
        module = _submodule(owner, node)
        off = module is not None and type(module) in DROPOUTS and not module.training
        function = node.target is F.dropout and not _argument(node, 2, "training", True)
        if (off or type(module) is nn.Identity or function) and not _hooked(module):
            source = node.args[0] if node.args else None
            if isinstance(source, fx.Node):
                _replace(node, source)


def _hooked(module: nn.Module | None) -> bool:
    return module is not None and bool(module._forward_hooks or module._forward_pre_hooks)


def _argument(node: fx.Node, position: int, name: str, default: Any) -> Any:
    if len(node.args) > position:
        return node.args[position]
    return node.kwargs.get(name, default)


def _fuse_residual(node: fx.Node, notes: Notes) -> None:
    add = next(iter(node.users))
    functions: tuple[Callable[..., Any], ...] = (operator.add, torch.add)
    plus = add.op == "call_function" and add.target in functions
    if not plus and not (add.op == "call_method" and add.target == "add"):
        return
    if len(add.args) != 2 or add.kwargs:
        return
    left, right = add.args
    other = right if left is node else left
    if not isinstance(other, fx.Node) or other is node:
        return
    with add.graph.inserting_before(add):  # the residual is known here, not before
        new = add.graph.call_function(calls.linear, (*node.args[:2], other, "none"))
    _replace(add, new)
    node.graph.erase_node(node)
    notes[layer_path(new)].append("residual")


def _activation_of(node: fx.Node, owner: nn.Module) -> str | None:
    if node.op == "call_method":
        return _ACTIVATION_METHODS.get(str(node.target)) if len(node.args) == 1 else None
    if node.op == "call_function":
        if node.target is F.gelu:
            return _GELU.get(_argument(node, 1, "approximate", "none"))
        return _ACTIVATION_FUNCTIONS.get(node.target)
    module = _submodule(owner, node)
    if module is None or _hooked(module):
        return None
    if type(module) is nn.GELU:
        return _GELU.get(module.approximate)
    name = f"{type(module).__module__}.{type(module).__qualname__}"
    return _ACTIVATION_MODULES.get(name)


def _fuse_activation(node: fx.Node, owner: nn.Module, notes: Notes) -> None:
    user = next(iter(node.users))
    activation = _activation_of(user, owner)
    if activation is None or user.args[:1] != (node,):
        return
    node.args = (*node.args[:3], activation)
    _replace(user, node)
    notes[layer_path(node)].append(activation)


def _siblings(graph: fx.Graph) -> Iterator[list[fx.Node]]:
    readers: dict[fx.Node, list[fx.Node]] = defaultdict(list)
    for node in graph.nodes:
        if node.target is calls.linear and node.args[2] is None:
            source = node.args[1]
            if isinstance(source, fx.Node):
                readers[source].append(node)
    for nodes in readers.values():
        if len({layer_path(node) for node in nodes}) == len(nodes) > 1:
            yield nodes


def _fuse_siblings(graph: fx.Graph, notes: Notes) -> None:
    for nodes in _siblings(graph):
        paths = [layer_path(node) for node in nodes]
        with graph.inserting_before(nodes[0]):
            layers = [graph.create_node("get_attr", path) for path in paths]
            activations = [node.args[3] for node in nodes]
            group = graph.call_function(calls.linears, (layers, nodes[0].args[1], activations))
            parts = [graph.call_function(operator.getitem, (group, i)) for i in range(len(nodes))]
        for node, part, path in zip(nodes, parts, paths, strict=True):
            _replace(node, part)
            others = ", ".join(other for other in paths if other != path)
            notes[path].append(f"one call with {others}")


def _fuse_mlp(down: fx.Node, notes: Notes) -> None:
    up = down.args[1]
    if not isinstance(up, fx.Node) or up.target is not calls.linear or len(up.users) != 1:
        return
    up_layer, x, inner, activation = up.args
    down_layer, _, residual, outer = down.args
    if inner is not None or outer != "none" or layer_path(up) == layer_path(down):
        return
    with down.graph.inserting_before(down):
        arguments = (up_layer, down_layer, x, residual, activation)
        new = down.graph.call_function(calls.mlp, arguments)
    notes[layer_path(up)].append(f"one call with {layer_path(down)}")
    notes[layer_path(down)].append(f"one call with {layer_path(up)}")
    _replace(down, new)
    down.graph.erase_node(up)
