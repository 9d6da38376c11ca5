"""Damaged packed weights: what comes out is refused, or told by the call's own arguments."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyops import ops
from pyops.testing.cases.sparse_gemm import few_form, masked
from pyops.testing.compare import assert_same
from pyops.testing.threads import on_threads

N, K = 70, 300
DTYPES = (torch.float32, torch.bfloat16)


def sections_of(packed: Tensor) -> tuple[int, int]:
    """Where the sections begin and end."""
    begin = int(packed[64:72].view(torch.int64))
    few = few_form(packed).numel()
    return begin, packed.numel() - few


def twice(x: Tensor, packed: Tensor) -> tuple[Tensor, Tensor]:
    """The product before and after one with other values, and of a wider weight."""
    with on_threads(1):
        first = ops.sparse_linear(x, packed, N)
        other = torch.full((130, 900), 3.0e30, dtype=x.dtype)
        ops.sparse_linear(other, ops.sparse_pack(torch.ones(200, 900, dtype=x.dtype)), 200)
        return first, ops.sparse_linear(x, packed, N)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [66, 17, 3])
def test_no_value_of_another_call_comes_out(kernel: str, dtype: torch.dtype, rows: int) -> None:
    rng = torch.Generator().manual_seed(rows)
    for shared in (1, 4):
        packed = ops.sparse_pack(masked(torch.randn(N, K), 0.3, shared, 0).to(dtype))
        x = torch.randn(rows, K).to(dtype)
        begin, _ = sections_of(packed)
        for _ in range(6):
            bad = packed.clone()
            where = torch.randint(begin, packed.numel(), (200,), generator=rng)
            bad[where] = torch.randint(0, 256, (200,), generator=rng).to(torch.uint8)
            first, second = twice(x, bad)
            bits = torch.int32 if dtype == torch.float32 else torch.int16
            assert_same(second.view(bits), first.view(bits), kernel)


@pytest.mark.parametrize("dtype", DTYPES)
def test_outputs_that_a_section_leaves_out_are_0(kernel: str, dtype: torch.dtype) -> None:
    for shared in (1, 4):
        packed = ops.sparse_pack(masked(torch.randn(N, K), 0.3, shared, 0).to(dtype))
        begin, end = sections_of(packed)
        table = packed[64:begin].view(torch.int64)
        for section in table[:-1].tolist():
            packed[section : section + 8] = 0
        assert end > begin
        for out in twice(torch.randn(66, K).to(dtype), packed):
            assert_same(out, torch.zeros(66, N, dtype=dtype), kernel)
