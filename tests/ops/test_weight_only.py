"""Every kernel of weight_only against float64, within the bound that its header states."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyops import backends, ops
from pyops.testing.cases.weight_only import FLOATS, WeightCase, weight_case
from pyops.testing.compare import assert_same, assert_within, sqnr_db
from pyops.testing.guarded import guarded
from pyops.testing.shapes import simd_sizes
from pyops.testing.threads import on_threads

ROWS = (1, 2, 3, 4, 5, 6, 7, 8, 12, 13, 30)
COLUMNS = (1, 3, 5, 8, 16, 17, 31, 32, 33, 48, 63, 64, 65, 96, 130)
DEPTHS = (0, 1, 2, 7, 8, 9, 31, 32, 33, 63, 65, 96, 127, 128, 129, 200, 257, 300)
KINDS = range(7)


def check(case: WeightCase, label: str) -> None:
    out = case.run()
    exact, bound = case.exact()
    assert out.dtype == case.out_dtype
    assert_within(out, exact, bound, f"{label} {case.label}")


def shape_of(seed: int) -> tuple[int, int, int]:
    rng = torch.Generator().manual_seed(seed)
    m, n, k = (s[int(torch.randint(len(s), (), generator=rng))] for s in (ROWS, COLUMNS, DEPTHS))
    return m, n, k


@pytest.mark.parametrize("block", range(4))
def test_random_problems(kernel: str, block: int) -> None:
    for seed in range(block * 150, block * 150 + 150):
        check(weight_case(seed, *shape_of(seed)), f"{kernel} seed {seed}")


def test_the_cases_cover_every_option() -> None:
    cases = [weight_case(seed, *shape_of(seed)) for seed in range(600)]
    assert {(c.group_size, c.zero is None) for c in cases} == {
        (0, True), *((g, z) for g in (32, 64, 128) for z in (True, False))
    }  # fmt: skip
    assert {c.activation for c in cases} == set(ops.ACTIVATIONS)
    assert {(c.x.dtype, c.out_dtype) for c in cases} == {(a, b) for a in FLOATS for b in FLOATS}
    assert {None if c.residual is None else c.residual.dtype for c in cases} == {None, *FLOATS}
    assert {c.bias is None for c in cases} == {True, False}


def test_the_reference_is_within_the_bound() -> None:
    for seed in range(300):
        case = weight_case(seed, *shape_of(seed))
        exact, bound = case.exact()
        assert_within(case.reference(), exact, bound, case.label)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dimension", ["m", "n", "k"])
def test_every_tail(kernel: str, dimension: str, kind: int) -> None:
    """At 2 rows in registers, at 9 decoded first."""
    for size in simd_sizes(140):
        for rows in (2, 9):
            m, n, k = (
                size if dimension == d else other
                for d, other in zip("mnk", (rows, 67, 70), strict=True)
            )
            check(weight_case(size, m, n, k, kind), kernel)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 40), st.integers(1, 150), st.integers(0, 300))
def test_the_active_kernel_on_any_shape(seed: int, m: int, n: int, k: int) -> None:
    check(weight_case(seed, m, n, k), "active")


@pytest.mark.parametrize("kind", KINDS)
def test_deep_and_tall_products(kernel: str, kind: int) -> None:
    """Several parts of the depth, several blocks and chunks of rows, several panels."""
    for m, n, k in ((1, 70, 5000), (100, 70, 520), (450, 40, 130), (7, 300, 1000)):
        check(weight_case(kind, m, n, k, kind), kernel)


@pytest.mark.parametrize("kind", KINDS)
def test_packing_is_inverted(kernel: str, kind: int) -> None:
    for n, k in ((1, 1), (5, 3), (64, 64), (65, 33), (130, 257), (7, 0), (0, 7), (33, 129)):
        case = weight_case(k, 1, n, k, kind)
        packed = case.pack()
        if kind == 0:
            assert_same(ops.int8_weight_unpack(packed, n, k), case.codes, kernel)
            continue
        zeros, size = case.zero is not None, case.group_size
        codes, scale, zero = ops.int4_unpack(packed, n, k, group_size=size, zeros=zeros)
        assert_same(codes, case.codes, kernel)
        assert_same(scale, case.scale, kernel)
        assert (zero is None) == (case.zero is None)
        if zero is not None and case.zero is not None:
            assert_same(zero, case.zero, kernel)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_results_do_not_depend_on_threads(kernel: str, kind: int, threads: int) -> None:
    cases = [weight_case(3, m, n, k, kind) for m, n, k in (
        (1, 900, 520), (5, 330, 260), (97, 333, 260), (400, 40, 130), (300, 200, 200)
    )]  # fmt: skip
    with on_threads(1):
        expected = [case.run() for case in cases]
    with on_threads(threads):
        for case, out in zip(cases, expected, strict=True):
            assert_same(case.run(), out, f"{kernel} {threads} threads {case.label}")


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_read_behind_a_buffer(kernel: str, kind: int) -> None:
    """Inputs end at an unmapped page: one byte too far is a fault."""
    for m, n, k in ((1, 1, 1), (7, 17, 5), (2, 70, 67), (13, 129, 64), (1, 64, 128), (30, 33, 130)):
        keep: list[object] = []
        case = weight_case(m, m, n, k, kind)
        for name in ("x", "codes", "scale", "zero", "bias", "residual"):
            value = getattr(case, name)
            setattr(case, name, None if value is None else guarded(value, keep))
        packed = guarded(case.pack(), keep)
        out = case.run(packed)
        exact, bound = case.exact()
        assert_within(out, exact, bound, f"{kernel} {case.label}")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [3, 11])
def test_nan_and_infinity_spread_as_in_a_float_product(kernel: str, kind: int, rows: int) -> None:
    case = weight_case(4, rows, 70, 75, kind)
    case.activation, case.out_dtype, case.residual = "none", torch.float32, None
    case.x = torch.randn(rows, 75)
    case.x[0, 74], case.x[1, 3], case.x[2, 2:4] = torch.inf, torch.nan, -torch.inf
    out, exact = case.run(), case.reference()
    assert_same(torch.isnan(out), torch.isnan(exact), kernel)
    assert_same(torch.isposinf(out), torch.isposinf(exact), kernel)
    assert_same(torch.isneginf(out), torch.isneginf(exact), kernel)
    assert torch.isnan(out[1]).all()
    assert not torch.isfinite(out[0]).any()
    assert torch.isfinite(out[3:]).all()


@pytest.mark.parametrize(("m", "n", "k"), [(0, 5, 7), (3, 0, 7), (3, 5, 0), (0, 0, 0)])
def test_empty_sizes(kernel: str, m: int, n: int, k: int) -> None:
    for kind in KINDS:
        case = weight_case(kind, m, n, k, kind)
        assert case.run().shape == case.reference().shape == (m, n)
        check(case, kernel)


@pytest.mark.parametrize(("n", "k"), [(0, 70), (5, 0), (0, 0)])
@pytest.mark.parametrize("symmetric", [True, False])
def test_empty_int4_weights(n: int, k: int, symmetric: bool) -> None:
    codes, scale, _ = ops.quantize_weight_int4(torch.empty(n, k), 64, symmetric)
    assert (codes.shape, scale.shape) == ((n, k), (n, -(-k // 64)))


def test_inputs_of_any_rank_and_stride(kernel: str) -> None:
    case = weight_case(1, 12, 20, 40, 1)
    case.bias = case.residual = None
    packed, flat = case.pack(), case.run()
    out = ops.int4_linear(
        case.x.reshape(2, 1, 6, 40), packed, 20, activation=case.activation,
        out_dtype=case.out_dtype,
    )  # fmt: skip
    assert_same(out, flat.reshape(2, 1, 6, 20), kernel)
    case.x = case.x.t().contiguous().t()
    assert not case.x.is_contiguous()
    assert_same(case.run(), flat, kernel)
    case.codes = case.codes.t().contiguous().t()
    assert_same(case.pack(), packed, kernel)


@pytest.mark.parametrize("group_size", [32, 64, 128])
@pytest.mark.parametrize("symmetric", [True, False])
def test_the_int4_quantizer(group_size: int, symmetric: bool) -> None:
    """No weight is off by more than half a step, except where the best scale clips."""
    w = torch.randn(33, 301, generator=torch.Generator().manual_seed(0))
    w[3], w[4, :group_size] = 0.0, 1e-30
    codes, scale, zero = ops.quantize_weight_int4(w, group_size, symmetric)
    low, high = (-8, 7) if symmetric else (0, 15)
    assert low <= int(codes.min()) <= int(codes.max()) <= high
    assert list(scale.shape) == [33, -(-301 // group_size)]
    wide = scale.repeat_interleave(group_size, 1)[:, :301]
    points = 0 if zero is None else zero.float().repeat_interleave(group_size, 1)[:, :301]
    back = (codes.float() - points) * wide
    step = wide * (0.501 if symmetric else 1.001)  # rounding of -min / scale moves the range
    clipped = (codes == low) | (codes == high)
    assert bool(((back - w).abs() <= step)[~clipped].all())
    assert bool((back[3] == 0).all())
    assert bool((scale[3] == 1).all())
    plain = (w / (w.abs().amax() / 7)).round().clamp(-8, 7) * (w.abs().amax() / 7)
    assert sqnr_db(back, w) > sqnr_db(plain, w) + 1


def test_zero_points_help_one_sided_weights() -> None:
    w = torch.rand(64, 256, generator=torch.Generator().manual_seed(0))
    quality = []
    for symmetric in (True, False):
        codes, scale, zero = ops.quantize_weight_int4(w, 64, symmetric)
        points = 0 if zero is None else zero.float().repeat_interleave(64, 1)
        quality.append(sqnr_db((codes.float() - points) * scale.repeat_interleave(64, 1), w))
    assert quality[1] > quality[0] + 4


def test_another_layout_is_refused() -> None:
    by_layout = {r.layout: r.name for r in backends.implementations("weight_only") if r.available}
    if len(by_layout) < 2:
        pytest.skip("this build has one layout only")
    (first, a), (second, b) = list(by_layout.items())[:2]
    for kind in (0, 1):
        case = weight_case(0, 3, 20, 20, kind)
        with backends.force("weight_only", a):
            packed = case.pack()
        message = f"the weight is packed as {first}, but kernel {b} takes {second}; pack it again"
        with backends.force("weight_only", b), pytest.raises(RuntimeError, match=message):
            case.run(packed)
