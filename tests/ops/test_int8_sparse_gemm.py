"""Every kernel of int8_sparse_gemm against the reference of dense weights, bit for bit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyops import ops
from pyops.ops import packing
from pyops.testing.cases.int8_gemm import random_codes
from pyops.testing.cases.int8_sparse_gemm import (
    SparseConvCase,
    SparseGemmCase,
    SparseLinearCase,
    conv_case,
    gemm_case,
    linear_case,
    n_of_m,
)
from pyops.testing.cases.sparse_gemm import few_form, masked
from pyops.testing.compare import assert_same
from pyops.testing.guarded import guarded
from pyops.testing.threads import on_threads

Case = SparseGemmCase | SparseLinearCase | SparseConvCase

# Around tiles of tokens, sections, pairs and quads of outputs, groups of entries, blocks of k.
SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 130)


def check(case: Case, label: str) -> None:
    assert_same(case.run(), case.reference(), f"{label} {case.label}")


def shape_of(seed: int) -> tuple[int, int, int]:
    rng = torch.Generator().manual_seed(seed)
    m, n, k = (SIZES[int(torch.randint(len(SIZES), (), generator=rng))] for _ in range(3))
    return m, n, k


@pytest.mark.parametrize("block", range(3))
def test_random_products(kernel: str, block: int) -> None:
    for seed in range(block * 100, (block + 1) * 100):
        check(gemm_case(seed, *shape_of(seed)), f"{kernel} seed {seed}")
        check(linear_case(seed, *shape_of(seed)), f"{kernel} seed {seed}")


@pytest.mark.parametrize("block", range(4))
def test_random_convolutions(kernel: str, block: int) -> None:
    for seed in range(block * 50, (block + 1) * 50):
        check(conv_case(seed), f"{kernel} seed {seed}")


def test_as_many_groups_as_channels(kernel: str) -> None:
    for seed in range(20):
        check(conv_case(seed, depthwise=True), f"{kernel} seed {seed}")


@pytest.mark.parametrize("dimension", ["m", "n", "k"])
def test_every_tail(kernel: str, dimension: str) -> None:
    for seed, size in enumerate(SIZES):
        m, n, k = (
            size if dimension == d else other for d, other in zip("mnk", (66, 70, 40), strict=True)
        )
        check(gemm_case(seed, m, n, k), kernel)


def test_many_blocks_of_k_sections_and_chunks(kernel: str) -> None:
    """More outputs than sums stay in a cache, more k than a block, more rows than a chunk."""
    for seed, (m, n, k) in enumerate(((3, 1100, 70), (200, 130, 1300), (400, 67, 2100))):
        check(gemm_case(seed + 1, m, n, k), kernel)
        check(linear_case(seed + 1, m, n, k), kernel)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 150), st.integers(1, 150), st.integers(1, 300))
def test_the_active_kernel_on_any_shape(seed: int, m: int, n: int, k: int) -> None:
    check(gemm_case(seed, m, n, k), f"active seed {seed}")
    check(conv_case(seed), f"active seed {seed}")


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("a_extreme", [1, 2])
@pytest.mark.parametrize("w_extreme", [1, 2])
def test_extremes_do_not_saturate(
    kernel: str, signed: bool, a_extreme: int, w_extreme: int
) -> None:
    """All lowest or all highest codes and weights at the largest K, against int64."""
    k = packing.MAX_K if kernel != "reference" else 4096
    rng = torch.Generator().manual_seed(0)
    a = random_codes(rng, 5, k, signed, a_extreme)
    w = random_codes(rng, 6, k, True, w_extreme)
    w[4:, ::3] = 0  # 4 outputs that share all k, 2 that share few with them
    out = ops.int8_gemm(a, ops.sparse_pack(w), 6, out_dtype=torch.int32)
    assert_same(out.long(), a.long() @ w.long().T, kernel)


@pytest.mark.parametrize(("keep", "of"), [(2, 4), (1, 4), (4, 8)])
def test_n_of_m(kernel: str, keep: int, of: int) -> None:
    rng = torch.Generator().manual_seed(0)
    a = random_codes(rng, 70, 96, False, 0)
    for weight in (n_of_m(70, 96, keep, of, 1), n_of_m(5, 96, keep, of, 1).repeat(16, 1)):
        assert float((weight != 0).double().mean()) == keep / of
        check(SparseGemmCase(a, weight), kernel)


def test_the_dense_ops_compute_the_same(kernel: str) -> None:
    rng = torch.Generator().manual_seed(0)
    weight = masked(random_codes(rng, 100, 300, True, 0), 0.2, 1, 0)
    dense, sparse = ops.int8_pack(weight), ops.sparse_pack(weight)
    x, scale = torch.randn(77, 300, generator=rng), torch.rand(100, generator=rng)
    assert_same(ops.int8_linear(x, sparse, scale), ops.int8_linear(x, dense, scale), kernel)
    a = random_codes(rng, 77, 300, True, 0)
    assert_same(ops.int8_gemm(a, sparse, 100), ops.int8_gemm(a, dense, 100), kernel)
    image = x.reshape(77, 300, 1, 1).mul(20).to(torch.int8)
    four_d = weight.reshape(100, 300, 1, 1)
    assert_same(
        ops.int8_conv_relu(image, sparse, four_d.shape, zero_point_x=3),
        ops.int8_conv_relu(image, ops.int8_conv_pack(four_d), four_d.shape, zero_point_x=3),
        kernel,
    )


def test_packing_is_inverted(kernel: str) -> None:
    for seed in range(60):
        case = conv_case(seed)
        packed = ops.sparse_pack(case.weight, case.groups)
        back = ops.sparse_unpack(packed, case.weight.shape, torch.int8)
        assert_same(back, case.weight, f"{kernel} {case.label}")
    weight = masked(random_codes(torch.Generator(), 130, 1300, True, 0), 0.3, 1, 0)
    back = ops.sparse_unpack(ops.sparse_pack(weight), weight.shape, torch.int8)
    assert_same(back, weight, kernel)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_results_do_not_depend_on_threads(kernel: str, threads: int) -> None:
    cases: list[Case] = [conv_case(seed) for seed in range(15)]
    for seed, (m, n, k) in enumerate(((1, 2000, 300), (70, 500, 200), (300, 64, 500))):
        cases += [gemm_case(seed, m, n, k), linear_case(seed, m, n, k)]
    with on_threads(1):
        expected = [case.run() for case in cases]
    with on_threads(threads):
        for case, out in zip(cases, expected, strict=True):
            assert_same(case.run(), out, f"{kernel} {threads} threads {case.label}")


def test_nothing_is_read_behind_a_buffer(kernel: str) -> None:
    """Inputs end at an unmapped page: one byte too far is a fault."""
    for seed in range(30):
        keep: list[object] = []
        conv, product = conv_case(seed), gemm_case(seed, *shape_of(seed))
        wanted = conv.run(), product.run()
        if conv.x.numel() == 0:
            continue
        conv.x = guarded(conv.x.permute(0, 2, 3, 1), keep).permute(0, 3, 1, 2)
        product.a = guarded(product.a, keep)
        for values in (conv.options, product.epilogue):
            for name, value in values.items():
                if isinstance(value, torch.Tensor) and value.dim() == 1:
                    values[name] = guarded(value, keep)
        conv.weight = guarded(conv.weight, keep)
        packed = ops.sparse_pack(conv.weight, conv.groups)
        assert_same(conv.run(guarded(packed, keep)), wanted[0], f"{kernel} {conv.label}")
        packed = guarded(ops.sparse_pack(guarded(product.weight, keep)), keep)
        assert_same(product.run(packed), wanted[1], f"{kernel} {product.label}")


def test_a_weight_takes_bytes_for_its_entries_alone(kernel: str) -> None:
    """3 bytes an entry, 1.5 where 4 outputs share its k, and what ends runs and pairs.

    In the form for few rows 1 byte, and a bit for each of the weights, of which 1 of 4 is an entry.
    """
    weight = random_codes(torch.Generator().manual_seed(0), 256, 1024, True, 2)
    for shared, most in ((1, 3.6), (4, 1.8)):
        entries = masked(weight, 0.25, shared, 1)
        packed, count = ops.sparse_pack(entries), int((entries != 0).sum())
        few = few_form(packed).numel()
        assert (packed.numel() - few) / count < most, f"{kernel} {shared}"
        assert few / count < 1.52, f"{kernel} {shared}"


def test_no_rows(kernel: str) -> None:
    packed = ops.sparse_pack(torch.ones(3, 4, dtype=torch.int8))
    assert ops.int8_gemm(torch.zeros(0, 4, dtype=torch.int8), packed, 3).shape == (0, 3)
    assert ops.int8_linear(torch.zeros(2, 0, 4), packed, torch.ones(3)).shape == (2, 0, 3)


def test_rows_that_are_not_finite(kernel: str) -> None:
    weight = masked(random_codes(torch.Generator(), 9, 30, True, 0), 0.2, 1, 0)
    x = torch.randn(70, 30)
    x[5, 7] = torch.nan
    out = ops.int8_linear(x, ops.sparse_pack(weight), torch.ones(9))
    assert out[5].isnan().all(), kernel
    assert out[torch.arange(70) != 5].isfinite().all(), kernel


def test_damaged_bytes_are_refused_or_harmless(kernel: str) -> None:
    """The header and the table are checked; entries may point anywhere, and stay inside buffers."""
    rng = torch.Generator().manual_seed(0)
    weight = masked(random_codes(rng, 70, 1300, True, 0), 0.3, 1, 0)
    packed, a = ops.sparse_pack(weight), random_codes(rng, 66, 1300, False, 0)
    for at in (9, 24, 40, 45, 57, 65, 73):
        bytes_ = packed.clone()
        bytes_[at] = 255 - bytes_[at]
        with pytest.raises((RuntimeError, ValueError, TypeError)):
            ops.int8_gemm(a, bytes_, 70)
    first = int(packed[64:72].view(torch.int64))
    for _ in range(20):
        bytes_ = packed.clone()
        where = torch.randint(first, packed.numel(), (300,), generator=rng)
        bytes_[where] = torch.randint(0, 256, (300,), generator=rng).to(torch.uint8)
        assert ops.int8_gemm(a, bytes_, 70).shape == (66, 70)
        assert ops.sparse_unpack(bytes_, [70, 1300], torch.int8).shape == (70, 1300)
