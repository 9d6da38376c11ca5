"""``explain``: what runs in each layer of a model, and why."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from io import StringIO
from typing import Any

from torch import nn

from . import backends
from .graph import Fusion, fusions_of
from .nn.containers import reads_weights
from .nn.masked_module import MaskedModule
from .nn.packed_module import PackedModule
from .nn.record import get_record
from .nn.registry import matches, replacement, replacement_name, why_not, why_not_depth
from .quantize.convert import float_bytes
from .sparse_choice import pays_from, zeros_note


@dataclass(frozen=True)
class Row:
    """One layer. ``kernel`` and ``isa`` are those that run now; None for a float layer.

    ``bytes_after`` counts a packed weight that several layers share once, at the first of them.
    ``sqnr_db`` (of the layer's output, against float), ``ms_before`` and ``ms_after`` (all calls
    of one model run) were measured by ``quantize(example_inputs=)``; None where they were not. Of
    ``sparsify(example_inputs=)`` they are dense and sparse, whichever was taken.
    """

    name: str
    before: str
    after: str
    kernel: str | None
    isa: str | None
    reason: str
    bytes_before: int
    bytes_after: int
    sqnr_db: float | None
    ms_before: float | None
    ms_after: float | None


@dataclass(frozen=True)
class Report:
    """``print(report)`` shows a table; ``rows`` is the data.

    ``graphs``: for which calls a model runs as one graph, or why it does not. ``islands``: groups
    of steps that run in float between int8 ones, dequantized before and quantized behind.
    """

    rows: tuple[Row, ...]
    graphs: tuple[str, ...] = ()
    islands: tuple[tuple[str, ...], ...] = ()

    def to_json(self) -> str:
        """``{"rows": [{"name": ..., ...}, ...], "graphs": [...], "islands": [...]}``; an infinite
        ``sqnr_db`` (no error) is null.
        """
        rows = [asdict(row) for row in self.rows]
        for row in rows:
            if row["sqnr_db"] == float("inf"):
                row["sqnr_db"] = None
        report = {"rows": rows, "graphs": self.graphs, "islands": self.islands}
        return json.dumps(report, indent=1, allow_nan=False)

    def table(self, width: int = 160) -> str:
        """The rows as text, ``width`` columns wide; columns that hold nothing are left out."""
        if not self.rows:
            return self._summary()
        from rich.box import SIMPLE
        from rich.console import Console
        from rich.table import Table

        table = Table(box=SIMPLE, caption=self._summary(), caption_justify="left")
        names = [field.name for field in fields(Row)]
        shown = [n for n in names if any(getattr(row, n) is not None for row in self.rows)]
        for name in shown:
            number = name.startswith(("bytes", "sqnr", "ms"))
            table.add_column(
                name.replace("_", " "),
                justify="right" if number else "left",
                no_wrap=name not in ("before", "reason"),  # what gives way first
                overflow="fold",
            )
        for row in self.rows:
            table.add_row(*(_cell(row, name) for name in shown))
        text = StringIO()
        Console(file=text, width=width, color_system=None, markup=False).print(table)
        return text.getvalue().rstrip("\n")

    def _summary(self) -> str:
        masked = sum(row.kernel is None and row.after != row.before for row in self.rows)
        replaced = sum(row.kernel is not None for row in self.rows)
        before = sum(row.bytes_before for row in self.rows)
        after = sum(row.bytes_after for row in self.rows)
        share = f" ({after / before:.2f}x)" if before else ""
        graphs = "".join(f"\n{one}" for one in self.graphs)
        classes = {replacement_name(row.after) for row in self.rows if row.kernel is not None}
        kinds = " and ".join(sorted({cls.weights for cls in classes if cls is not None}))
        what = f"{replaced} of {len(self.rows)} layers in {kinds or 'int8'}"
        if masked:
            what = f"{masked} of {len(self.rows)} layers masked" + f", {what}" * bool(replaced)
        return f"{what}; bytes in these layers: {before:,} -> {after:,}{share}{graphs}"

    def __str__(self) -> str:
        return self.table()


def explain(model: nn.Module) -> Report:
    """A row for each layer that has, or could have had, a replacement.

    Args:
        model: any ``nn.Module``, converted or not. Reasons stay with the layers through save, load,
            deepcopy and pickle, and explaining a part of a model works.

    Raises:
        TypeError: not an ``nn.Module``.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"explain takes an nn.Module, but got {type(model).__name__}")
    rows = []
    fusion = fusions_of(model)
    inside: dict[int, str] = {}
    owners: dict[int, str] = {}
    for name, module in model.named_modules():
        why = reads_weights(module)
        if why is not None:
            inside.update((id(child), why) for child in module.modules())
            rows.append(_float_row(name, module, why))
        elif isinstance(module, PackedModule):
            owner = owners.setdefault(id(module.packed), name)
            rows.append(_packed_row(name, module, owner, fusion))
        elif isinstance(module, MaskedModule):
            owner = owners.setdefault(id(module.weight), name)
            rows.append(_masked_row(name, module, owner))
        elif matches(module):
            reason = _why_float(module, inside.get(id(module))) + zeros_note(module)
            rows.append(_float_row(name, module, reason))
    return Report(tuple(rows), fusion.graphs, fusion.islands)


