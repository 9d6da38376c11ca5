"""The form of int8 sparse weights for few rows (``sparse_gemm/few_rows.h``), on every kernel."""

from __future__ import annotations

import pytest
import torch

from pyops import ops
from pyops.testing.cases.int8_sparse_gemm import SparseGemmCase, gemm_case, linear_case
from pyops.testing.cases.sparse_gemm import few_form, masked
from pyops.testing.compare import assert_same
from pyops.testing.guarded import guarded
from pyops.testing.threads import on_threads

# Rows around what kernels take in that form.
ROWS = (1, 2, 3, 4, 5)
# Around strips of 4 outputs, sections of 64 and windows of 64 k; 2^14 weights have the form.
SHAPES = ((64, 257), (65, 256), (67, 319), (130, 127), (1, 16384), (16385, 1), (259, 65))


def codes(n: int, k: int, density: float, seed: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    values = torch.randint(-127, 128, (n, k), generator=rng, dtype=torch.int8)
    return masked(values, density, 1, seed)


def test_which_kernels_take_it(kernel: str) -> None:
    """What spreads bytes, and the odd kernel for the sake of tests: seen by what it reads."""
    packed = ops.sparse_pack(torch.ones(64, 256, dtype=torch.int8))
    form = few_form(packed)
    assert (form.numel() > 0) == (kernel in ("avx512vbmi2", "odd")), kernel
    if not form.numel():
        return
    form.zero_()  # no bits: all sums are 0
    rows = [torch.ones(m, 256, dtype=torch.uint8) for m in ROWS]
    kept = [bool(ops.int8_gemm(a, packed, 64, out_dtype=torch.int32).any()) for a in rows]
    most = 2 if kernel == "odd" else 4
    assert kept == [m > most for m in ROWS], kernel


@pytest.mark.parametrize("block", range(4))
def test_every_tail_and_epilogue(kernel: str, block: int) -> None:
    for seed in range(block * len(SHAPES), (block + 1) * len(SHAPES)):
        n, k = SHAPES[seed % len(SHAPES)]
        for m in ROWS:
            for case in (gemm_case(seed * 5 + m, m, n, k), linear_case(seed * 5 + m, m, n, k)):
                assert_same(case.run(), case.reference(), f"{kernel} seed {seed} {case.label}")


@pytest.mark.parametrize("a", [0, 255, -128, 127])
@pytest.mark.parametrize("w", [-128, 127])
def test_extremes(kernel: str, a: int, w: int) -> None:
    n, k = 5, 65536
    dtype = torch.int8 if a in (-128, 127) else torch.uint8
    weight = torch.full((n, k), w, dtype=torch.int8)
    for m in ROWS[:4]:
        out = ops.int8_gemm(
            torch.full((m, k), a, dtype=dtype), ops.sparse_pack(weight), n, out_dtype=torch.int32
        )
        assert_same(out, torch.full((m, n), a * w * k, dtype=torch.int32), f"{kernel} {m}")


def test_packing_is_inverted(kernel: str) -> None:
    for seed, (n, k) in enumerate(SHAPES):
        weight = codes(n, k, (0.5, 0.1, 1.0)[seed % 3], seed)
        packed = ops.sparse_pack(weight)
        assert_same(ops.sparse_unpack(packed, [n, k], torch.int8), weight, kernel)
        assert torch.equal(packed, ops.sparse_pack(weight.clone())), kernel


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_results_do_not_depend_on_threads(kernel: str, threads: int) -> None:
    skewed = torch.zeros(1000, 700, dtype=torch.int8)
    skewed[:90] = 3
    cases = [SparseGemmCase(torch.ones(1, 700, dtype=torch.uint8), skewed, {})]
    cases += [gemm_case(4 * m, m, 1001, 600) for m in ROWS]
    with on_threads(threads):
        for case in cases:
            assert_same(case.run(), case.reference(), f"{kernel} {threads} {case.label}")


def test_nothing_is_read_behind_a_buffer(kernel: str) -> None:
    """Inputs end at an unmapped page: one byte too far is a fault."""
    for seed, (n, k) in enumerate(SHAPES):
        for m in ROWS:
            keep: list[object] = []
            case = gemm_case(seed, m, n, k)
            want = case.reference()
            packed = guarded(ops.sparse_pack(guarded(case.weight, keep)), keep)
            case.a = guarded(case.a, keep)
            assert_same(case.run(packed), want, f"{kernel} {case.label}")


def test_damaged_bytes_are_harmless(kernel: str) -> None:
    """Whatever the table, the bits and the values are, nothing outside is read."""
    packed = ops.sparse_pack(codes(70, 300, 0.3, 0))
    rng = torch.Generator().manual_seed(0)
    table = 8 * 19
    for trial in range(40):
        keep: list[object] = []
        bytes_ = guarded(packed, keep)
        form = few_form(bytes_)
        if not form.numel():
            return
        part = form[:table] if trial % 4 < 2 else form[table:]
        count = 19 if trial % 2 else part.numel()
        where = torch.randint(0, part.numel(), (count,), generator=rng)
        part[where] = torch.randint(0, 256, (count,), generator=rng).to(torch.uint8)
        for m in ROWS:
            a = torch.ones(m, 300, dtype=torch.int8)
            out = ops.int8_gemm(a, bytes_, 70, out_dtype=torch.int32)
            assert out.shape == (m, 70)
