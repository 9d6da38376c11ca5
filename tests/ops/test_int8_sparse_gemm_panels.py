"""Panels of sparse int8 weights (``int8_sparse_gemm/panels.h``), on every kernel."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyops import ops
from pyops.testing.cases import int8_gemm as products
from pyops.testing.cases.int8_gemm import random_codes
from pyops.testing.cases.int8_sparse_gemm import (
    SparseGemmCase,
    SparseLinearCase,
    n_of_m,
)
from pyops.testing.compare import assert_same
from pyops.testing.threads import on_threads

ENTRIES, QUADS, WINDOWS_8, WINDOWS_16 = range(4)
# Around tiles of rows; of panels, sections and vectors of outputs; and depths with tails.
ROWS = (5, 6, 7, 11, 12, 13, 130)
SHAPES = ((33, 300), (64, 256), (100, 332), (17, 1030), (130, 500), (5, 260))


def form_of(packed: Tensor) -> int:
    return int(packed[54:56].view(torch.int16))


def blocks(n: int, k: int, share: float, seed: int) -> Tensor:
    """Blocks of 32 outputs by 4 k that are there with probability ``share``."""
    rng = torch.Generator().manual_seed(seed)
    keep = torch.rand((-(-n // 32), -(-k // 4)), generator=rng) < share
    keep = keep.repeat_interleave(32, 0).repeat_interleave(4, 1)[:n, :k]
    values = torch.randint(-127, 128, (n, k), generator=rng, dtype=torch.int8)
    return torch.where(keep, values, torch.zeros((), dtype=torch.int8))


def windows(n: int, k: int, of: int, seed: int) -> Tensor:
    """At most four entries of each ``of`` adjacent k, and fewer where K ends in between."""
    return n_of_m(n, -(-k // of) * of, 4, of, seed)[:, :k].contiguous()


def weights(n: int, k: int, seed: int) -> list[Tensor]:
    return [
        blocks(n, k, 0.6, seed),
        windows(n, k, 8, seed),
        windows(n, k, 16, seed),
        blocks(n, k, 1.0, seed),
    ]


def has_panels(kernel: str) -> bool:
    return kernel not in ("avx2", "reference")


def test_forms_follow_patterns(kernel: str) -> None:
    """The layout is the one that the pattern asks for, or the tests here would see only one."""
    if not has_panels(kernel):
        assert form_of(ops.sparse_pack(blocks(512, 2048, 0.6, 0))) == ENTRIES
        return
    cases = {
        QUADS: blocks(512, 2048, 0.3, 0),
        WINDOWS_8: windows(512, 2048, 8, 0),
        WINDOWS_16: windows(512, 2048, 16, 0),
        ENTRIES: torch.where(
            torch.rand(512, 2048, generator=torch.Generator().manual_seed(0)) < 0.05,
            torch.ones((), dtype=torch.int8),
            torch.zeros((), dtype=torch.int8),
        ),
    }
    for form, weight in cases.items():
        packed = ops.sparse_pack(weight)
        assert form_of(packed) == form, f"{kernel} {form}"
        assert_same(ops.sparse_unpack(packed, weight.shape, torch.int8), weight, kernel)


@pytest.mark.parametrize("shape", SHAPES)
def test_products_and_epilogues(kernel: str, shape: tuple[int, int]) -> None:
    n, k = shape
    seen = set()
    for seed, weight in enumerate(weights(n, k, 1)):
        packed = ops.sparse_pack(weight)
        seen.add(form_of(packed))
        assert_same(ops.sparse_unpack(packed, [n, k], torch.int8), weight, f"{kernel} {shape}")
        for i, m in enumerate(ROWS):
            gemm = products.gemm_case(10 * seed + i, m, n, k)
            case = SparseGemmCase(gemm.a, weight, gemm.epilogue)
            assert_same(case.run(packed), case.reference(), f"{kernel} {shape} {case.label}")
        linear = products.linear_case(seed, 13, n, k)
        row = SparseLinearCase(
            linear.x, weight, linear.scale_w, linear.bias, linear.residual,
            linear.activation, linear.out_dtype,
        )  # fmt: skip
        assert_same(row.run(), row.reference(), f"{kernel} {shape} {row.label}")
    if has_panels(kernel) and n >= 64:
        assert {QUADS, WINDOWS_8, WINDOWS_16} <= seen, f"{kernel} {shape}: {seen}"


def test_codes_straight_from_sums(kernel: str) -> None:
    """uint8 to uint8 with one scale: where the level makes codes without a buffer."""
    rng = torch.Generator().manual_seed(0)
    for weight in weights(96, 256, 2):
        a = random_codes(rng, 130, 256, False, 0)
        scale, bias = torch.rand(96, generator=rng) / 500, torch.randn(96, generator=rng)
        image, shape = a.reshape(130, 256, 1, 1), [96, 256, 1, 1]
        options = {"scale_x": 0.5, "scale_w": scale, "bias": bias, "activation": "relu",
                   "out_dtype": torch.uint8, "out_scale": 1.0}  # fmt: skip
        four_d = weight.reshape(shape)
        sparse = ops.int8_conv_relu(image, ops.sparse_pack(four_d), shape, **options)
        dense = ops.int8_conv_relu(image, ops.int8_conv_pack(four_d), shape, **options)
        assert_same(sparse, dense, kernel)
        assert len(sparse.unique()) > 20, kernel


@pytest.mark.parametrize("channels", [16, 24, 20, 6])
@pytest.mark.parametrize("groups", [1, 2])
def test_convolutions(kernel: str, channels: int, groups: int) -> None:
    """Tap after tap where a window divides the channels, rows of K codes otherwise."""
    rng = torch.Generator().manual_seed(0)
    n, k = 48 * groups, 9 * channels
    for i, weight in enumerate(weights(n, k, 3)):
        four_d = weight.reshape(n, 3, 3, channels).permute(0, 3, 1, 2).contiguous()
        x = random_codes(rng, 2 * channels * groups, 81, False, 0)
        options = {"padding": 1, "stride": 1 + i % 2, "zero_point_x": 7}
        image = x.reshape(2, channels * groups, 9, 9)
        packed = ops.sparse_pack(four_d, groups)
        sparse = ops.int8_conv_relu(image, packed, four_d.shape, out_dtype=torch.int32, **options)
        plain = ops.int8_conv_pack(four_d, groups)
        dense = ops.int8_conv_relu(image, plain, four_d.shape, out_dtype=torch.int32, **options)
        assert_same(sparse, dense, f"{kernel} {channels} {groups} form {form_of(packed)}")
        assert_same(ops.sparse_unpack(packed, four_d.shape, torch.int8), four_d, kernel)


def test_empty_panels(kernel: str) -> None:
    rng = torch.Generator().manual_seed(0)
    weight = blocks(128, 512, 1.0, 0)
    weight[32:64] = 0
    weight[64:] = 0
    a = random_codes(rng, 13, 512, True, 0)
    for w in (weight, torch.zeros_like(weight)):
        out = ops.int8_gemm(a, ops.sparse_pack(w), 128, out_dtype=torch.int32)
        assert_same(out.long(), a.long() @ w.long().T, kernel)


@pytest.mark.parametrize("code", [0, 255, -128, 127])
def test_extremes(kernel: str, code: int) -> None:
    dtype = torch.int8 if code in (-128, 127) else torch.uint8
    a = torch.full((6, 65536), code, dtype=dtype)
    full = torch.full((4, 65536), -128, dtype=torch.int8)
    masks = [windows(4, 65536, of, 0) != 0 for of in (8, 16)]
    for weight in (full, *(full * mask for mask in masks)):
        out = ops.int8_gemm(a, ops.sparse_pack(weight), 4, out_dtype=torch.int32)
        assert_same(out.long(), a.long() @ weight.long().T, kernel)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_threads(kernel: str, threads: int) -> None:
    rng = torch.Generator().manual_seed(0)
    a = random_codes(rng, 140, 260, True, 0)
    for weight in weights(330, 260, 4):
        with on_threads(threads):
            out = ops.int8_gemm(a, ops.sparse_pack(weight), 330, out_dtype=torch.int32)
        assert_same(out.long(), a.long() @ weight.long().T, f"{kernel} {threads}")


def test_damaged_bytes(kernel: str) -> None:
    """Counts, places and picks may say anything: what they lead to is refused or stays inside."""
    rng = torch.Generator().manual_seed(0)
    a = random_codes(rng, 14, 260, False, 0)
    for weight in weights(100, 260, 5):
        packed = ops.sparse_pack(weight)
        first = int(packed[64:72].view(torch.int64))
        for i in range(30):
            bytes_ = packed.clone()
            last = first + 64 if i % 3 == 0 else packed.numel()
            where = torch.randint(first, last, (200,), generator=rng)
            bytes_[where] = torch.randint(0, 256, (200,), generator=rng).to(torch.uint8)
            assert ops.int8_gemm(a, bytes_, 100).shape == (14, 100)
            assert ops.sparse_unpack(bytes_, [100, 260], torch.int8).shape == (100, 260)
        if form_of(packed) != ENTRIES:
            for at in (48, 54, 72):
                bytes_ = packed.clone()
                bytes_[at] = bytes_[at] + 9
                with pytest.raises((RuntimeError, ValueError)):
                    ops.int8_gemm(a, bytes_, 100)
