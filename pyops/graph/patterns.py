"""What runs in the call of one int8 layer: rewrites of one graph, in this order.

1. Dropout and Identity go (the model is in eval mode; int8 layers refuse train mode).
2. linear -> (+ residual):             one call; an activation may follow the sum, not precede it
3. linear -> activation:               one call
4. linear -> (* gate):                 one call; of two layers, the later takes the other's result
5. layers and norms that follow one another or read one tensor: one call (``regions.py``)
6. attention beside int8 layers: our kernel, for the calls that it is made for (``attention.py``)

The first four need the inner value to have a single reader. Results are those of the unfused layers
up to the rounding of activations and norms: the epilogue adds bias and residual in float32 in that
order.
"""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from ..nn.int8_linear import Int8Linear
from . import calls
from .attention import fuse_attention
from .attention_rows import attention_of_rows
from .guards import Guard
from .norms import Norm, norm_of
from .regions import Notes, fuse_regions, layer_path
from .simple_code import DROPOUTS
from .trace import argument, hooked, submodule

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


def rewrite(graph: fx.Graph, owner: nn.Module) -> tuple[Notes, list[Guard]]:
    """Fuses in place; what was fused, by the path of the layer from ``owner``.

    It stays right for as long as the guards hold, beside those of the graph.
    """
    notes: Notes = defaultdict(list)
    guards: list[Guard] = []
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
    for node in reversed(list(graph.nodes)):
        if node.target is calls.linear and len(node.users) == 1:
            _fuse_gate(node, notes)
    norms: dict[fx.Node, Norm] = {}
    if any(node.target is calls.linear for node in graph.nodes):
        norms = _norms(graph, owner, guards)
    layers = [layer_path(node) for node in graph.nodes if node.target is calls.linear]
    fuse_regions(graph, owner, norms, notes)
    on_rows = any(node.target is attention_of_rows for node in graph.nodes)
    if layers and (fuse_attention(graph) or on_rows):
        notes[layers[0]].append("attention by pyops")
    return dict(notes), guards


def _norms(graph: fx.Graph, owner: nn.Module, guards: list[Guard]) -> dict[fx.Node, Norm]:
    """All norms; those that are written out become one node."""
    norms: dict[fx.Node, Norm] = {}
    for node in list(graph.nodes):
        norm = norm_of(node, owner, guards)
        if norm is not None and norm.form.startswith("written"):
            arguments = (norm.x, norm.weight, norm.eps, norm.form == "written upcast")
            with graph.inserting_before(node):
                new = graph.call_function(calls.written_rms_norm, arguments)
            inner = node.all_input_nodes
            _replace(node, new)
            _drop_unread(inner)
            node = new
        if norm is not None:
            norms[node] = norm
    return norms


def _drop_unread(nodes: list[fx.Node]) -> None:
    for node in nodes:
        if not node.users and node.op in ("call_function", "call_method"):
            inner = node.all_input_nodes
            node.graph.erase_node(node)
            _drop_unread(inner)


def _is_layer_call(node: fx.Node, owner: nn.Module) -> bool:
    layer = submodule(owner, node)
    return type(layer) is Int8Linear and len(node.args) == 1 and not node.kwargs


def _as_call(node: fx.Node) -> None:
    """``self.up(x)`` as ``calls.linear(self.up, x, None, "none", None)``, at the same place."""
    with node.graph.inserting_before(node):
        layer = node.graph.create_node("get_attr", str(node.target))
        new = node.graph.call_function(calls.linear, (layer, node.args[0], None, "none", None))
    _replace(node, new)


def _replace(node: fx.Node, new: fx.Node) -> None:
    """The two have one value, of which exported graphs know the type."""
    if "val" in node.meta:
        new.meta["val"] = node.meta["val"]
    node.replace_all_uses_with(new)
    node.graph.erase_node(node)


def _drop_identities(graph: fx.Graph, owner: nn.Module) -> None:
    for node in list(graph.nodes):
        module = submodule(owner, node)
        off = module is not None and type(module) in DROPOUTS and not module.training
        function = node.target is F.dropout and not argument(node, 2, "training", True)
        if (off or type(module) is nn.Identity or function) and not hooked(module):
            source = node.args[0] if node.args else None
            if isinstance(source, fx.Node):
                _replace(node, source)


def _other(node: fx.Node, *functions: Callable[..., Any]) -> tuple[fx.Node, fx.Node] | None:
    """The only reader of a node, and its other operand, if it calls one of these on two nodes."""
    user = next(iter(node.users))
    name = functions[0].__name__
    if not (user.op == "call_function" and user.target in functions) and not (
        user.op == "call_method" and user.target == name
    ):
        return None
    if len(user.args) != 2 or user.kwargs:
        return None
    left, right = user.args
    other = right if left is node else left
    return (user, other) if isinstance(other, fx.Node) and other is not node else None


def _fuse_residual(node: fx.Node, notes: Notes) -> None:
    found = _other(node, operator.add, torch.add)
    if found is None:
        return
    add, other = found
    with add.graph.inserting_before(add):  # the residual is known here, not before
        new = add.graph.call_function(calls.linear, (*node.args[:2], other, "none", None))
    _replace(add, new)
    node.graph.erase_node(node)
    notes[layer_path(new)].append("residual")


def _fuse_gate(node: fx.Node, notes: Notes) -> None:
    found = _other(node, operator.mul, torch.mul)
    if found is None or node.args[4] is not None:
        return
    product, other = found
    with product.graph.inserting_before(product):
        new = product.graph.call_function(calls.linear, (*node.args[:4], other))
    _replace(product, new)
    node.graph.erase_node(node)
    notes[layer_path(new)].append("gate")


def _activation_of(node: fx.Node, owner: nn.Module) -> str | None:
    if node.op == "call_method":
        return _ACTIVATION_METHODS.get(str(node.target)) if len(node.args) == 1 else None
    if node.op == "call_function":
        if node.target is F.gelu:
            return _GELU.get(argument(node, 1, "approximate", "none"))
        return _ACTIVATION_FUNCTIONS.get(node.target)
    module = submodule(owner, node)
    if module is None or hooked(module):
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
    node.args = (*node.args[:3], activation, None)
    _replace(user, node)
    notes[layer_path(node)].append(activation)
