"""The graphs whose layers lose channels: that of eval mode, and that of train mode beside it.

Heads that only help to train (auxiliary classifiers) read channels too: they have to become smaller
with the rest, or the smaller model could not be trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from ...graph.net_trace import check_same, part_of, trace_net
from ...graph.simple_code import CannotTraceError
from ...graph.unchanged import unchanged
from ...quantize.copying import copy_model, evaluating
from ...quantize.measure import run
from ...quantize.static.batches import Call, tensors_of
from .layers import KINDS

_DROPOUTS = (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, torch.dropout)


@dataclass
class Graphs:
    """``each``: that of eval mode, then that of train mode where it is another one.

    ``shapes``: of each node's tensor.
    """

    each: list[fx.Graph] = field(default_factory=list)
    shapes: dict[fx.Node, tuple[int, ...]] = field(default_factory=dict)


def graphs_of(model: nn.Module, call: Call, workflow: str) -> Graphs:
    """What a model that runs on these arguments computes, for ``Walk``.

    Raises:
        ValueError: it fails or cannot be traced in eval mode; or not in train mode, where it has
            layers that eval mode does not reach.
    """
    expected = run(model, call, workflow)
    tensors = tensors_of(model, call)
    name = type(model).__name__
    try:
        if isinstance(tensors, str):
            raise CannotTraceError(tensors)
        if type(model) in KINDS:
            raise CannotTraceError("it is one layer, whose outputs are the model's")
        values = list(tensors.values())
        found = Graphs()
        with evaluating(model):
            graph = trace_net(model, list(tensors), unread=True)
            with unchanged(model):
                if not any(value.is_meta for value in values):
                    check_same(model, graph, values, expected)
                _add(found, model, graph, values)
    except CannotTraceError as error:
        raise ValueError(f"{workflow}: the graph of {name} cannot be made: {error}") from error
    try:
        _add_train_mode(found, model, tensors, workflow)
    except Exception as error:  # a train mode alone may ask for targets, or fail on one sample
        unreached = _unreached(model, graph)
        if unreached:
            raise ValueError(
                f"{workflow}: no call in eval mode reaches {unreached[0]}, and the graph of {name} "
                f"in train mode cannot be made: {error}; a model without it can be pruned"
            ) from error
    return found


def in_train_mode(model: nn.Module, call: Call) -> Any:
    """What it returns in train mode, without dropout and with norms as in eval mode."""
    _set_train_mode(model)
    with _NoDropout():
        return model(*call[0], **call[1])


class _NoDropout(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _DROPOUTS and args:
            return args[0]
        return func(*args, **(kwargs or {}))


def _set_train_mode(model: nn.Module) -> None:
    """Only of modules that are not torch's own: in norms and dropouts it changes values alone."""
    for module in model.modules():
        module.training = not type(module).__module__.startswith("torch.nn")


def _add(found: Graphs, model: nn.Module, graph: fx.Graph, values: Sequence[Tensor]) -> None:
    shapes = _Shapes(model, graph)
    shapes.run(*values)
    found.each.append(graph)
    found.shapes.update(shapes.found)


def _add_train_mode(
    found: Graphs, model: nn.Module, tensors: dict[str, Tensor], workflow: str
) -> None:
    twin = copy_model(model, True, workflow)
    with evaluating(twin), torch.random.fork_rng(devices=[]):
        _set_train_mode(twin)
        graph = trace_net(twin, list(tensors), unread=True)
        for node in list(graph.nodes):
            if node.target in _DROPOUTS and isinstance(node.args[0], fx.Node):
                node.replace_all_uses_with(node.args[0])
                graph.erase_node(node)
        if _text(graph) != _text(found.each[0]):
            _add(found, twin, graph, list(tensors.values()))


def _text(graph: fx.Graph) -> list[str]:
    return [f"{n.op} {n.name} {n.target} {n.args} {n.kwargs}" for n in graph.nodes]


def _unreached(model: nn.Module, graph: fx.Graph) -> list[str]:
    """Layers with channels that the graph neither calls nor reads."""
    reached: set[int] = set()
    for node in graph.nodes:
        part = part_of(node, model)
        if node.op == "get_attr":
            part = model.get_submodule(str(node.target).rpartition(".")[0])
            reached.add(id(part))
        elif part is not None:
            reached.update(map(id, part.modules()))
    return [
        path
        for path, module in model.named_modules()
        if type(module) in KINDS and KINDS[type(module)].multiplies and id(module) not in reached
    ]


class _Shapes(fx.Interpreter):
    """Notes the shape of each node's tensor."""

    def __init__(self, model: nn.Module, graph: fx.Graph) -> None:
        super().__init__(model, graph=graph)
        self.found: dict[fx.Node, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor) and n.op != "output":
            self.found[n] = tuple(value.shape)
        return value
