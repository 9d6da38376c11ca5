"""Which kernel runs on a weight: that depends on its packed layout and on the rows."""

from __future__ import annotations

from torch import Tensor

from pyops import backends, ops
from pyops.ops.packing import read_header


def ran(op: str, weight: Tensor, rows: int) -> str:
    """Return the kernel that multiplies ``rows`` rows with the int8 ``weight [N, K]``."""
    return backends.kernel(op, read_header(ops.int8_pack(weight)).layout, rows)


def isa_of(op: str | None, kernel: str) -> str:
    """Return the ISA level of the kernel ``kernel``; its own name without a compiled module."""
    rows = backends.implementations(op) if op else ()
    return next((row.isa for row in rows if row.name == kernel), kernel)
