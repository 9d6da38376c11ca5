"""Making a saved net's graph again: the float skeleton is traced, the file says the edges."""

from __future__ import annotations

import torch
from torch import nn

from ...graph.net_float import FloatForward, FloatPlan
from ...graph.net_forward import NetForward, NetPlan
from ...graph.net_int8 import lower
from ...graph.simple_code import CannotTraceError
from ..copying import copy_model
from .net import Net, make_net


def put_net(model: nn.Module, skeleton: nn.Module, plan: NetPlan, layers: set[str]) -> None:
    """Makes ``model``, which holds converted ``layers``, run the graph of its float ``skeleton``.

    Raises:
        ValueError: the skeleton's graph is another one than the file's.
    """
    bare = copy_model(skeleton).to("meta")
    inputs = {
        name: torch.empty(shape, dtype=getattr(torch, dtype), device="meta")
        for name, (shape, dtype) in plan.inputs.items()
    }
    try:
        net = make_net(bare, layers, inputs, check=False)
    except (CannotTraceError, RuntimeError, TypeError) as error:
        raise ValueError(f"the net is one graph in the file, but not here: {error}") from error
    if not isinstance(plan, FloatPlan):
        _compare_edges(net, plan)
    if net.folded != plan.folded:
        raise ValueError(f"norms are folded as {plan.folded} in the file, {net.folded} here")
    if isinstance(plan, FloatPlan):
        FloatForward.put_float(model, net.graph, net.tensors, net.notes, plan)
        return
    lower(net.graph, model, net.edges, {name: (at[0], at[1]) for name, at in plan.edges.items()})
    NetForward.put(model, net.graph, net.tensors, net.notes, plan)


def _compare_edges(net: Net, plan: NetPlan) -> None:
    found = {net.edges.names[node] for node in net.edges.owners}
    for name in sorted(found ^ plan.edges.keys()):
        where = "skeleton" if name in found else "file"
        raise ValueError(f"{name!r} makes codes only in the {where}'s graph")
