"""Carrying out a plan: one layer at a time, so that a converted weight can be freed."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from ..nn.packed_base import PackedBase
from ..nn.record import Record, set_record
from .measure import Measured
from .plan import Candidate
from .scheme import Scheme


def convert(
    model: nn.Module,
    plan: list[Candidate],
    scheme: Scheme,
    measured: dict[str, Measured],
    advance: Callable[[], None],
) -> nn.Module:
    """Replaces what the plan says, in ``model`` itself, and leaves a record on every layer of it.

    Layers with tied weights share one packed weight. Returns the model, which is another object
    only where the model itself is the layer.
    """
    packed: dict[int, PackedBase] = {}
    for candidate in plan:
        layer = model.get_submodule(candidate.name)
        tied = candidate.weight_key in packed  # counted at the first layer that holds it
        record = _record(layer, candidate, scheme, measured.get(candidate.name), tied)
        if candidate.why_float is not None:
            set_record(layer, record)
            continue
        new = scheme.build(layer, packed.get(candidate.weight_key))
        packed[candidate.weight_key] = new.packed
        set_record(new, record)
        model = put(model, candidate.paths, new)
        advance()
    return model


def put(model: nn.Module, paths: list[str], new: nn.Module) -> nn.Module:
    """Puts ``new`` at every path; the empty path is the model. Returns the model."""
    for path in paths:
        if path == "":
            return new
        parent, _, leaf = path.rpartition(".")
        setattr(model.get_submodule(parent), leaf, new)
    return model


def _record(
    layer: nn.Module,
    candidate: Candidate,
    scheme: Scheme,
    result: Measured | None,
    tied: bool,
) -> Record:
    total = result.total_ms() if result else None
    reason = candidate.why_float or "replaced"
    if candidate.why_float is None and result and total:
        reason = f"replaced: faster in {scheme.label}, input {result.shapes()}"
    return Record(
        before=candidate.class_name,
        reason=reason,
        bytes_before=float_bytes(layer, without_weight=tied),
        sqnr_db=result.sqnr_db if result else None,
        ms_before=total[0] if total else None,
        ms_after=total[1] if total else None,
    )


def float_bytes(layer: nn.Module, without_weight: bool = False) -> int:
    """Bytes of a float layer's own parameters."""
    return sum(
        parameter.numel() * parameter.element_size()
        for name, parameter in layer._parameters.items()
        if parameter is not None
        and not nn.parameter.is_lazy(parameter)
        and not (without_weight and name == "weight")
    )
