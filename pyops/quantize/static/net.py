"""A model as one graph of steps, with its batch norms folded: what calibration works on."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from ...graph.net_edges import Edges, find_edges
from ...graph.net_fold import fold_norms, fuse_steps
from ...graph.net_forms import Shapes, rewrite_as_steps
from ...graph.net_trace import check_same, drop_unread, refuse_changes, trace_net
from ...graph.regions import Notes
from ...graph.unchanged import unchanged


@dataclass
class Net:
    """``model``: holds the layers that ``graph`` calls, with other weights than it came with.

    ``folded``: {norm: layer}. ``notes``: what runs in a layer's call.
    """

    model: nn.Module
    graph: fx.Graph
    tensors: tuple[str, ...]
    folded: dict[str, str]
    notes: Notes
    edges: Edges


def make_net(
    model: nn.Module, layers: Container[str], inputs: Mapping[str, Tensor], check: bool = True
) -> Net:
    """Traces ``model`` for a call with these inputs and folds its norms, in place.

    ``layers``: those that will be int8. ``check``: whether the graph is compared with the model.

    Raises:
        CannotTraceError: with what the model does.
    """
    tensors = tuple(inputs)
    graph = trace_net(model, tensors)
    with torch.no_grad():
        if check:
            with unchanged(model) as changes:
                expected = model(**inputs)
            refuse_changes(changes)
            with unchanged(model):
                check_same(model, graph, list(inputs.values()), expected)
        with unchanged(model):
            Shapes(model, graph=graph).run(*inputs.values())
    rewrite_as_steps(graph, model, layers)
    folded = fold_norms(graph, model)
    notes = fuse_steps(graph, model)
    for norm, layer in folded.items():
        notes.setdefault(layer, []).insert(0, f"{norm} folded in")
    drop_unread(graph)
    graph.lint()
    return Net(model, graph, tensors, folded, notes, find_edges(graph, model))


class Steps(fx.Interpreter):
    """Runs a net's graph node by node; a subclass looks at the values."""

    def __init__(self, net: Net) -> None:
        super().__init__(net.model, garbage_collect_values=True, graph=net.graph)
        self.net = net

    def values(self, inputs: Mapping[str, Tensor]) -> Any:
        """Runs the graph on inputs by name."""
        return self.run(*(inputs[name] for name in self.net.tensors))
