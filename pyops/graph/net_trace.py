"""A whole model as one ``fx.Graph`` whose calls change nothing, or the reason why not.

Unlike ``trace.py``, which takes one forward apart and proves by its code that nothing is frozen,
this goes through all forwards down to torch's own modules, as convnets are written. What stands in
for a proof: a graph runs only while each module is the one that was traced (``guards_of``), and
``check_same`` compares it with the model on a batch before anything is made of it.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from ..nn.registry import has_hooks
from .guards import Guard, runs_own_forward
from .simple_code import DROPOUTS, CannotTraceError
from .trace import _lock, _Tracer, argument, first_sentence
from .unchanged import unchanged

_IN_PLACE = {
    operator.iadd: operator.add,
    operator.imul: operator.mul,
    operator.isub: operator.sub,
    operator.itruediv: operator.truediv,
}


def trace_net(model: nn.Module, tensors: Sequence[str], *, unread: bool = False) -> fx.Graph:
    """The graph of ``model.forward`` for tensors as these arguments, all others at their defaults.

    Dropout and Identity are gone, and in-place operations are written as what they compute. So are
    calls whose results nothing reads, except with ``unread``: the model itself runs them, and may
    change its buffers and attributes. The trace leaves these as they are.

    Raises:
        CannotTraceError: with what the model does.
    """
    if not runs_own_forward(model) or has_hooks(model):
        raise CannotTraceError(f"the {type(model).__name__} has hooks, or a forward of its own")
    try:
        with _lock, unchanged(model) as changes:
            graph = _NetTracer("forward", tensors).trace(model)
    except Exception as error:  # whatever a forward raises on proxies
        raise CannotTraceError(first_sentence(error)) from error
    if not unread:
        refuse_changes(changes)
    _without_effects(graph, model)
    _drop_identities(graph, model)
    if not unread:
        drop_unread(graph)
    graph.lint()
    return graph


def refuse_changes(changes: Sequence[str]) -> None:
    """Raises:
    CannotTraceError: a forward changes these (``unchanged``), which no graph would.
    """
    if changes:
        raise CannotTraceError(f"its forward changes {changes[0]}")


class _NetTracer(_Tracer):
    """Goes through every module that is not torch's own, and whose call is its forward."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        own = m.__class__.__module__.startswith("torch.nn") and type(m) is not nn.Sequential
        other = not runs_own_forward(m) or "forward" in m.__dict__ or has_hooks(m)
        return own or other or parametrize.is_parametrized(m) or _is_ours(m)

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """A slice of a Sequential is made anew at each call and has no path; its parts have."""
        if type(m) is nn.Sequential and not has_hooks(m) and not self._has_path(m):
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def _has_path(self, module: nn.Module) -> bool:
        try:
            self.path_of_module(module)
        except NameError:
            return False
        return True


def _is_ours(module: nn.Module) -> bool:
    return type(module).__module__.startswith(("pyops.nn.", "pyops.graph."))


def part_of(node: Any, model: nn.Module) -> nn.Module | None:
    """The module that a node calls; None for other nodes."""
    if not isinstance(node, fx.Node) or node.op != "call_module":
        return None
    return model.get_submodule(str(node.target))


def _without_effects(graph: fx.Graph, model: nn.Module) -> None:
    """In-place operations make a value that all later readers of the changed one read."""
    for node in list(graph.nodes):
        name = getattr(node.target, "__name__", str(node.target))
        module = part_of(node, model)
        changes = bool(getattr(module, "inplace", False) or node.kwargs.get("inplace"))
        if node.op == "call_function" and node.target in _IN_PLACE:
            node.target, changes = _IN_PLACE[node.target], True
        elif node.op == "call_method" and name.endswith("_") and not name.startswith("_"):
            if not hasattr(Tensor, name[:-1]):
                raise CannotTraceError(f"it changes a tensor in place ({name})")
            node.target, changes = name[:-1], True
        elif node.op == "call_function" and name.endswith("_") and not name.startswith("_"):
            raise CannotTraceError(f"it changes a tensor in place ({name})")
        elif node.kwargs.get("out") is not None:
            raise CannotTraceError(f"it changes a tensor in place ({name})")
        if changes and node.args and isinstance(node.args[0], fx.Node):
            _read_after(node, node.args[0])


def _read_after(node: fx.Node, changed: fx.Node) -> None:
    position = {one: i for i, one in enumerate(node.graph.nodes)}
    changed.replace_all_uses_with(node, delete_user_cb=lambda user: position[user] > position[node])


def _drop_identities(graph: fx.Graph, model: nn.Module) -> None:
    for node in list(graph.nodes):
        module = part_of(node, model)
        kinds = (nn.Identity, *DROPOUTS)
        drops = module is not None and type(module) in kinds and not has_hooks(module)
        function = node.target is F.dropout and not argument(node, 2, "training", True)
        method = node.op == "call_method" and node.target in ("contiguous", "detach")
        if (drops or function or method) and node.args and isinstance(node.args[0], fx.Node):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


def drop_unread(graph: fx.Graph) -> None:
    """Removes the nodes that nothing reads; no call in such a graph does more than compute."""
    for node in reversed(list(graph.nodes)):
        if not node.users and node.op not in ("placeholder", "output"):
            graph.erase_node(node)


def guards_of(model: nn.Module) -> list[Guard]:
    """That every module below the model is the one that was traced, in eval mode and unhooked."""
    guards = [Guard(model, "__dict__", "training", False)]
    for module in model.modules():
        for name, part in module._modules.items():
            if part is not None:
                guards.append(Guard(module, "_modules", name, part))
    return guards


def check_same(model: nn.Module, graph: fx.Graph, inputs: Sequence[Tensor], expected: Any) -> None:
    """Compares the graph with the model's own result on a batch.

    Raises:
        CannotTraceError: they differ by more than rounding.
    """
    found = fx.Interpreter(model, graph=graph).run(*inputs)
    if not same_results(found, expected):
        raise CannotTraceError("its graph computes something else than the model")


def same_results(found: Any, expected: Any) -> bool:
    """Whether two results of a model differ by no more than rounding."""
    leaves = torch.utils._pytree.tree_leaves(found), torch.utils._pytree.tree_leaves(expected)
    return len(leaves[0]) == len(leaves[1]) and all(map(_close, *leaves))


def _close(found: Any, expected: Any) -> bool:
    if not isinstance(found, Tensor) or not isinstance(expected, Tensor):
        return bool(found == expected)
    if found.shape != expected.shape:
        return False
    if expected.dtype == torch.bool:
        return torch.equal(found, expected)
    size = float(expected.detach().abs().amax()) if expected.numel() else 0.0
    if not math.isfinite(size):  # calibration names the layer
        return True
    return torch.allclose(found.float(), expected.float(), rtol=1e-3, atol=1e-4 * size)
