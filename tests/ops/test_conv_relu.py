"""Every kernel of conv_relu against float64, within the bound that its header states."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pyops import backends, ops
from pyops.ops.conv_relu import kernel_of, layout_of, multiplies_pairs
from pyops.testing.cases.conv_relu import DTYPES, ConvCase, conv_case
from pyops.testing.compare import assert_same, assert_within
from pyops.testing.guarded import guarded
from pyops.testing.threads import on_threads

SEEDS = 200


def check(case: ConvCase, label: str) -> None:
    out = case.run()
    exact, bound = case.exact()
    assert out.dtype == case.x.dtype
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert_within(out, exact, bound, f"{label} {case.label}")


def image(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=rng).to(dtype)
    return x.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("block", range(4))
def test_random_convolutions(kernel: str, block: int) -> None:
    for seed in range(block * SEEDS // 4, (block + 1) * SEEDS // 4):
        check(conv_case(seed), f"{kernel} seed {seed}")


def test_the_cases_cover_every_option() -> None:
    cases = [conv_case(seed) for seed in range(SEEDS)]
    assert {c.activation for c in cases} == set(ops.CONV_ACTIVATIONS)
    assert {k for c in cases for k in c.weight.shape[2:]} == set(range(1, 8))
    assert {s for c in cases for s in c.stride} == {1, 2, 3}
    assert {d for c in cases for d in c.dilation} == {1, 2, 3}
    assert any(len(set(c.padding)) == 4 for c in cases)
    assert {c.bias is None for c in cases} == {c.residual is None for c in cases} == {True, False}
    assert {c.x.is_contiguous(memory_format=torch.channels_last) for c in cases} == {True, False}
    assert {c.groups == 1 for c in cases} == {True, False}
    assert {c.groups > 1 and c.weight.shape[:2] == (c.groups, 1) for c in cases} == {True, False}


def test_the_reference_is_within_the_bound() -> None:
    for seed in range(SEEDS):
        case = conv_case(seed)
        exact, bound = case.exact()
        assert_within(case.reference(), exact, bound, case.label)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31))
def test_the_active_kernel_on_any_geometry(seed: int) -> None:
    check(conv_case(seed), f"active seed {seed}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_tail(kernel: str, dtype: torch.dtype) -> None:
    """Pixels, input and output channels around the sizes of tiles, panels and vectors."""
    for n in (1, 2, 13, 15, 16, 17, 31, 33, 64, 65):
        for h, c, oc, k in ((n, 20, 33, 1), (5, n, 7, 3), (4, 32, n, 3), (n, 3, 16, 3)):
            weight = torch.randn(oc, c, k, k).to(dtype)
            check(
                ConvCase(image(1, c, 3, h, dtype=dtype), weight, 1, padding=(k // 2,) * 4), kernel
            )
        check(
            ConvCase(image(1, n, 5, 7, dtype=dtype), torch.randn(n, 1, 3, 3).to(dtype), n), kernel
        )


@pytest.mark.parametrize("dtype", DTYPES)
def test_layers_of_convnets(kernel: str, dtype: torch.dtype) -> None:
    """Several blocks of tiles, panels of all threads, pixels a multiple of 4 KiB apart."""
    for c, size, oc, k, stride, pad, groups in (
        (3, 40, 64, 7, 2, 3, 1), (1024, 6, 40, 1, 1, 0, 1), (512, 7, 33, 3, 2, 1, 1),
        (64, 20, 70, 3, 1, 1, 1), (64, 9, 64, 3, 1, 1, 16), (96, 15, 96, 5, 2, 2, 96),
    ):  # fmt: skip
        weight = torch.randn(oc, c // groups, k, k).to(dtype)
        case = ConvCase(image(2, c, size, size, dtype=dtype), weight, groups, (stride,) * 2)
        case.padding, case.bias, case.activation = (pad,) * 4, torch.randn(oc), "relu"
        check(case, kernel)


def test_packing_is_inverted(kernel: str) -> None:
    for seed in range(60):
        case = conv_case(seed)
        packed, shape = case.pack(), case.weight.shape
        assert_same(ops.conv_relu_unpack(packed, shape, case.weight.dtype), case.weight, kernel)
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(torch.bfloat16)
    weight = bits.reshape(64, 64, 4, 4)
    back = ops.conv_relu_unpack(ops.conv_relu_pack(weight), weight.shape, torch.bfloat16)
    assert torch.equal(back.view(torch.int16), weight.view(torch.int16))


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_results_do_not_depend_on_threads(kernel: str, threads: int) -> None:
    cases = [conv_case(seed) for seed in range(20)]
    for dtype in DTYPES:
        for c, size, oc, groups in (
            (64, 20, 70, 1),
            (128, 4, 300, 1),
            (3, 60, 16, 1),
            (70, 30, 70, 70),
        ):
            weight = torch.randn(oc, c // groups, 3, 3).to(dtype)
            x = image(2, c, size, size, dtype=dtype)
            cases.append(ConvCase(x, weight, groups, padding=(1, 1, 1, 1)))
    with on_threads(1):
        expected = [case.run() for case in cases]
    with on_threads(threads):
        for case, out in zip(cases, expected, strict=True):
            assert_same(case.run(), out, f"{kernel} {threads} threads {case.label}")


def guarded_image(t: Tensor, keep: list[object]) -> Tensor:
    return guarded(t.permute(0, 2, 3, 1), keep).permute(0, 3, 1, 2)


def test_nothing_is_read_behind_a_buffer(kernel: str) -> None:
    """Inputs end at an unmapped page: one byte too far is a fault."""
    for seed in range(50):
        keep: list[object] = []
        case = conv_case(seed)
        want = case.run()
        case.x = guarded_image(case.x, keep)
        if case.residual is not None:
            case.residual = guarded_image(case.residual, keep)
        for name in ("weight", "bias", "slope"):
            value = getattr(case, name)
            setattr(case, name, None if value is None else guarded(value, keep))
        assert_same(case.run(guarded(case.pack(), keep)), want, f"{kernel} {case.label}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("groups", [1, 20])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_propagates(
    kernel: str, dtype: torch.dtype, groups: int, value: float
) -> None:
    x = image(1, 20, 9, 9, dtype=dtype)
    x[0, 3, 4, 5] = value
    weight = torch.randn(20, 20 // groups, 3, 3).to(dtype)
    for activation in ("none", "relu", "clamp"):
        case = ConvCase(x, weight, groups, padding=(1, 1, 1, 1), activation=activation)
        if activation == "clamp":
            case.low, case.high = 0.0, 6.0
        out, like = case.run(), F.conv2d(x.float(), weight.float(), None, 1, 1, 1, groups)
        like = {"none": lambda v: v, "relu": F.relu, "clamp": F.relu6}[activation](like)
        assert torch.equal(out.isnan(), like.isnan()), kernel
        assert torch.equal(out.isposinf(), like.isposinf()), kernel
        assert torch.equal(out.isneginf(), like.isneginf()), kernel


def test_bf16_outputs_round_as_torchs(kernel: str) -> None:
    """Denormals, infinities, NaN, ties: every kind of float32, alone and beside others."""
    rng = torch.Generator().manual_seed(7)
    bits = torch.randint(-(2**31), 2**31, (40, 67), generator=rng, dtype=torch.int64)
    bits[:10, ::3] &= 0x807FFFFF  # denormals
    bits[5:15, ::2] |= 0x7F800000  # NaN
    bits[10:] &= 0xFFFF8000  # ties
    normal = bits[15:] & 0x7F800000
    bits[15:] += (normal == 0) * 0x00800000 - (normal == 0x7F800000) * 0x00800000
    for row, at in enumerate((0, 15, 16, 31, 63, 66), 20):
        bits[row, at] = 0x7F800001 if row % 2 else 0x00012345  # alone among normal ones
    for bias in bits.to(torch.int32).view(torch.float32):
        case = ConvCase(torch.zeros(1, 3, 2, 9, dtype=torch.bfloat16), torch.zeros(67, 3, 1, 1))
        case.weight, case.bias = case.weight.bfloat16(), bias
        expected = (0 + bias).bfloat16()[:, None, None].expand(1, 67, 2, 9)
        out = case.run()
        assert torch.equal(out.isnan(), expected.isnan()), kernel
        same = (out.view(torch.int16) == expected.contiguous().view(torch.int16)) | out.isnan()
        assert bool(same.all()), kernel


def test_an_input_smaller_than_the_kernel(kernel: str) -> None:
    for groups in (1, 24):
        weight = torch.randn(24, 24 // groups, 7, 7)
        case = ConvCase(image(1, 24, 1, 2), weight, groups, padding=(3, 3, 3, 3))
        check(case, kernel)
        check(replace(case, padding=(6, 0, 0, 5)), kernel)


def test_no_images(kernel: str) -> None:
    for dtype in DTYPES:
        case = ConvCase(torch.zeros(0, 8, 5, 6, dtype=dtype), torch.randn(7, 8, 3, 3).to(dtype))
        assert case.run().shape == (0, 7, 3, 4)


def test_every_memory_format_gives_the_same_bits(kernel: str) -> None:
    for groups in (1, 6):
        case = ConvCase(image(2, 6, 9, 8), torch.randn(6, 6 // groups, 3, 3), groups)
        case.residual = image(2, 6, 7, 6)
        want = case.run()
        wide = torch.zeros(2, 6, 18, 8)
        wide[:, :, ::2] = case.x
        for x in (case.x.contiguous(), wide[:, :, ::2], case.x.transpose(2, 3).contiguous().mT):
            assert_same(replace(case, x=x).run(), want, f"{kernel} {x.stride()}")
        assert_same(replace(case, residual=case.residual.contiguous()).run(), want, kernel)
    one = ConvCase(image(2, 1, 9, 8), torch.randn(3, 1, 3, 3))
    assert_same(replace(one, x=one.x.contiguous()).run(), one.run(), "one channel")


def test_kernels_with_bf16_products_leave_float32(kernel: str) -> None:
    assert kernel_of(torch.bfloat16) == kernel
    if multiplies_pairs(torch.bfloat16):
        assert kernel_of(torch.float32) == "avx512"
    else:
        assert kernel_of(torch.float32) == kernel
    assert not multiplies_pairs(torch.float32)


def test_another_layout_is_refused() -> None:
    rows = [r for r in backends.implementations("conv_relu") if r.available and not r.test_only]
    if not rows:
        pytest.skip("without a compiled module there is one layout only")
    with backends.force("conv_relu", rows[-1].name):
        case, layout = conv_case(0, torch.float32), layout_of(torch.float32)
        packed = case.pack()
    with backends.force("conv_relu", "odd"), pytest.raises(RuntimeError, match="pack it again"):
        case.run(packed)
    assert layout == rows[-1].layout
