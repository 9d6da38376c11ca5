"""What was decided about a layer, kept on the layer so that it travels with the model."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

_ATTRIBUTE = "_pyops_record"


@dataclass(frozen=True)
class Record:
    """``before``: class name of the float layer. ``bytes_before``: its weight and bias.

    ``sqnr_db``, ``ms_before``, ``ms_after`` come from ``example_inputs``; None where not measured.
    """

    before: str
    reason: str
    bytes_before: int
    sqnr_db: float | None = None
    ms_before: float | None = None
    ms_after: float | None = None


def set_record(module: nn.Module, record: Record) -> None:
    setattr(module, _ATTRIBUTE, record)


def get_record(module: nn.Module) -> Record | None:
    record = module.__dict__.get(_ATTRIBUTE)
    return record if isinstance(record, Record) else None
