"""SciPy's CSR matrix times a dense one, on one thread: it has no others."""

from __future__ import annotations

import torch
from case import Call, Case, require

NAME = "scipy CSR, 1 thread"
KINDS = ("sparse_linear",)
SLOW = False


def make(case: Case) -> Call:
    """Return ``(weight @ x.T).T + bias``.

    Raises:
        UnavailableError: SciPy is not installed.
    """
    require(("scipy",))
    from scipy.sparse import csr_matrix

    x, weight = case.tensors["x"].numpy(), csr_matrix(case.tensors["weight"].numpy())
    bias = case.tensors.get("bias", torch.zeros(()))
    return lambda: torch.from_numpy((weight @ x.T).T) + bias
