"""A float net as one graph: its convolutions run with residual and activation in one call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves, tree_map

from ..nn.fused_conv2d import FusedConv2d
from . import net_calls as calls
from . import net_steps as steps
from .net_fold import path_of
from .net_forward import NetForward, NetPlan
from .net_join import flattens
from .net_trace import drop_unread


def lower(graph: fx.Graph, model: nn.Module) -> None:
    """Exchanges layer steps for calls of ``float_conv``, in place; ``model`` holds the fused
    layers. Notes in ``meta["floats"]`` what a net's program can do on floats: convolutions of
    images, Linears, and what pools and flattens their results."""
    for node in list(graph.nodes):
        if node.target in (steps.pool, steps.adaptive_pool) or flattens(node, model):
            node.meta["floats"] = node.args[0].meta.get("floats", False)
        if node.target is not steps.layer:
            continue
        reference, x, residual, act = node.args
        with graph.inserting_before(node):
            slope = act[3]
            if slope is not None and not isinstance(slope, fx.Node):
                slope = graph.call_function(calls.constant, (slope,))
            new = graph.call_function(
                calls.float_conv, (reference, x, residual, calls.act_of(act), slope)
            )
        layer: Any = model.get_submodule(path_of(node))
        new.meta["shape"] = node.meta["shape"]
        of_rows = layer.rank == 0 and len(x.meta["shape"]) not in (0, 4)
        new.meta["floats"] = layer.rank == 2 or of_rows
        node.replace_all_uses_with(new)
        graph.erase_node(node)
    drop_unread(graph)
    graph.lint()


@dataclass(frozen=True)
class FloatPlan(NetPlan):
    """``dtype``: what the net was converted to, by its name in torch; "" where it was not."""

    dtype: str = ""


class FloatForward(NetForward):
    """The graph of a float net. One that was converted to another dtype casts its float inputs to
    it, once, and returns its results in the dtype of the first of them.
    """

    plan: FloatPlan
    first: FusedConv2d  # has the dtype that the net has now

    @classmethod
    def put_float(
        cls,
        owner: nn.Module,
        graph: fx.Graph,
        tensors: tuple[str, ...],
        notes: dict[str, list[str]],
        plan: FloatPlan,
    ) -> None:
        """Makes ``owner`` run a graph of layer steps, whose layers it holds already."""
        paths = [path_of(node) for node in graph.nodes if node.target is steps.layer]
        lower(graph, owner)
        cls.put(owner, graph, tensors, notes, plan)
        first: Any = owner.get_submodule(paths[0])
        owner.__dict__["forward"].first = first

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.plan.dtype:
            return super().__call__(*args, **kwargs)
        floats = [x for x in tree_leaves((args, kwargs)) if _is_float(x)]
        if not floats:
            return super().__call__(*args, **kwargs)
        inside, outside = self.first.packed.dtype, floats[0].dtype
        args, kwargs = tree_map(lambda x: _cast(x, inside), (args, kwargs))
        return tree_map(lambda x: _cast(x, outside), super().__call__(*args, **kwargs))

    def describe(self) -> str:
        """For ``explain``."""
        text = f"{self.cls.__name__} runs as one graph, layers with what follows them"
        if self.plan.dtype:
            dtype = str(self.first.packed.dtype).removeprefix("torch.")
            text += f", in {dtype} with float32 sums: casts its inputs, returns their dtype"
        return ". ".join([text, *self.runs_text()])


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _cast(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if _is_float(value) else value
