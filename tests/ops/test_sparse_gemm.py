"""Every kernel of sparse_gemm against float64, within the bound of a dense product."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyops import backends, ops
from pyops.ops import sparse_gemm_reference as reference
from pyops.ops.pairs import kernel_of, multiplies_pairs
from pyops.ops.sparse_gemm import OP
from pyops.testing.cases.conv_relu import DTYPES, ConvCase
from pyops.testing.cases.sparse_gemm import (
    LinearCase,
    in_panels,
    linear_case,
    masked,
    sparse_conv_case,
)
from pyops.testing.compare import assert_same, assert_within
from pyops.testing.guarded import guarded
from pyops.testing.threads import on_threads

PRODUCTS = 24  # where the header says what is multiplied
# Around tiles of tokens, sections and quads of outputs, blocks of k.
SIZES = (1, 2, 3, 4, 5, 15, 16, 17, 31, 33, 47, 48, 63, 64, 65, 130)


def check(case: ConvCase | LinearCase, label: str) -> None:
    out = case.run()
    exact, bound = case.exact()
    assert out.dtype == case.x.dtype
    assert_within(out, exact, bound, f"{label} {case.label}")


@pytest.mark.parametrize("block", range(4))
def test_random_convolutions(kernel: str, block: int) -> None:
    for seed in range(block * 50, (block + 1) * 50):
        check(sparse_conv_case(seed), f"{kernel} seed {seed}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_tail(kernel: str, dtype: torch.dtype) -> None:
    for seed, size in enumerate(SIZES):
        for m, n, k in ((size, 70, 33), (7, size, 40), (66, 9, size)):
            check(linear_case(m, n, k, seed, dtype), f"{kernel} {seed}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_many_blocks_of_k_and_sections(kernel: str, dtype: torch.dtype) -> None:
    """More outputs than sums stay in a cache, more k than a block, more tiles than threads."""
    for seed, (m, n, k) in enumerate(((3, 1100, 70), (200, 130, 1000), (130, 67, 600))):
        check(linear_case(m, n, k, seed + 1, dtype), kernel)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31))
def test_the_active_kernel_on_any_geometry(seed: int) -> None:
    check(sparse_conv_case(seed), f"active seed {seed}")


def test_packing_is_inverted(kernel: str) -> None:
    for seed in range(60):
        case = sparse_conv_case(seed)
        back = ops.sparse_unpack(
            ops.sparse_pack(case.weight, case.groups), case.weight.shape, case.weight.dtype
        )
        assert_same(back, case.weight, f"{kernel} {case.label}")
        again = ops.conv_relu_unpack(case.pack(), case.weight.shape, case.weight.dtype)
        assert_same(again, case.weight, f"{kernel} {case.label}")


def test_new_values_in_place(kernel: str) -> None:
    for seed in range(40):
        case = sparse_conv_case(seed)
        packed = ops.sparse_pack(case.weight, case.groups)
        new = torch.where(case.weight != 0, torch.randn(case.weight.shape), 0).to(case.weight.dtype)
        ops.sparse_refresh(packed, new)
        assert_same(ops.sparse_unpack(packed, new.shape, new.dtype), new, kernel)
        again = ops.sparse_pack(new, case.groups)
        assert torch.equal(packed, again) or bool((new != 0).sum() < (case.weight != 0).sum())


@pytest.mark.parametrize("dtype", DTYPES)
def test_new_values_reach_entries_alone(kernel: str, dtype: torch.dtype) -> None:
    """Four outputs that share most of their pattern are held as one: what one lacks stays 0."""
    weight = masked(torch.randn(70, 300), 0.3, 4, 0).to(dtype)
    weight[:, ::9] *= torch.rand(70, 34) < 0.5
    weight[::7] = 0
    new = torch.randn(70, 300).to(dtype)
    for transposed in (False, True):
        packed = ops.sparse_pack(weight.t().contiguous() if transposed else weight)
        for values in (torch.zeros_like(new), new):
            ops.sparse_refresh(packed, values, transposed=transposed)
        back = ops.sparse_unpack(packed, [300, 70] if transposed else [70, 300], dtype)
        expected = torch.where(weight != 0, new, 0)
        assert_same(back.t() if transposed else back, expected, kernel)


@pytest.mark.parametrize("dtype", DTYPES)
def test_new_values_from_the_transpose(kernel: str, dtype: torch.dtype) -> None:
    for n, k, density in ((5, 7, 0.5), (70, 300, 0.1), (130, 64, 1.0)):
        weight = masked(torch.randn(n, k), density, 1, n).to(dtype)
        packed = ops.sparse_pack(weight.t().contiguous())
        new = torch.where(weight != 0, torch.randn(n, k), 0).to(dtype)
        ops.sparse_refresh(packed, new, transposed=True)
        assert_same(ops.sparse_unpack(packed, [k, n], dtype), new.t(), kernel)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_results_do_not_depend_on_threads(kernel: str, threads: int) -> None:
    cases: list[ConvCase | LinearCase] = [sparse_conv_case(seed) for seed in range(20)]
    for seed, (m, n, k) in enumerate(((1, 2000, 300), (70, 500, 200), (300, 64, 500))):
        cases += [linear_case(m, n, k, seed, dtype) for dtype in DTYPES]
    with on_threads(1):
        expected = [case.run() for case in cases]
    with on_threads(threads):
        for case, out in zip(cases, expected, strict=True):
            assert_same(case.run(), out, f"{kernel} {threads} threads {case.label}")


def test_nothing_is_read_behind_a_buffer(kernel: str) -> None:
    """Inputs end at an unmapped page: one byte too far is a fault."""
    for seed in range(40):
        keep: list[object] = []
        case = sparse_conv_case(seed)
        want = case.run()
        case.x = guarded(case.x.permute(0, 2, 3, 1), keep).permute(0, 3, 1, 2)
        case.weight = guarded(case.weight, keep)
        for name in ("bias", "slope"):
            value = getattr(case, name)
            if value is not None:
                setattr(case, name, guarded(value, keep))
        assert_same(case.run(guarded(case.pack(), keep)), want, f"{kernel} {case.label}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite(kernel: str, value: float, dtype: torch.dtype) -> None:
    """It reaches the outputs that have an entry for it; no other, where patterns are not shared."""
    weight = masked(torch.randn(50, 90), 0.2, 1, 3).to(dtype)
    x = torch.randn(70, 90).to(dtype)
    x[5, 7] = value
    out = LinearCase(x, weight).run()
    reached = ~out.isfinite()
    assert torch.equal(reached[5], weight[:, 7] != 0), kernel
    assert not reached[torch.arange(70) != 5].any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_weight_that_is_not_finite_is_an_entry(kernel: str, dtype: torch.dtype) -> None:
    weight = torch.zeros(5, 9, dtype=dtype)
    weight[2, 3] = torch.nan
    out = LinearCase(torch.ones(4, 9, dtype=dtype), weight).run()
    assert torch.equal(out.isnan(), (torch.arange(5) == 2).expand(4, 5)), kernel


@pytest.mark.parametrize("dtype", DTYPES)
def test_patterns_that_outputs_share_take_fewer_bytes_for_offsets(
    kernel: str, dtype: torch.dtype
) -> None:
    """Four outputs with one pattern are held as such: an offset for four weights, not for one."""
    weight = torch.randn(64, 256).to(dtype)
    alone, shared = (masked(weight, 0.25, outputs, 1) for outputs in (1, 4))
    per_entry = [ops.sparse_pack(w).numel() / int((w != 0).sum()) for w in (alone, shared)]
    assert per_entry[1] < 0.93 * per_entry[0], kernel


def test_tables_of_sections_whose_differences_wrap(kernel: str) -> None:
    """Each of them alone looks long enough."""
    packed = ops.sparse_pack(masked(torch.randn(256, 64), 0.5, 1, 0))
    start = int(packed[64:72].view(torch.int64))
    table = packed.clone()
    table[72:96] = torch.tensor([2**63 - 1, -(2**63) + 100, -1]).view(torch.uint8)
    for damaged in (table, packed.clone()):
        damaged[64:72] = torch.tensor([start]).view(torch.uint8)
        if damaged is not table:
            damaged[72:80] = torch.tensor([2**62]).view(torch.uint8)
        with pytest.raises(RuntimeError, match="its table of sections is damaged"):
            ops.sparse_linear(torch.randn(3, 64), damaged, 256)


def test_entries_that_become_0_stay_entries(kernel: str) -> None:
    weight = torch.tensor([[1.0, 0.0], [2.0, 3.0]])
    image = weight[..., None, None]
    compiled, plain = ops.sparse_pack(weight), reference.sparse_pack_reference(image, 1)
    for values in (torch.zeros(2, 2), torch.full((2, 2), 5.0)):
        ops.sparse_refresh(compiled, values)
        reference.sparse_refresh_reference(plain, values[..., None, None], False)
        want = torch.where(weight != 0, values, 0)
        assert torch.equal(ops.sparse_unpack(compiled, [2, 2]), want)
        back = reference.sparse_unpack_reference(plain, [2, 2, 1, 1], 0)
        assert torch.equal(back.flatten(1), want)


@pytest.mark.parametrize("dtype", DTYPES)
def test_denormal_weights_are_entries(kernel: str, dtype: torch.dtype) -> None:
    weight = torch.full((5, 40), 1e-40, dtype=dtype)
    assert bool((weight != 0).all())
    try:
        torch.set_flush_denormal(True)
        packed = ops.sparse_pack(weight)
    finally:
        torch.set_flush_denormal(False)
    assert_same(ops.sparse_unpack(packed, [5, 40], dtype), weight, kernel)


def test_no_rows(kernel: str) -> None:
    packed = ops.sparse_pack(torch.ones(3, 4))
    assert ops.sparse_linear(torch.zeros(0, 4), packed, 3).shape == (0, 3)
    assert ops.sparse_linear(torch.zeros(2, 0, 4), packed, 3).shape == (2, 0, 3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_damaged_bytes_are_refused_or_harmless(kernel: str, dtype: torch.dtype) -> None:
    """The header and the table are checked; entries may point anywhere, and stay inside buffers."""
    weight = masked(torch.randn(70, 300), 0.3, 1, 0).to(dtype)
    packed, x = ops.sparse_pack(weight), torch.randn(66, 300).to(dtype)
    begin = 64 + 8 * 3
    for at in (9, 16, 24, 40, 45, 57, 65, 73):
        bytes_ = packed.clone()
        bytes_[at] = 255 - bytes_[at]
        with pytest.raises((RuntimeError, ValueError, TypeError)):
            ops.sparse_linear(x, bytes_, 70)
    rng = torch.Generator().manual_seed(0)
    for _ in range(20):
        bytes_ = packed.clone()
        first = int(bytes_[64:72].view(torch.int64))
        where = torch.randint(max(first, begin), packed.numel(), (200,), generator=rng)
        bytes_[where] = torch.randint(0, 256, (200,), generator=rng).to(torch.uint8)
        assert ops.sparse_linear(x, bytes_, 70).shape == (66, 70)
        assert ops.sparse_unpack(bytes_, [70, 300], dtype).shape == (70, 300)
        ops.sparse_refresh(bytes_, weight)


def test_kernels_with_bf16_products_leave_float32(kernel: str) -> None:
    assert kernel_of(OP, torch.bfloat16) == kernel
    others = {"avx512bf16": "avx512", "pairs_odd": "odd"}
    assert multiplies_pairs(OP, torch.bfloat16) == (kernel in others)
    assert kernel_of(OP, torch.float32) == others.get(kernel, kernel)
    assert not multiplies_pairs(OP, torch.float32)


def test_pairs_and_widened_weights_are_packed_apart() -> None:
    """A kernel refuses a weight of the other kind, whatever a damaged header says of it."""
    names = [row.name for row in backends.implementations(OP)]
    if not names:
        pytest.skip("without a compiled module there is one layout only")
    x, weight = torch.randn(5, 40).bfloat16(), masked(torch.randn(9, 40), 0.5, 1, 0).bfloat16()
    packed = {}
    for name in ("odd", "pairs_odd"):
        with backends.force(OP, name):
            packed[name] = ops.sparse_pack(weight)
    for name, other in (("odd", "pairs_odd"), ("pairs_odd", "odd")):
        with backends.force(OP, name):
            with pytest.raises(RuntimeError, match="pack it again"):
                ops.sparse_linear(x, packed[other], 9)
            for products in (0, 1, 2, 3):
                bytes_ = packed[other].clone()
                before = int(bytes_[PRODUCTS])
                bytes_[PRODUCTS] = products
                told = "pack it again" if products == before else "its header is damaged"
                with pytest.raises((RuntimeError, ValueError), match=told):
                    ops.sparse_linear(x, bytes_, 9)
    assert packed["odd"].numel() > packed["pairs_odd"].numel()


@pytest.mark.parametrize("outputs", [1, 4])
def test_an_odd_number_of_entries(kernel: str, outputs: int) -> None:
    """What fills up a pair is no entry: neither to new values nor to what is not finite."""
    runs, entries, apart = 64 // outputs, {1: 3, 4: 9}[outputs], 4 * outputs
    weight = torch.zeros(64, 300).bfloat16()
    for n in range(64):
        first = n // outputs * apart + 1
        weight[n, first : first + entries] = 1.5
    packed = ops.sparse_pack(weight)
    if in_panels(packed):
        assert not multiplies_pairs(OP, torch.bfloat16)
        pytest.skip("taken by panels, whose blocks are filled")
    ops.sparse_refresh(packed, torch.full_like(weight, 3))
    back = ops.sparse_unpack(packed, weight.shape, weight.dtype)
    assert_same(back, 2 * weight, kernel)
    x = torch.full((70, 300), torch.nan).bfloat16()
    for m in range(70):
        first = m % runs * apart + 1
        x[m, first : first + entries] = 1
    out = ops.sparse_linear(x, packed, 64)
    for m in range(70):
        first = m % runs * outputs
        own = out[m, first : first + outputs]
        assert own.tolist() == [3.0 * entries] * outputs, kernel
