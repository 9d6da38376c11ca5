"""What is sparse: peers that multiply with CSR."""

from __future__ import annotations

from typing import Any

import pytest
import torch


@pytest.mark.parametrize("file", ["mkl_csr", "scipy_csr"])
@pytest.mark.parametrize("shape", [(1, 8, 4), (7, 33, 18)])
def test_csr_peers_compute_the_product(file: str, shape: tuple[int, int, int], load: Any) -> None:
    rows, inputs, outputs = shape
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, inputs, generator=generator)
    weight = torch.randn(outputs, inputs, generator=generator)
    weight *= torch.rand(outputs, inputs, generator=generator) < 0.3
    weight[1] = 0
    case = load("case").Case(
        kind="sparse_linear",
        name=f"sparse_linear {rows}x{inputs}x{outputs}",
        operations=2.0 * rows * inputs * outputs,
        bytes_moved=1.0,
        make_ours=lambda: None,
        check_ours=lambda result: None,
        check_peer=lambda result: None,
        tensors={"x": x, "weight": weight},
    )
    peer = load(f"peers.{file}")
    assert case.kind in peer.KINDS
    try:
        result = peer.make(case)()
    except load("case").UnavailableError as error:
        pytest.skip(str(error))
    exact = x.double() @ weight.double().t()
    bound = (inputs + 2) * torch.finfo().eps * (x.abs().double() @ weight.abs().double().t())
    assert result.shape == exact.shape
    assert result.dtype == torch.float32
    assert ((result.double() - exact).abs() <= bound).all()
