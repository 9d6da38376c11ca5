"""The form of sparse weights for few rows (``sparse_gemm/few_rows.h``), on every kernel."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyops import ops
from pyops.testing.cases.conv_relu import DTYPES, ConvCase
from pyops.testing.cases.sparse_gemm import LinearCase, few_form, linear_case, masked
from pyops.testing.compare import assert_same, assert_within
from pyops.testing.guarded import guarded
from pyops.testing.threads import on_threads

# Rows around what kernels take in that form.
ROWS = (1, 2, 3, 4, 5)
# Around strips of 4 outputs, sections of 64 and windows of 16 k; 2^14 weights have the form.
SHAPES = ((64, 257), (65, 256), (67, 271), (130, 127), (1, 16384), (16385, 1), (259, 65))
HAS_FORM = 52


def has_form(packed: Tensor) -> bool:
    return few_form(packed).numel() > 0


def most_rows(kernel: str) -> int:
    """How many rows the kernel takes in that form: what it computes without the form's bytes."""
    weight = masked(torch.ones(64, 256), 0.5, 1, 0)
    packed = ops.sparse_pack(weight)
    if not has_form(packed):
        return 0
    few_form(packed).zero_()  # no bits: all sums are 0
    kept = [bool(ops.sparse_linear(torch.ones(m, 256), packed, 64).any()) for m in ROWS]
    most = kept.index(True)
    assert all(kept[most:]), kernel
    return most


def test_which_kernels_take_it(kernel: str) -> None:
    """Plain C++ is slower with it; the odd kernel has it for the sake of tests."""
    assert (most_rows(kernel) == 0) == (kernel == "generic")


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_tail(kernel: str, dtype: torch.dtype) -> None:
    for seed in range(len(SHAPES) * 4):
        n, k = SHAPES[seed % len(SHAPES)]
        for m in ROWS:
            case = linear_case(m, n, k, seed, dtype)
            exact, bound = case.exact()
            assert_within(case.run(), exact, bound, f"{kernel} {seed} {case.label}")


def test_which_weights_have_it(kernel: str) -> None:
    most = most_rows(kernel)
    for n, k, density, expected in (
        (128, 128, 0.5, True),
        (128, 127, 0.5, False),
        (200, 100, 0.2, True),
        (400, 100, 0.01, False),
    ):
        weight = masked(torch.randn(n, k), density, 1, 0)
        assert has_form(ops.sparse_pack(weight)) == (expected and most > 0), (kernel, n, k, density)
        image = weight[..., None, None]
        assert not has_form(ops.conv_relu_pack(image, algorithm="sparse"))
    assert not has_form(ops.sparse_pack(torch.randn(64, 32, 3, 3)))
    assert not has_form(ops.sparse_pack(torch.randn(256, 128), groups=2))


def test_packed_twice_is_the_same(kernel: str) -> None:
    weight = masked(torch.randn(70, 300), 0.3, 1, 0)
    first, second = (ops.sparse_pack(weight.clone()) for _ in range(2))
    assert torch.equal(first, second), kernel


