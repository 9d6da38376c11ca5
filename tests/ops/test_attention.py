"""Every attention kernel against float64, within a computed bound."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pyops import backends, ops
from pyops.ops.attention import kernel_of, multiplies_pairs
from pyops.testing.cases.attention import (
    FLOATS,
    MASKS,
    AttentionCase,
    attention_case,
    causal_as_mask,
)
from pyops.testing.compare import assert_same, assert_within
from pyops.testing.guarded import guarded
from pyops.testing.shapes import simd_sizes
from pyops.testing.threads import on_threads

# B, H, Hkv, Tq, Tk, D: few rows, tails of rows, keys and depth, groups of heads, several chunks.
SHAPES = (
    (1, 1, 1, 1, 1, 1),
    (2, 3, 3, 7, 9, 5),
    (1, 4, 2, 2, 33, 31),
    (2, 4, 2, 17, 65, 32),
    (1, 6, 2, 50, 63, 48),
    (1, 2, 1, 70, 130, 64),
    (1, 2, 2, 37, 128, 80),
    (1, 1, 1, 9, 600, 96),
    (1, 2, 1, 1, 1100, 128),
    (1, 2, 2, 65, 1029, 33),
)


def assert_close(out: Tensor, case: AttentionCase, kernel: str) -> None:
    exact, bound = case.exact(multiplies_pairs(case.q.dtype))
    assert out.dtype == case.q.dtype
    assert out.shape == case.q.shape
    assert_within(out, exact, bound, f"{kernel} {case.label}")


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("mask", MASKS)
def test_against_float64(kernel: str, dtype: torch.dtype, mask: str) -> None:
    for seed, shape in enumerate(SHAPES):
        case = attention_case(seed, shape, dtype, mask)
        check = causal_as_mask(case) if case.is_causal else case
        assert_close(case.run(), check, kernel)
        assert_close(case.reference(), check, "reference")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tails(kernel: str, dtype: torch.dtype) -> None:
    sizes = simd_sizes(66)
    for n in sizes:
        for shape in ((1, 1, 1, n, 19, 8), (1, 1, 1, 8, n, 19), (1, 1, 1, 7, 21, n)):
            case = attention_case(n, shape, dtype)
            assert_close(case.run(), case, kernel)


@pytest.mark.parametrize("dtype", [torch.bool, *FLOATS])
def test_masks_of_every_broadcast_form(kernel: str, dtype: torch.dtype) -> None:
    case = attention_case(1, (2, 4, 2, 6, 37, 16))
    for ones in itertools.product((False, True), repeat=4):
        shape = [1 if one else n for one, n in zip(ones, (2, 4, 6, 37), strict=True)]
        mask = torch.randn(shape, generator=torch.Generator().manual_seed(3))
        case.mask = mask > -1 if dtype == torch.bool else mask.to(dtype)
        assert_close(case.run(), case, kernel)
        expanded = case.mask.expand(2, 4, 6, 37)
        assert_same(
            ops.attention(case.q, case.k, case.v, expanded, scale=case.scale), case.run(), "expand"
        )
    for mask in (torch.randn(37), torch.randn(6, 37), torch.randn(37, 6).T, torch.randn(1, 6, 1)):
        case.mask = mask > -1 if dtype == torch.bool else mask.to(dtype)
        assert_close(case.run(), case, kernel)


@pytest.mark.parametrize("dtype", FLOATS)
def test_strides(kernel: str, dtype: torch.dtype) -> None:
    shape = (2, 4, 4, 9, 9, 24)
    case = attention_case(4, shape, dtype)
    expected = case.run()
    fused = torch.cat([t.transpose(1, 2).flatten(2) for t in (case.q, case.k, case.v)], -1)
    views = [t.unflatten(-1, (4, 24)).transpose(1, 2) for t in fused.split(96, -1)]
    dense = [t.contiguous() for t in (case.q, case.k, case.v)]
    columns = [t.contiguous().mT.contiguous().mT for t in dense]
    for tensors in (views, dense, columns):
        assert_same(ops.attention(*tensors, scale=case.scale), expected, f"{tensors[0].stride()}")
    k = case.k[:, :1].expand(2, 4, 9, 24)
    same = ops.attention(case.q, k.contiguous(), case.v, scale=case.scale)
    assert_same(ops.attention(case.q, k, case.v, scale=case.scale), same, "expanded heads")


def test_output_is_laid_out_by_token() -> None:
    out = attention_case(1, (2, 3, 3, 7, 9, 5)).run()
    assert out.transpose(1, 2).is_contiguous()
    assert out.transpose(1, 2).flatten(2).data_ptr() == out.data_ptr()


def test_groups_of_heads_are_repeated_heads(kernel: str) -> None:
    for shape in ((2, 6, 2, 1, 40, 16), (1, 8, 2, 30, 70, 32), (1, 4, 1, 3, 9, 8)):
        case = attention_case(1, shape)
        group = shape[1] // shape[2]
        k, v = (t.repeat_interleave(group, 1) for t in (case.k, case.v))
        whole = AttentionCase(case.q, k, v)
        assert_close(whole.run(), case, kernel)
        assert_close(case.run(), whole, kernel)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [1.0, 1e2, 1e4])
def test_large_scores(kernel: str, dtype: torch.dtype, size: float) -> None:
    for mask in ("none", "float"):
        case = attention_case(5, (1, 2, 2, 20, 700, 32), dtype, mask)
        case.scale = size / 32**0.5
        assert_close(case.run(), case, kernel)


@pytest.mark.parametrize("scale", [0.0, -0.5, -3.0])
def test_scales_that_are_not_positive(kernel: str, scale: float) -> None:
    for shape in ((1, 2, 2, 2, 40, 16), (1, 2, 2, 20, 600, 16)):
        case = attention_case(1, shape)
        case.scale = scale
        assert_close(case.run(), case, kernel)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("queries", [2, 20])
def test_rows_without_a_key_are_zero_as_in_torch(
    kernel: str, dtype: torch.dtype, queries: int
) -> None:
    case = attention_case(7, (1, 2, 2, queries, 600, 16), dtype)
    seen = torch.ones(queries, 600, dtype=torch.bool)
    seen[1], seen[0, :530] = False, False  # nothing at all; nothing in the first chunk
    for mask in (seen, torch.zeros(queries, 600).masked_fill(~seen, -torch.inf)):
        case.mask = mask
        out = case.run()
        like = F.scaled_dot_product_attention(
            case.q, case.k, case.v, attn_mask=mask.to(mask.dtype if mask is seen else dtype)
        )
        assert_same(out[:, :, 1], torch.zeros_like(out[:, :, 1]), kernel)
        assert_same(like[:, :, 1], out[:, :, 1], "torch")
        assert_close(out, case, kernel)
    empty = ops.attention(case.q, case.k[:, :, :0], case.v[:, :, :0])
    assert_same(empty, torch.zeros_like(case.q), "no keys")


def test_the_lowest_float_masks_as_in_torch(kernel: str) -> None:
    """Where all keys have it, it hides none: the mean of v."""
    case = attention_case(1, (1, 2, 2, 6, 40, 16))
    case.mask = torch.zeros(6, 40)
    case.mask[2], case.mask[3, 7:] = torch.finfo(torch.float32).min, torch.finfo().min
    like = F.scaled_dot_product_attention(case.q, case.k, case.v, attn_mask=case.mask)
    assert torch.allclose(case.run(), like, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("queries", [2, 20])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_propagates(kernel: str, queries: int, value: float) -> None:
    for name, dtype in itertools.product("qkv", (torch.float32, torch.bfloat16)):
        case = attention_case(2, (1, 2, 2, queries, 70, 16), dtype)
        getattr(case, name)[0, 1, 1, 3] = value
        out, ref = case.run(), case.reference()
        assert torch.equal(out.isnan(), ref.isnan()), f"{kernel} {name} {dtype}"
        assert torch.equal(out.isinf(), ref.isinf()), f"{kernel} {name} {dtype}"
        assert torch.isfinite(out[0, 0]).all()
    case = attention_case(2, (1, 1, 1, queries, 70, 16))
    case.mask = torch.zeros(queries, 70)
    case.mask[1, 5] = value
    assert torch.equal(case.run().isnan(), case.reference().isnan())


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_results_do_not_depend_on_threads(kernel: str, threads: int) -> None:
    cases = [
        attention_case(1, (1, 2, 1, 150, 700, 32), mask="causal"),
        attention_case(2, (2, 3, 3, 65, 130, 48), torch.bfloat16, "float"),
        attention_case(3, (1, 8, 8, 1, 900, 64)),
    ]
    expected = [case.run() for case in cases]
    with on_threads(threads):
        if backends.compiled():
            from pyops import _C

            assert _C.threads_seen() == threads
        for case, out in zip(cases, expected, strict=True):
            assert_same(case.run(), out, f"{kernel} {threads} threads {case.label}")


@pytest.mark.parametrize("dtype", FLOATS)
def test_nothing_is_read_behind_a_buffer(kernel: str, dtype: torch.dtype) -> None:
    """Inputs end at an unmapped page: one element too far is a fault."""
    keep: list[object] = []
    shapes = ((1, 1, 1, 1, 1, 1), (1, 2, 2, 3, 17, 5), (1, 2, 1, 19, 33, 31), (1, 1, 1, 40, 70, 66))
    for shape in shapes:
        case = attention_case(1, shape, dtype)
        q, k, v = (
            guarded(t.transpose(1, 2), keep).transpose(1, 2) for t in (case.q, case.k, case.v)
        )
        _, _, _, queries, keys, _ = shape
        for mask in (None, torch.randn(queries, keys), torch.rand(queries, keys) < 0.9):
            case.mask = None if mask is None else guarded(mask, keep)
            assert_same(ops.attention(q, k, v, case.mask, scale=case.scale), case.run(), kernel)
        causal = ops.attention(q, k, v, is_causal=True)
        assert_same(causal, ops.attention(case.q, case.k, case.v, is_causal=True), kernel)


def test_an_isa_level_runs_its_own_kernel(isa: str) -> None:
    rows = [r for r in backends.implementations("attention") if not r.test_only]
    levels = list(dict.fromkeys(reversed([r.isa for r in rows])))
    allowed = {"avxvnni": "avx2", "avx512vnni": "avx512", "avx512vbmi2": "avx512"}.get(isa, isa)
    assert allowed in (*levels, "reference")
    assert backends.kernel("attention") == allowed


def test_pairs_of_bf16_are_for_bfloat16_alone(kernel: str) -> None:
    """What a kernel of pairs leaves is float arithmetic: within the bound of the f32 kernels."""
    assert kernel_of(torch.bfloat16) == kernel
    if multiplies_pairs(torch.bfloat16):
        assert kernel_of(torch.float32) == kernel_of(torch.float16) == "avx512"
    else:
        assert kernel_of(torch.float32) == kernel
    assert not multiplies_pairs(torch.float32)
