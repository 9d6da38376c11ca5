"""Which kernel runs for tensors of a dtype, of an op whose best ones multiply bfloat16 alone."""

from __future__ import annotations

import torch

from .. import backends


def kernel_of(op: str, dtype: torch.dtype) -> str:
    """The kernel of ``op`` that runs for ``dtype``; ``"reference"`` without a compiled module.

    Kernels with bfloat16 products leave other tensors to the next one with float32 products, and
    one for tests to one for tests.
    """
    name = backends.kernel(op)
    if name == "reference" or dtype == torch.bfloat16:
        return name
    rows = backends.implementations(op)
    at = next(i for i, row in enumerate(rows) if row.name == name)
    if not _pairs(rows[at]):
        return name
    tests = rows[at].test_only
    return next(r.name for r in rows[at:] if r.test_only == tests and not _pairs(r))


def multiplies_pairs(op: str, dtype: torch.dtype) -> bool:
    """Whether the kernel of ``op`` for ``dtype`` multiplies pairs of bfloat16."""
    name = kernel_of(op, dtype)
    return any(_pairs(row) for row in backends.implementations(op) if row.name == name)


def _pairs(row: backends.Implementation) -> bool:
    return not row.layout.endswith("k1")