@pytest.mark.parametrize("dtype", DTYPES)
def test_new_values(kernel: str, dtype: torch.dtype) -> None:
    for transposed in (False, True):
        for n, k in ((67, 300), (301, 66)):
            weight = masked(torch.randn(n, k), 0.4, 1, n).to(dtype)
            packed = ops.sparse_pack(weight)
            new = torch.where(weight != 0, weight + 1 + weight.abs(), 0).to(dtype)
            assert bool(((new != 0) == (weight != 0)).all())
            given = new.t().contiguous() if transposed else new
            ops.sparse_refresh(packed, given, transposed)
            assert torch.equal(packed, ops.sparse_pack(new)), f"{kernel} {n} {k} {transposed}"


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_results_do_not_depend_on_threads(kernel: str, threads: int) -> None:
    cases = [linear_case(m, 1001, 600, 4 * m, dtype) for m in ROWS for dtype in DTYPES]
    skewed = torch.zeros(1000, 700)
    skewed[:90] = torch.randn(90, 700)
    cases.append(LinearCase(torch.randn(1, 700), skewed))
    with on_threads(1):
        expected = [case.run() for case in cases]
    with on_threads(threads):
        for case, out in zip(cases, expected, strict=True):
            assert_same(case.run(), out, f"{kernel} {threads} threads {case.label}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_is_read_behind_a_buffer(kernel: str, dtype: torch.dtype) -> None:
    """Inputs end at an unmapped page: one byte too far is a fault."""
    for seed, (n, k) in enumerate(SHAPES):
        for m in ROWS:
            keep: list[object] = []
            case = linear_case(m, n, k, seed, dtype)
            want = case.run()
            packed = guarded(ops.sparse_pack(guarded(case.weight, keep)), keep)
            case.x = guarded(case.x, keep)
            case.bias = None if case.bias is None else guarded(case.bias, keep)
            assert_same(case.run(packed), want, f"{kernel} {case.label}")


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite(kernel: str, value: float) -> None:
    """It reaches the outputs that have an entry for it, and no other."""
    weight = masked(torch.randn(130, 150), 0.2, 1, 3)
    for m in ROWS:
        x = torch.randn(m, 150)
        x[m - 1, 7] = value
        reached = ~LinearCase(x, weight).run().isfinite()
        assert torch.equal(reached[m - 1], weight[:, 7] != 0), f"{kernel} {m}"
        assert not reached[: m - 1].any()


def test_a_weight_that_is_not_finite_is_an_entry(kernel: str) -> None:
    weight = torch.zeros(128, 150)
    weight[:, ::4] = 1
    weight[77, 149] = torch.nan
    for m in ROWS:
        out = LinearCase(torch.ones(m, 150), weight).run()
        assert torch.equal(out.isnan(), (torch.arange(128) == 77).expand(m, 128)), f"{kernel} {m}"


def test_images_of_few_pixels(kernel: str) -> None:
    """A convolution takes the form too, with its steps, its padding and its epilogue."""
    for seed, (stride, padding, size) in enumerate(((1, 0, 1), (2, 0, 3), (1, 1, 0), (3, 1, 2))):
        rng = torch.Generator().manual_seed(seed)
        x = torch.randn(1, 150, size + 1, 1, generator=rng)
        weight = masked(torch.randn(130, 150, 1, 1, generator=rng), 0.3, 1, seed)
        case = ConvCase(x.to(memory_format=torch.channels_last), weight)
        case.stride, case.padding = (stride, stride), (padding, 0, padding, 0)
        case.bias, case.activation = torch.randn(130, generator=rng), "relu"
        exact, bound = case.exact()
        assert_within(case.run(ops.sparse_pack(weight)), exact, bound, f"{kernel} {case.label}")


def test_damaged_bytes_are_refused_or_harmless(kernel: str) -> None:
    """Whatever the table, the bits and the values are, nothing outside is read or written."""
    weight = masked(torch.randn(70, 300), 0.3, 1, 0)
    packed = ops.sparse_pack(weight)
    rng = torch.Generator().manual_seed(0)
    if not has_form(packed):
        assert kernel == "generic"
        return
    for flag in (2, 255):
        bytes_ = packed.clone()
        bytes_[HAS_FORM] = flag
        with pytest.raises((RuntimeError, ValueError), match="its header is damaged"):
            ops.sparse_linear(torch.ones(1, 300), bytes_, 70)
    bytes_ = packed.clone()
    bytes_[HAS_FORM] = 0
    with pytest.raises((RuntimeError, ValueError), match="its table of sections is damaged"):
        ops.sparse_linear(torch.ones(1, 300), bytes_, 70)
    for part in (slice(0, 8 * 19), slice(8 * 19, None)):
        for trial in range(20):
            keep: list[object] = []
            bytes_ = guarded(packed, keep)
            form = few_form(bytes_)[part]
            count = 19 if trial % 2 else form.numel()
            where = torch.randint(0, form.numel(), (count,), generator=rng)
            form[where] = torch.randint(0, 256, (count,), generator=rng).to(torch.uint8)
            for m in ROWS:
                assert ops.sparse_linear(torch.ones(m, 300), bytes_, 70).shape == (m, 70)
            ops.sparse_refresh(bytes_, weight)
