"""``fuse_layers``: which modules of a model are traced, and what is remembered about the rest."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from torch import nn

from ..nn.int8_linear import Int8Linear
from .forward import GraphForward, Variant, graph_of
from .guards import Guard
from .net_forward import net_of, why_not_traced
from .patterns import rewrite
from .simple_code import CannotTraceError
from .trace import Purity, argument_names, containers, trace

if TYPE_CHECKING:
    from .export_forward import CapturedForward

# Of modules whose forward does more than a graph can hold, the part that can be traced.
_METHODS: dict[type[nn.Module], str] = {
    nn.TransformerEncoderLayer: "_ff_block",
    nn.TransformerDecoderLayer: "_ff_block",
}
_MOST_OPTIONAL = 2  # every subset of so many optional tensors gets a graph; of more, all or none
_REASON = "_pyops_not_fused"
_NOT_CAPTURED = "_pyops_not_captured"


@dataclass(frozen=True)
class Fusion:
    """``notes``: by layer path from the model, what runs in its call. ``reasons``: why nothing.

    ``graphs``: for which calls a model runs as one graph, or why it does not. ``islands``: groups
    of steps that run in float between int8 ones.
    """

    notes: dict[str, list[str]]
    reasons: dict[str, str]
    graphs: tuple[str, ...]
    islands: tuple[tuple[str, ...], ...] = ()


def fuse_layers(
    model: nn.Module, example: tuple[tuple[Any, ...], dict[str, Any]] | None = None
) -> None:
    """Fuses around the int8 layers of ``model``, in place; ``fusions_of`` says what was done.

    Modules keep class, parts and ``state_dict``: only the forward of the instance changes. The
    results are those of the unfused model up to the rounding of activation functions and norms.

    ``example``: positional and keyword arguments of a call. If the model can be captured as a whole
    for calls like it (``export.py``), and more is fused so, it runs that graph.

    Raises:
        TypeError: ``model`` is not a module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"fuse_layers: model must be an nn.Module, but is {type(model).__name__}")
    captured = None if example is None else _captured(model, *example)
    pure = Purity()
    for module in list(model.modules()):
        callable_ = not isinstance(module, (Int8Linear, nn.ModuleList, nn.ModuleDict))
        known = graph_of(module) or captured_of(module)
        if callable_ and known is None and any(_layers(module)):
            _fuse(module, pure)
    if captured is not None and _count(captured.notes) > _count(fusions_of(model).notes):
        captured.fallback = model.__dict__.get("forward")
        model.__dict__["forward"] = captured


def _captured(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> CapturedForward | None:
    if isinstance(model, Int8Linear):
        return None
    from .export import capture_model  # imports torch.export, which takes long

    model.__dict__.pop(_NOT_CAPTURED, None)
    try:
        return capture_model(model, args, kwargs)
    except CannotTraceError as error:
        model.__dict__[_NOT_CAPTURED] = str(error)
        return None


def _count(notes: dict[str, list[str]]) -> int:
    return sum(map(len, notes.values()))


def captured_of(module: nn.Module) -> CapturedForward | None:
    """What the module runs, if it was captured as a whole."""
    forward: Any = module.__dict__.get("forward")
    is_captured = getattr(forward, "is_graph", False) and not isinstance(forward, GraphForward)
    return forward if is_captured else None


def _layers(owner: nn.Module) -> Iterator[str]:
    """Paths of the int8 layers that this module's own forward calls."""
    parts = {id(part) for part in containers(owner)}
    for path, module in owner.named_modules():
        parent = owner.get_submodule(path.rpartition(".")[0])
        if isinstance(module, Int8Linear) and id(parent) in parts:
            yield path


def _fuse(module: nn.Module, pure: Purity) -> None:
    method = _METHODS.get(type(module), "forward")
    variants: list[Variant] = []
    guards: list[Guard] = []
    reason = None
    for tensors in _argument_sets(module, method):
        try:
            graph, found = trace(module, method, tensors)
            pure.check(graph, module)
        except CannotTraceError as error:
            reason = f"{type(module).__name__}.{method} cannot be traced: {error}"
            continue
        notes, more = rewrite(graph, module)
        if notes:
            variants.append(Variant.of(graph, tensors, notes))
            guards = [*found, *more]  # by what the code reads: the same for every call
    if variants:
        module.__dict__[method] = GraphForward(module, method, variants, guards)
    elif reason is not None:
        module.__dict__[_REASON] = reason


def _argument_sets(module: nn.Module, method: str) -> Iterator[tuple[str, ...]]:
    """The calls to make graphs for: required arguments, and optional ones that may be tensors."""
    named = argument_names(module, method)
    required = [name for name, default in named if default is inspect.Parameter.empty]
    optional = [name for name, default in named if default is None]
    sizes = range(len(optional) + 1) if len(optional) <= _MOST_OPTIONAL else (0, len(optional))
    for size in sizes:
        for chosen in combinations(optional, size):
            if required or chosen:
                yield tuple(n for n, _ in named if n in required or n in chosen)


def fusions_of(model: nn.Module) -> Fusion:
    """What ``fuse_layers`` did to the layers of ``model``."""
    notes: dict[str, list[str]] = {}
    reasons: dict[str, str] = {}
    whole: dict[str, list[str]] = {}
    graphs = []
    islands: list[tuple[str, ...]] = []
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        graph, captured = graph_of(module), captured_of(module)
        if captured is not None:
            graph = captured.fallback
            graphs.append(captured.describe())
            whole.update({prefix + name: found for name, found in captured.notes.items()})
        elif _NOT_CAPTURED in module.__dict__:
            why = module.__dict__[_NOT_CAPTURED]
            graphs.append(f"{type(module).__name__} runs module by module: {why}")
        net = net_of(module)
        if net is not None:
            graphs.append(net.describe())
            islands.extend(tuple(prefix + name for name in group) for group in net.plan.islands)
        elif why_not_traced(module) is not None:
            graphs.append(f"{type(module).__name__}: {why_not_traced(module)}")
        if graph is not None:
            notes.update({prefix + name: found for name, found in graph.notes.items()})
        reason = module.__dict__.get(_REASON)
        if reason is not None:
            reasons.update({prefix + name: reason for name in _layers(module)})
    return Fusion(notes | whole, reasons, tuple(graphs), tuple(islands))
