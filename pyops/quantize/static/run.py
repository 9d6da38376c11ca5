"""Static int8: a whole net from calibration batches, as one graph or layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor, nn

from ...graph.net_fold import Folded
from ...graph.net_forward import NetForward, NetPlan, set_not_traced
from ...graph.simple_code import CannotTraceError
from ...graph.unchanged import unchanged
from ...nn.record import Record, set_record
from ...nn.registry import replacement
from ..convert import float_bytes, put
from ..copying import copy_model, evaluating, freeze
from ..edge import edge_of
from ..observers import OBSERVERS
from ..plan import Candidate
from .batches import Call, calls_of, tensors_of
from .variants import Variant, make_data, make_variant

Bar = Callable[[str, int], AbstractContextManager[Callable[[], None]]]


def quantize_static(
    model: nn.Module,
    plan: list[Candidate],
    calibration: Iterable[Any],
    forward: Callable[[nn.Module, Any], Any] | None,
    observer: str,
    inplace: bool,
    bar: Bar,
) -> nn.Module:
    """Converts what the plan says; see ``pyops.quantize``."""
    calls = calls_of(model, calibration, forward)
    chosen = {path for candidate in plan if not candidate.why_float for path in candidate.paths}
    source = model if inplace else copy_model(model)
    with evaluating(source), unchanged(source):
        try:
            variant, inputs = _best_variant(source, chosen, calls, observer, bar)
        except CannotTraceError as error:
            why = str(error)
            variant = None
    if variant is None:
        return _layer_by_layer(source, plan, calls, observer, bar, why)
    target = _put_layers(source, plan, variant.layers, variant.layer_sqnr)
    for norm, layer in variant.net.folded.items():
        before = type(target.get_submodule(norm)).__name__
        put(target, [norm], Folded(layer, before))
    freeze(target)
    at = {name: list(edge) for name, edge in variant.at.items()}
    shapes = {
        name: [list(x.shape), str(x.dtype).removeprefix("torch.")] for name, x in inputs.items()
    }
    net = variant.net
    found = NetPlan(shapes, at, net.folded, variant.islands, variant.decisions)
    NetForward.put(target, net.graph, net.tensors, net.notes, found)
    return target


def _best_variant(
    model: nn.Module, chosen: set[str], calls: list[Call], observer: str, bar: Bar
) -> tuple[Variant, dict[str, Tensor]]:
    batches: list[dict[str, Tensor]] = []
    for call in calls:
        tensors = tensors_of(model, call)
        if isinstance(tensors, str):
            raise CannotTraceError(tensors)
        if batches and tensors.keys() != batches[0].keys():
            raise CannotTraceError("its calibration batches give different arguments")
        batches.append(tensors)
    if "" in chosen:
        raise CannotTraceError("it is one layer")
    _check_batched(model, chosen, calls[0])
    data = make_data(model, batches)
    variants = []
    with bar("calibrating", 2 * len(batches)) as advance:
        for with_equalization in (False, True):
            one = make_variant(model, chosen, data, observer, with_equalization, advance)
            if one is not None:
                variants.append(one)
    best = max(variants, key=lambda one: one.best)
    best.decide(variants)
    return best, batches[0]


def _check_batched(model: nn.Module, layers: set[str], call: Call) -> None:
    """Raises:
    CannotTraceError: a layer sees one sample without a dimension for the batch, whose first
        dimension cannot be cut into samples.
    """
    found: list[str] = []

    def watching(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x: Tensor = args[0] if args else kwargs["input"]
            weight: Tensor = module.weight  # type: ignore[assignment]
            if x.dim() < weight.dim():  # a Linear's [K], a convolution's [C, ...]
                found.append(f"{name!r} sees one sample {list(x.shape)} without a batch dimension")

        return hook

    handles = [
        model.get_submodule(name).register_forward_pre_hook(watching(name), with_kwargs=True)
        for name in layers
    ]
    try:
        with unchanged(model):
            model(*call[0], **call[1])
    finally:
        for handle in handles:
            handle.remove()
    if found:
        raise CannotTraceError(found[0])


def _put_layers(
    target: nn.Module,
    plan: list[Candidate],
    layers: dict[str, nn.Module],
    sqnr: dict[str, float | None],
) -> nn.Module:
    for candidate in plan:
        old = target.get_submodule(candidate.name)
        reason = candidate.why_float or "replaced"
        new = next((layers[path] for path in candidate.paths if path in layers), None)
        if candidate.why_float is None and new is None:
            reason = "the model's graph does not call it"
        db = next((sqnr[path] for path in candidate.paths if path in sqnr), None)
        record = Record(candidate.class_name, reason, float_bytes(old), sqnr_db=db)
        set_record(old if new is None else new, record)
        if new is not None:
            target = put(target, candidate.paths, new)
    return target


def _layer_by_layer(
    target: nn.Module,
    plan: list[Candidate],
    calls: list[Call],
    observer: str,
    bar: Bar,
    why: str,
) -> nn.Module:
    """Each layer quantizes its own input and returns floats."""
    watched = {c.name: OBSERVERS[observer]() for c in plan if c.why_float is None}
    handles = [
        target.get_submodule(name).register_forward_pre_hook(_watching(name, one))
        for name, one in watched.items()
    ]
    try:
        with evaluating(target), unchanged(target), bar("calibrating", len(calls)) as advance:
            for args, kwargs in calls:
                target(*args, **kwargs)
                advance()
    finally:
        for handle in handles:
            handle.remove()
    layers: dict[str, nn.Module] = {}
    for name, one in watched.items():
        module = target.get_submodule(name)
        cls: Any = replacement(module, "static")
        scale, zero_point = edge_of(*one.range())
        layers[name] = cls.from_float(module, input_scale=scale, input_zero_point=zero_point)
    target = freeze(_put_layers(target, plan, layers, {}))
    set_not_traced(target, f"each layer quantizes its input and returns floats: {why}")
    return target


def _watching(name: str, one: Any) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
        try:
            one.update(args[0])
        except ValueError as error:
            raise ValueError(f"quantize: the input of {name!r} {error}") from error

    return hook
