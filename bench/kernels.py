"""Which kernel runs on a packed weight: the choice of ``csrc/cpu/int8_gemm/operands.h``, told.

The compiled module names the kernel that is active; what runs also depends on the layout that the
weight was packed in and on the rows, of which a kernel may want a least number (``kernels.inc``).
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from torch import Tensor

from pyops import backends, ops
from pyops.ops.packing import read_header

CPU = Path(__file__).resolve().parents[1] / "csrc" / "cpu"


@cache
def least_rows(op: str) -> dict[str, int]:
    """Return the least rows that each kernel of ``op`` wants, from the column "min_m" of its table.

    Empty where the table has no such column.
    """
    macro = rf"PYOPS_{op.upper()}_KERNEL"
    columns = re.search(rf"#define {macro}\(([^)]*)\)", (CPU / op / f"{op}.h").read_text())
    names = re.split(r"[,\s\\]+", columns[1]) if columns else []
    if "min_m" not in names:
        return {}
    found = re.findall(rf"^{macro}\(([^)]*)\)", (CPU / op / "kernels.inc").read_text(), re.M)
    cells = [[cell.strip() for cell in row.split(",")] for row in found]
    return {row[names.index("name")]: int(row[names.index("min_m")]) for row in cells}


def ran(op: str, weight: Tensor, rows: int) -> str:
    """Return the kernel that multiplies ``rows`` rows with the int8 ``weight [N, K]``."""
    active = backends.kernel(op)
    if not backends.compiled():
        return active
    layout = read_header(ops.int8_pack(weight)).layout
    chosen = backends.kernel(op, layout)
    least = least_rows(op)
    if chosen != active or rows >= least.get(chosen, 1):
        return chosen
    table = backends.implementations(op)
    later = table[[row.name for row in table].index(chosen) + 1 :]
    for row in later:
        usable = row.available and not row.test_only and row.layout == layout
        if usable and rows >= least.get(row.name, 1):
            return row.name
    return chosen


def isa_of(op: str | None, kernel: str) -> str:
    """Return the ISA level of the kernel ``kernel``; its own name without a compiled module."""
    rows = backends.implementations(op) if op else ()
    return next((row.isa for row in rows if row.name == kernel), kernel)