def _why_float(module: nn.Module, container: str | None) -> str:
    record = get_record(module)
    if record is not None:
        return record.reason
    depth = getattr(module, "in_features", 0)
    known = container or why_not(module) or why_not_depth(depth, replacement(module))
    dynamic = replacement(module) is not None
    data = "" if dynamic else " with calibration="
    return known or f"not converted: apply pyops.quantize{data}"


def _float_row(name: str, module: nn.Module, reason: str) -> Row:
    record = get_record(module)
    cls, size = type(module).__name__, float_bytes(module)
    measured: tuple[Any, ...] = (None, None, None)
    before = size
    if record is not None:
        measured = (record.sqnr_db, record.ms_before, record.ms_after)
        before = max(record.bytes_before, size)  # it had more channels; of a tied weight, less
    return Row(name, cls, cls, None, None, reason, before, size, *measured)


def _masked_row(name: str, module: MaskedModule, owner: str) -> Row:
    record = get_record(module)
    tied = owner != name
    before, size = module.float_class.__name__, float_bytes(module, without_weight=tied)
    mask = module.weight_mask
    total, left = mask.numel(), int(mask.sum())
    reason = record.reason if record is not None else "built as a masked layer"
    reason += f"; {100 * module.sparsity:.3g} % of its weights are 0, {left:,} of {total:,} left"
    if module.remark:
        reason += f"; {module.remark}"
    reason += f"; {pays_from(module)}"
    if tied:
        reason += f"; shares the weight of {owner}"
    bytes_before = record.bytes_before if record is not None else size
    after = size if tied else size + mask.nbytes
    cls = type(module).__name__
    return Row(name, before, cls, None, None, reason, bytes_before, after, None, None, None)


def _packed_row(name: str, module: PackedModule, owner: str, fusion: Fusion) -> Row:
    record = get_record(module)
    bias = module.bias
    size = 0 if bias is None else bias.numel() * bias.element_size()
    reason = record.reason if record is not None else f"built as an {module.weights} layer"
    if module.packed.remark:
        reason += f"; {module.packed.remark}"
    if name in fusion.notes:
        reason += f"; fused: {', '.join(fusion.notes[name])}"
    elif name in fusion.reasons:
        reason += f"; not fused: {fusion.reasons[name]}"
    if owner == name:
        size += module.packed.nbytes
    else:
        reason += f"; shares the packed weight of {owner}"
    weights = module.packed.n * module.packed.k + (0 if bias is None else module.packed.n)
    kernel, isa = _running(module)
    return Row(
        name=name,
        before=record.before if record is not None else type(module).__name__,
        after=type(module).__name__,
        kernel=kernel,
        isa=isa,
        reason=reason,
        bytes_before=record.bytes_before if record is not None else weights * module.dtype.itemsize,
        bytes_after=size,
        sqnr_db=record.sqnr_db if record is not None else None,
        ms_before=record.ms_before if record is not None else None,
        ms_after=record.ms_after if record is not None else None,
    )


def _running(module: PackedModule) -> tuple[str, str]:
    """(kernel, isa) of the implementation that runs now; only the CPU has compiled ones."""
    if not backends.compiled() or module.packed.device.type != "cpu":
        return "reference", "reference"
    name = module.packed.kernel
    isa = next(
        row.isa for row in backends.implementations(module.packed.runs_on) if row.name == name
    )
    return name, isa


def _cell(row: Row, name: str) -> str:
    value = getattr(row, name)
    if value is None or (name == "after" and row.after == row.before and row.kernel is None):
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
