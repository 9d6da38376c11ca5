"""Damaged packed int8 weights: what comes out is refused, or told by the call's own arguments."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyops import ops
from pyops.testing.cases.sparse_gemm import masked
from pyops.testing.compare import assert_same
from pyops.testing.threads import on_threads

N, K = 70, 700


def codes(*shape: int) -> Tensor:
    return torch.randint(-127, 128, shape, dtype=torch.int8)


def twice(a: Tensor, packed: Tensor) -> tuple[Tensor, Tensor]:
    """The product before and after one with other codes, and of a wider weight."""
    with on_threads(1):
        first = ops.int8_gemm(a, packed, N)
        wide = ops.sparse_pack(torch.full((200, 2000), 127, dtype=torch.int8))
        ops.int8_gemm(torch.full((130, 2000), 127, dtype=torch.int8), wide, 200)
        return first, ops.int8_gemm(a, packed, N)


@pytest.mark.parametrize("rows", [66, 17, 3])
def test_no_code_of_another_call_comes_out(kernel: str, rows: int) -> None:
    rng = torch.Generator().manual_seed(rows)
    for shared in (1, 4):
        packed, a = ops.sparse_pack(masked(codes(N, K), 0.3, shared, 0)), codes(rows, K)
        begin = int(packed[64:72].view(torch.int64))
        for _ in range(6):
            bad = packed.clone()
            where = torch.randint(begin, packed.numel(), (200,), generator=rng)
            bad[where] = torch.randint(0, 256, (200,), generator=rng).to(torch.uint8)
            first, second = twice(a, bad)
            assert_same(second, first, kernel)


def test_outputs_that_a_section_leaves_out_have_no_products(kernel: str) -> None:
    """What is left is the part of the codes' shift: 128 times the sum of a row of the weight."""
    weight, a = masked(codes(N, K), 0.3, 1, 0), codes(66, K)
    packed = ops.sparse_pack(weight)
    begin = int(packed[64:72].view(torch.int64))
    sums = begin - -(-4 * N // 8) * 8
    for section in packed[64:sums].view(torch.int64)[:-1].tolist():
        packed[section : section + 8] = 0
    want = (-128.0 * weight.sum(1)).expand(66, N)
    for out in twice(a, packed):
        assert_same(out, want, kernel)


def test_no_code_of_another_convolution_comes_out(kernel: str) -> None:
    """K = 297, in rows of whole steps of K: what is behind it belongs to no call."""
    x = torch.randint(0, 100, (1, 33, 9, 9)).to(torch.uint8)
    weights = torch.randint(1, 127, (64, 33, 3, 3), dtype=torch.int8)
    packed = ops.sparse_pack(weights)
    begin = int(packed[64:72].view(torch.int64))
    rng = torch.Generator().manual_seed(0)
    for damage in range(4):
        bad = packed.clone()
        if damage:
            where = torch.randint(begin, packed.numel(), (200,), generator=rng)
            bad[where] = torch.randint(0, 256, (200,), generator=rng).to(torch.uint8)
        else:
            bad[-(packed.numel() - begin) * 3 // 4 :] = 77  # weights behind K too
        with on_threads(1):
            outs = []
            for fill in (1, 200):
                other = ops.sparse_pack(torch.ones(64, 37, 3, 3, dtype=torch.int8))
                wide = torch.full((1, 37, 9, 9), fill, dtype=torch.uint8)
                images(wide, other, (64, 37, 3, 3))
                outs.append(images(x, bad, (64, 33, 3, 3)))
        assert_same(outs[1], outs[0], kernel)


def images(x: Tensor, packed: Tensor, shape: tuple[int, ...]) -> Tensor:
    lasting = x.contiguous(memory_format=torch.channels_last)
    return ops.int8_conv_relu(lasting, packed, shape, padding=1)
