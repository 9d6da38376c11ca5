"""torch's sparse CSR tensors, whose product with a dense matrix is MKL's."""

from __future__ import annotations

import warnings

import torch
from case import Call, Case, UnavailableError

NAME = "torch CSR (MKL)"
KINDS = ("sparse_linear",)
SLOW = False


def make(case: Case) -> Call:
    """Return ``(weight @ x.T).T + bias``; ``F.linear`` on that weight takes several times as long.

    Raises:
        UnavailableError: this torch was built without MKL.
    """
    if not torch.backends.mkl.is_available():
        raise UnavailableError("this torch has no MKL")
    x, bias = case.tensors["x"], case.tensors.get("bias", torch.zeros(()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "in beta state"
        csr = case.tensors["weight"].to_sparse_csr()
    # MKL reads 32-bit indices, into which torch would convert in each call.
    parts = (csr.crow_indices().int(), csr.col_indices().int(), csr.values())
    weight = torch.sparse_csr_tensor(*parts, csr.shape, check_invariants=True)
    return lambda: torch.mm(weight, x.t()).t() + bias
