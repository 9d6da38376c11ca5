"""Every kernel of masked_matmul against float64, within the bound that its header states."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyops import ops
from pyops.ops.masked_matmul_packing import pack_plain
from pyops.ops.masked_matmul_reference import masked_weight_grad_reference
from pyops.testing.cases.masked_matmul import SHARES, MaskedCase, masked_case
from pyops.testing.compare import assert_same, assert_within
from pyops.testing.guarded import guarded
from pyops.testing.shapes import simd_sizes
from pyops.testing.threads import on_threads


def check(case: MaskedCase, label: str) -> None:
    out = case.weight_grad()
    exact, bound = case.exact_weight_grad()
    assert out.dtype == torch.float32
    assert_within(out, exact, bound, f"{label} {case.label}")
    assert bool((out[~case.mask] == 0).all()), f"{label} {case.label}"


@pytest.mark.parametrize("dimension", ["m", "n", "k"])
def test_every_tail(kernel: str, dimension: str) -> None:
    """Of chunks of tokens, of sections of rows and columns, of vectors."""
    for seed, size in enumerate(simd_sizes(300)):
        m, n, k = (
            size if dimension == d else other
            for d, other in zip("mnk", (35, 21, 37), strict=True)
        )  # fmt: skip
        check(masked_case(seed, m, n, k), f"{kernel} seed {seed}")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 200), st.integers(1, 300), st.integers(1, 300))
def test_the_active_kernel_on_any_shape(seed: int, m: int, n: int, k: int) -> None:
    check(masked_case(seed, m, n, k), f"active seed {seed}")


@pytest.mark.parametrize("share", SHARES)
def test_many_sections_and_chunks(kernel: str, share: float) -> None:
    for m, n, k in ((70, 600, 300), (300, 257, 129), (1, 256, 128)):
        check(masked_case(m, m, n, k, share), kernel)


def test_more_tokens_than_are_turned_at_once(kernel: str) -> None:
    """8 MiB hold 256 tokens of these widths: the later ones are added to what is there."""
    for m, share in ((600, 0.01), (513, 0.2)):
        check(masked_case(4 * m, m, 8000, 140, share), kernel)


def test_the_reference_is_within_the_bound() -> None:
    for seed in range(40):
        case = masked_case(seed, 1 + seed * 3, 40, 50)
        packed = pack_plain(case.mask)
        out = masked_weight_grad_reference(case.grad, case.x, packed)
        exact, bound = case.exact_weight_grad()
        assert_within(out, exact, bound, case.label)
        assert bool((out[~case.mask] == 0).all())


def test_packing_is_inverted(kernel: str) -> None:
    shapes = ((1, 1), (5, 3), (256, 128), (257, 129), (700, 400), (7, 0), (0, 7), (0, 0))
    for seed, (n, k) in enumerate(shapes):
        for share in SHARES:
            mask = masked_case(seed, 1, n, k, share).mask
            assert_same(ops.masked_unpack(ops.masked_pack(mask), n, k), mask, kernel)


def test_the_mask_may_have_any_strides(kernel: str) -> None:
    mask = torch.rand(70, 300) < 0.2
    assert_same(ops.masked_pack(mask.t().contiguous().t()), ops.masked_pack(mask), kernel)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_results_do_not_depend_on_threads(kernel: str, threads: int) -> None:
    cases = [
        masked_case(seed, m, n, k, 0.15)
        for seed, (m, n, k) in enumerate(((300, 700, 500), (64, 256, 2000), (5, 4000, 70)))
    ]
    with on_threads(1):
        expected = [(ops.masked_pack(case.mask), case.weight_grad()) for case in cases]
    with on_threads(threads):
        for case, (packed, grad) in zip(cases, expected, strict=True):
            label = f"{kernel} {threads} threads {case.label}"
            assert_same(ops.masked_pack(case.mask), packed, label)
            assert_same(case.weight_grad(), grad, label)


def test_nothing_is_read_behind_a_buffer(kernel: str) -> None:
    """Inputs end at an unmapped page: one byte too far is a fault."""
    for seed, (m, n, k) in enumerate(
        ((1, 1, 1), (7, 17, 5), (2, 70, 67), (65, 129, 64), (33, 64, 128), (100, 300, 131))
    ):
        keep: list[object] = []
        case = masked_case(seed, m, n, k, 0.3)
        for name in ("x", "grad", "mask"):
            setattr(case, name, guarded(getattr(case, name), keep))
        packed = guarded(ops.masked_pack(case.mask), keep)
        exact, bound = case.exact_weight_grad()
        assert_within(case.weight_grad(packed), exact, bound, f"{kernel} {case.label}")


def test_inputs_of_any_rank_and_stride(kernel: str) -> None:
    case = masked_case(0, 24, 70, 90)
    flat, packed = case.weight_grad(), ops.masked_pack(case.mask)
    shape = (2, 3, 4)
    out = ops.masked_weight_grad(case.grad.reshape(*shape, 70), case.x.reshape(*shape, 90), packed)
    assert_same(out, flat, kernel)
    case.x, case.grad = case.x.t().contiguous().t(), case.grad.t().contiguous().t()
    assert not case.x.is_contiguous()
    assert_same(case.weight_grad(), flat, kernel)
    one = ops.masked_weight_grad(case.grad[0], case.x[0], packed)
    assert_same(one, ops.masked_weight_grad(case.grad[:1], case.x[:1], packed), kernel)


def test_no_tokens(kernel: str) -> None:
    packed = ops.masked_pack(torch.ones(3, 4, dtype=torch.bool))
    out = ops.masked_weight_grad(torch.zeros(0, 3), torch.zeros(0, 4), packed)
    assert_same(out, torch.zeros(3, 4), kernel)


def test_what_is_not_finite_stays_out_of_masked_places(kernel: str) -> None:
    case = masked_case(0, 70, 90, 140, 0.2)
    case.x[5, 7], case.x[66, 130], case.grad[3, 11] = torch.inf, torch.nan, torch.nan
    out = case.weight_grad()
    assert bool((out[~case.mask] == 0).all())
    reached = ~out.isfinite()
    expected = torch.zeros_like(case.mask)
    expected[:, 7] = expected[:, 130] = True
    expected[11] = True
    assert torch.equal(reached, expected & case.mask), kernel


def damaged(packed: torch.Tensor, at: int, value: int) -> torch.Tensor:
    packed = packed.clone()
    packed[at] = value
    return packed


def test_damaged_bytes_are_refused(kernel: str) -> None:
    """Every place is checked before it is used: one outside of its section would be a fault."""
    case = masked_case(0, 9, 70, 300, 0.2)
    good = ops.masked_pack(case.mask)
    rows = 64 + 8 * 4
    depths = rows + 2 * 70 * 3
    last = depths + 4 * int(good[32:40].view(torch.int64)) - 1
    for bad, message in (
        (good[:63], "shorter than its header of 64"),
        (good[:-1], "length contradicts"),
        (torch.cat((good, good[:64])), "length contradicts"),
        (damaged(good, 0, 0), "no header"),
        (damaged(good, 8, 9), "version"),
        (damaged(good, 12, 2), "header is damaged"),
        (damaged(good, 23, 255), "header is damaged"),
        (damaged(good, 31, 127), "header is damaged"),
        (damaged(good, 38, 127), "header is damaged"),
        (damaged(good, 64, 1), "header is damaged"),
        (damaged(good, 74, 255), "header is damaged"),
        (damaged(good, rows, 70), "outside of its section"),
        (damaged(good, rows + 1, 33), "outside of its section"),
        (damaged(good, rows + 2, int(good[rows])), "a row is missing"),
        (damaged(good, depths, 128), "outside of its section"),
        (damaged(good, last, 44), "outside of its section"),
    ):
        with pytest.raises(RuntimeError, match=message):
            case.weight_grad(bad)
        with pytest.raises(RuntimeError, match=message):
            ops.masked_unpack(bad, 70, 300)


def test_random_bytes_are_refused_or_harmless(kernel: str) -> None:
    case = masked_case(0, 9, 70, 300, 0.2)
    packed = ops.masked_pack(case.mask)
    rng = torch.Generator().manual_seed(0)
    for _ in range(50):
        bad = packed.clone()
        where = torch.randint(64, packed.numel(), (2,), generator=rng)
        bad[where] = torch.randint(0, 256, (2,), generator=rng).to(torch.uint8)
        fits = True
        try:
            ops.masked_unpack(bad, 70, 300)
        except RuntimeError:
            fits = False
        if fits:
            assert case.weight_grad(bad).shape == (70, 300)
            continue
        with pytest.raises(RuntimeError, match="packed mask"):
            case.weight_grad(bad)
