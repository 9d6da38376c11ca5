"""Every kernel of int8_gemm against the plain-torch reference: integers and floats bit for bit."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pyops import backends, ops
from pyops.ops import epilogue, packing
from pyops.ops.int8_gemm_reference import int8_gemm_reference, quantize_rows_reference
from pyops.testing.cases.int8_gemm import (
    gemm_case,
    linear_case,
    quantizer_inputs,
    random_codes,
)
from pyops.testing.compare import assert_same, assert_within
from pyops.testing.guarded import guarded
from pyops.testing.shapes import simd_sizes
from pyops.testing.threads import on_threads

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
DIMENSIONS = (1, 2, 3, 5, 6, 7, 8, 12, 13, 16, 17, 31, 32, 33, 40, 63, 64, 65, 80, 96, 129)
DEPTHS = (0, 1, 2, 3, 4, 5, 7, 8, 31, 32, 33, 63, 64, 65, 66, 100, 127, 128, 130, 200)


def shape_of(seed: int) -> tuple[int, int, int]:
    rng = torch.Generator().manual_seed(seed)
    at = [int(torch.randint(len(s), (), generator=rng)) for s in (DIMENSIONS, DIMENSIONS, DEPTHS)]
    return DIMENSIONS[at[0]], DIMENSIONS[at[1]], DEPTHS[at[2]]


@pytest.mark.parametrize("block", range(20))
def test_all_kernels_equal_the_reference(block: int) -> None:
    """2000 random problems, each with another epilogue, on every kernel of this CPU."""
    rows = [r for r in backends.implementations("int8_gemm") if r.available]
    for seed in range(block * 100, block * 100 + 100):
        case = gemm_case(seed, *shape_of(seed))
        expected = case.reference()
        for row in rows:
            with backends.force("int8_gemm", row.name):
                assert_same(case.run(), expected, f"{row.name} seed {seed} {case.label}")


@pytest.mark.parametrize("dimension", ["m", "n", "k"])
def test_every_tail(kernel: str, dimension: str) -> None:
    for size in simd_sizes(140):
        m, n, k = (
            size if dimension == d else other for d, other in zip("mnk", (7, 66, 68), strict=True)
        )
        case = gemm_case(size, m, n, k)
        assert_same(case.run(), case.reference(), f"{kernel} {case.label}")


def test_linear_equals_the_reference(kernel: str) -> None:
    for seed in range(150):
        case = linear_case(seed, *shape_of(seed))
        assert_same(case.run(), case.reference(), f"{kernel} seed {seed} {case.label}")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 40), st.integers(1, 150), st.integers(0, 300))
def test_the_active_kernel_on_any_shape(seed: int, m: int, n: int, k: int) -> None:
    for case in (gemm_case(seed, m, n, k), linear_case(seed, m, n, k)):
        assert_same(case.run(), case.reference(), case.label)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("a_extreme", [1, 2])
@pytest.mark.parametrize("w_extreme", [1, 2])
def test_extremes_do_not_saturate(
    kernel: str, signed: bool, a_extreme: int, w_extreme: int
) -> None:
    """All lowest or all highest codes at the largest K, against int64."""
    k = packing.MAX_K if kernel != "reference" else 4096
    rng = torch.Generator().manual_seed(0)
    a = random_codes(rng, 7, k, signed, a_extreme)
    w = random_codes(rng, 17, k, True, w_extreme)
    out = ops.int8_gemm(a, ops.int8_pack(w), 17, out_dtype=torch.int32)
    assert_same(out.long(), a.long() @ w.long().T, kernel)


def test_large_products_match_int64(kernel: str) -> None:
    rng = torch.Generator().manual_seed(1)
    # By rows in several blocks, by columns, and by columns in several chunks of rows.
    for m, n, k in ((515, 70, 1200), (3, 700, 4100), (140, 700, 4100)):
        a, w = random_codes(rng, m, k, True, 0), random_codes(rng, n, k, True, 0)
        out = ops.int8_gemm(a, ops.int8_pack(w), n, out_dtype=torch.int32)
        assert_same(out, (a.double() @ w.double().T).to(torch.int32), f"{kernel} {m} {n} {k}")


def test_pack_and_unpack(kernel: str) -> None:
    rng = torch.Generator().manual_seed(2)
    for n in simd_sizes(140):
        for k in (0, 1, 3, 4, 5, 64, 67):
            w = random_codes(rng, n, k, True, 0)
            assert_same(ops.int8_unpack(ops.int8_pack(w), n, k), w, f"{kernel} N{n} K{k}")


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("out", [torch.int8, torch.uint8])
def test_quantize_rows(kernel: str, dtype: torch.dtype, symmetric: bool, out: torch.dtype) -> None:
    for x in quantizer_inputs():
        x = x.to(dtype)
        got = ops.quantize_rows(x, symmetric=symmetric, dtype=out)
        expected = quantize_rows_reference(x, symmetric, out == torch.int8)
        for name, a, b in zip(("q", "scale", "zero_point"), got, expected, strict=True):
            assert_same(a, b, f"{kernel} {name} of {tuple(x.shape)}")


@pytest.mark.parametrize("symmetric", [True, False])
def test_quantizer_error_is_at_most_half_a_step(symmetric: bool) -> None:
    """|x - (q - zero) * scale| <= scale / 2, plus the rounding of four float32 operations.

    The zero point is rounded, so the ends of an asymmetric range may clip by another half step.
    """
    x = torch.randn(50, 300, generator=torch.Generator().manual_seed(4))
    q, scale, zero = ops.quantize_rows(x, symmetric=symmetric, dtype=torch.uint8)
    back = (q.double() - zero[:, None].double()) * scale[:, None].double()
    half = scale[:, None].double() * (0.5 if symmetric else 1.0)
    bound = half + 4 * torch.finfo(torch.float32).eps * x.abs().amax(1, keepdim=True).double()
    assert_within(back, x.double(), bound.expand_as(back), "dequantized")


def test_rows_that_are_not_finite_give_nan_rows(kernel: str) -> None:
    x = torch.randn(9, 40)
    x[2, 39], x[5, 0] = torch.nan, -torch.inf
    w, scale = ops.quantize_weight(torch.randn(33, 40))
    out = ops.int8_linear(x, ops.int8_pack(w), scale, activation="relu")
    bad = torch.isnan(out).all(1)
    assert bad.tolist() == [r in (2, 5) for r in range(9)]
    assert torch.isfinite(out[~bad]).all()


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_results_do_not_depend_on_threads(kernel: str, threads: int) -> None:
    case = linear_case(11, 97, 333, 260)
    big = linear_case(12, 300, 640, 512)
    expected = (case.run(), big.run())
    with on_threads(threads):
        if backends.compiled():
            from pyops import _C

            assert _C.threads_seen() == threads
        assert_same(case.run(), expected[0], f"{kernel} {threads} threads")
        assert_same(big.run(), expected[1], f"{kernel} {threads} threads")


def test_nothing_is_read_behind_a_buffer(kernel: str) -> None:
    """Inputs end at an unmapped page: one byte too far is a fault."""
    keep: list[object] = []
    for m, n, k in ((1, 1, 1), (7, 17, 5), (13, 70, 67), (33, 129, 64), (8, 64, 128)):
        rng = torch.Generator().manual_seed(m)
        w = random_codes(rng, n, k, True, 0)
        packed = guarded(ops.int8_pack(guarded(w, keep)), keep)
        codes = [guarded(random_codes(rng, m, k, signed, 0), keep) for signed in (True, False)]
        scale_a, scale_w = guarded(torch.rand(m), keep), guarded(torch.rand(n), keep)
        bias = guarded(torch.randn(n), keep)
        for dtype in FLOATS:
            residual = guarded(torch.randn(m, n).to(dtype), keep)
            x = guarded(torch.randn(m, k).to(dtype), keep)
            ops.quantize_rows(x, symmetric=False)
            ops.int8_linear(x, packed, scale_w, bias, residual=residual)
            for a in codes:
                ops.int8_gemm(
                    a, packed, n, scale_a=scale_a, scale_w=scale_w, bias=bias, residual=residual
                )
        assert_same(ops.int8_unpack(packed, n, k), w, kernel)


# gelu is max(x, 0) - |x| t(f): the fit of t is off by at most 1.3e-8. With u = 2^-24, the error in
# units of |x| is u for the difference, u/2 for the product as t <= 1/2, u/4 + u/16 for the last
# step of the polynomial and less before it; f is off by 2 i u in interval i of the table, where
# the slope of t falls from 0.14 so fast that 2 i |slope| stays below 1/2. Together 2.4 u; 1.4 u is
# the largest seen.
GELU_ERROR = 1.3e-8 + 2.5 * 2.0**-24
# silu divides by 1 + exp(-x): a dozen roundings of 6e-8 each, most of them on smaller terms.
SILU_ERROR = 6e-7


@pytest.mark.parametrize(
    ("name", "exact", "relative"),
    [
        ("gelu", lambda x: F.gelu(x), GELU_ERROR),
        ("gelu_tanh", lambda x: F.gelu(x, approximate="tanh"), GELU_ERROR),
        ("silu", lambda x: F.silu(x), SILU_ERROR),
    ],
)
def test_activation_accuracy(name: str, exact, relative: float) -> None:
    x = torch.cat((torch.linspace(-20, 20, 400_001), torch.linspace(-1e-3, 1e-3, 2001)))
    out, ref = epilogue.activate(x, name), exact(x.double())
    assert_within(out, ref, relative * x.abs().double() + 2e-38, name)


@pytest.mark.parametrize("name", ["gelu", "gelu_tanh"])
def test_gelu_is_exact_far_from_zero(kernel: str, name: str) -> None:
    bias = torch.tensor([-100.0, 100.0, -1e30, 1e30, -20.0, 20.0, 0.0])
    empty = ops.int8_pack(torch.zeros(7, 4, dtype=torch.int8))
    out = ops.int8_gemm(torch.zeros(3, 4, dtype=torch.int8), empty, 7, bias=bias, activation=name)
    assert_same(out, bias.clamp(min=0).expand(3, 7), f"{kernel} {name}")


@pytest.mark.parametrize("name", ops.ACTIVATIONS)
def test_activations_propagate_nan_and_infinity(kernel: str, name: str) -> None:
    bias = torch.tensor([torch.nan, torch.inf, -1e30, 1e30, -0.0, 0.0])
    w = torch.zeros(6, 4, dtype=torch.int8)
    a = torch.zeros(1, 4, dtype=torch.int8)
    out = ops.int8_gemm(a, ops.int8_pack(w), 6, bias=bias, activation=name)[0]
    assert_same(out, epilogue.activate(bias, name), f"{kernel} {name}")
    assert torch.isnan(out[0])
    assert out[1] == torch.inf
    assert out[3] == 1e30


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8])
@pytest.mark.parametrize("activation", ["none", "relu", "silu"])
def test_values_beyond_every_code_saturate(
    kernel: str, dtype: torch.dtype, activation: str
) -> None:
    """Also those beyond int32; NaN becomes the lowest code. In whole vectors and in tails."""
    special = [torch.nan, torch.inf, -torch.inf, 1e30, -1e30, 3e9, -3e9, 2.0**31, -(2.0**31) - 256]
    bias = torch.zeros(150)
    for at in (0, 13, 60, 128, 141):
        bias[at : at + 9] = torch.tensor(special)
    weight = torch.arange(150 * 20).reshape(150, 20).remainder(255).sub(127).to(torch.int8)
    a = torch.arange(7 * 20).reshape(7, 20).remainder(256).to(torch.uint8)
    packed, info = ops.int8_pack(weight), torch.iinfo(dtype)
    for zero, scale in itertools.product((info.min, info.max, 7), (0.05, 1e-30, 1e30)):
        arguments = (None, None, torch.full((150,), 1e-4), bias, None)
        out = ops.int8_gemm(
            a,
            packed,
            150,
            scale_w=arguments[2],
            bias=bias,
            activation=activation,
            out_dtype=dtype,
            out_scale=scale,
            out_zero_point=zero,
        )
        codes = epilogue.ACTIVATION_CODE[activation], epilogue.OUT_DTYPE_CODE[dtype], scale, zero
        plain = packing.pack_plain(weight)
        assert_same(out, int8_gemm_reference(a, plain, 150, *arguments, *codes), f"{kernel} {zero}")
