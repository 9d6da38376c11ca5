"""Every kernel of int8_pool against plain torch, bit for bit."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pyops import ops
from pyops.testing.cases.int8_pool import OPS, CodesCase, codes_case
from pyops.testing.compare import assert_same, assert_within
from pyops.testing.guarded import guarded
from pyops.testing.shapes import simd_sizes
from pyops.testing.threads import on_threads

CHANNELS = (1, 2, 3, 5, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 96, 129)


def check(case: CodesCase, label: str) -> None:
    out, fake = case.run(), case.plain("fake")
    assert_same(out, case.plain("reference"), f"{label} {case.label}")
    assert out.stride() == fake.stride(), case.label
    assert (out.shape, out.dtype) == (fake.shape, fake.dtype)


@pytest.mark.parametrize("op", OPS)
def test_random_problems(kernel: str, op: str) -> None:
    for seed in range(64):
        channels = CHANNELS[seed % len(CHANNELS)]
        check(codes_case(op, seed, channels, 1 + seed % 9, 1 + seed % 23), f"{kernel} {seed}")


@pytest.mark.parametrize("op", OPS)
def test_every_tail(kernel: str, op: str) -> None:
    for size in simd_sizes(140):
        check(codes_case(op, size, size, 3, 4), kernel)
        check(codes_case(op, size, 3, 2, size), kernel)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(OPS), st.integers(0, 2**31), st.integers(1, 140), st.integers(1, 20))
def test_the_active_kernel_on_any_shape(op: str, seed: int, channels: int, size: int) -> None:
    check(codes_case(op, seed, channels, size, 21 - size), "active")


@pytest.mark.parametrize("op", OPS)
def test_nothing_is_read_behind_a_buffer(kernel: str, op: str) -> None:
    """Inputs end at an unmapped page: one byte too far is a fault."""

    def end_at_a_page(t: Tensor) -> Tensor:
        if t.dim() != 4:
            return guarded(t.contiguous(), keep)
        return guarded(t.permute(0, 2, 3, 1).contiguous(), keep).permute(0, 3, 1, 2)

    for seed, channels in enumerate(CHANNELS):
        keep: list[object] = []
        case = codes_case(op, seed, channels, 5, 6).with_tensors(end_at_a_page)
        check(case, kernel)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_results_do_not_depend_on_threads(kernel: str, op: str, threads: int) -> None:
    cases = [codes_case(op, seed, c, h, w) for seed, (c, h, w) in enumerate(
        ((64, 40, 41), (3, 100, 99), (200, 17, 18))
    )]  # fmt: skip
    with on_threads(threads):
        for case in cases:
            check(case, f"{kernel} {threads} threads")


@pytest.mark.parametrize("op", OPS)
def test_empty_batches_and_channels(kernel: str, op: str) -> None:
    for seed in range(12):
        check(codes_case(op, seed, 0, 4, 5), kernel)
        batch = codes_case(op, seed, 5, 4, 6).with_tensors(lambda t: t[:0] if t.dim() == 4 else t)
        check(batch, kernel)


def test_pools_are_those_of_torch(kernel: str) -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (2, 37, 19, 22), dtype=torch.uint8, generator=rng)
    for ceil in (False, True):
        out = ops.int8_pool(x, 3, stride=2, padding=1, ceil_mode=ceil)
        assert_same(out, F.max_pool2d(x.float(), 3, 2, 1, 1, ceil).to(torch.uint8), kernel)
        out = ops.int8_pool(x, 2, dilation=3, stride=1, padding=1, ceil_mode=ceil)
        assert_same(out, F.max_pool2d(x.float(), 2, 1, 1, 3, ceil).to(torch.uint8), kernel)
        for pad in (False, True):
            for divisor in (None, 5):
                out = ops.int8_pool(
                    x, (3, 4), kind="average", stride=(2, 3), padding=(1, 2), ceil_mode=ceil,
                    count_include_pad=pad, divisor_override=divisor, out_dtype=torch.float32,
                )  # fmt: skip
                exact = F.avg_pool2d(x.double(), (3, 4), (2, 3), (1, 2), ceil, pad, divisor)
                assert_within(out, exact, exact * 2.0**-23, kernel)
    for size in ((1, 1), (7, 5), (19, 22), (30, 3)):
        out = ops.int8_adaptive_pool(x, size, out_dtype=torch.float32)
        exact = F.adaptive_avg_pool2d(x.double(), size)
        assert_within(out, exact, exact * 2.0**-23, kernel)
        best = ops.int8_adaptive_pool(x, size, kind="max")
        assert_same(best, F.adaptive_max_pool2d(x.float(), size).to(torch.uint8), kernel)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8])
def test_extremes_of_sums(kernel: str, dtype: torch.dtype) -> None:
    """More taps than 16-bit sums hold, all of one code."""
    info = torch.iinfo(dtype)
    for code in (info.min, info.max):
        x = torch.full((1, 70, 40, 41), code, dtype=dtype)
        for zero in (info.min, info.max):
            out = ops.int8_adaptive_pool(x, zero_point_x=zero, out_dtype=torch.float32)
            assert_same(out, torch.full((1, 70, 1, 1), float(code - zero)), kernel)


def test_values_that_no_code_has(kernel: str) -> None:
    x = torch.tensor([float("nan"), float("inf"), -float("inf"), 3e38, -3e38, 0.25, 0.75, -0.25])
    x = x.repeat(20)
    for dtype, expected in (
        (torch.uint8, [0, 255, 0, 255, 0, 10, 12, 10]),
        (torch.int8, [-128, 127, -128, 127, -128, 10, 12, 10]),
    ):
        out = ops.int8_quantize(x, scale=0.5, zero_point=10, dtype=dtype)
        assert_same(out, torch.tensor(expected, dtype=dtype).repeat(20), kernel)


def test_quantize_is_inverted_on_codes(kernel: str) -> None:
    q = torch.arange(256).to(torch.uint8)
    for zero in (0, 128, 255):
        x = ops.int8_dequantize(q, scale=0.037, zero_point=zero)
        assert_same(ops.int8_quantize(x, scale=0.037, zero_point=zero), q, kernel)


def test_sums_of_all_pairs_of_codes(kernel: str) -> None:
    a = torch.arange(256).to(torch.uint8).repeat(256)
    b = torch.arange(256).to(torch.uint8).repeat_interleave(256)
    for out_dtype in (3, 4):
        for activation in (0, 1, 5):
            arguments = [a, b, 0.03, 17, 0.05, 130, activation, -1.0, 6.0, out_dtype, 0.04, 3]
            check(CodesCase("int8_add", arguments), kernel)
