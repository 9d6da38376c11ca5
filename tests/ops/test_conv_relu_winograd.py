"""Convolutions of weights packed for Winograd's algorithm, within the bound that it has."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pyops import ops
from pyops.ops import conv_relu_packing as packing
from pyops.ops.conv_relu_reference import conv_relu_reference
from pyops.testing.cases.conv_relu import ConvCase, winograd_case
from pyops.testing.compare import assert_same, assert_within
from pyops.testing.guarded import guarded
from pyops.testing.threads import on_threads

SEEDS = 120


def check(case: ConvCase, label: str) -> None:
    exact, bound = case.exact()
    assert_within(case.run(), exact, bound, f"{label} {case.label}")


def layer(c: int, oc: int, size: int, images: int = 2) -> ConvCase:
    rng = torch.Generator().manual_seed(c + oc + size)
    x = torch.randn(images, c, size, size, generator=rng)
    weight = torch.randn(oc, c, 3, 3, generator=rng)
    x = x.contiguous(memory_format=torch.channels_last)
    return ConvCase(x, weight, padding=(1, 1, 1, 1), activation="relu", algorithm="winograd")


def test_random_convolutions(kernel: str) -> None:
    for seed in range(SEEDS):
        check(winograd_case(seed), f"{kernel} seed {seed}")


def test_the_cases_cover_every_option() -> None:
    cases = [winograd_case(seed) for seed in range(SEEDS)]
    assert {c.tiles for c in cases} == {True, False}
    assert {c.residual is None for c in cases} == {c.bias is None for c in cases} == {True, False}
    assert {c.activation for c in cases} == {"none", "relu", "silu", "clamp"}
    shapes = [c.sums(c.x, c.weight).shape for c in cases if c.tiles]
    assert {(oh % 2, ow % 2) for _, _, oh, ow in shapes} == {(0, 0), (0, 1), (1, 0), (1, 1)}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31))
def test_the_active_kernel_on_any_geometry(seed: int) -> None:
    check(winograd_case(seed), f"active seed {seed}")


def test_the_reference_is_within_the_direct_bound() -> None:
    for seed in range(SEEDS):
        case = winograd_case(seed)
        case.algorithm = "direct"
        exact, bound = case.exact()
        assert_within(case.reference(), exact, bound, case.label)


def test_layers_of_convnets(kernel: str) -> None:
    """Several blocks of strips, channels that end within a vector or panel, rows that share sets of
    the first-level cache."""
    for c, oc, size in ((64, 64, 30), (96, 40, 14), (130, 33, 9), (1024, 20, 6), (7, 300, 14)):
        check(layer(c, oc, size), kernel)


def test_the_tiles_add_less_than_the_direct_sums(kernel: str) -> None:
    """Sums over C terms instead of 9 C: the error is no larger than that of the direct way."""
    case = layer(256, 64, 14)
    exact, _ = case.exact()
    error = (case.run() - exact).square().mean()
    case.algorithm = "direct"
    assert error < (case.run() - exact).square().mean(), kernel


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_results_do_not_depend_on_threads(kernel: str, threads: int) -> None:
    cases = [winograd_case(seed) for seed in range(20)]
    cases += [layer(64, 70, 20), layer(128, 300, 7, images=1), layer(40, 64, 28, images=5)]
    with on_threads(1):
        expected = [case.run() for case in cases]
    with on_threads(threads):
        for case, out in zip(cases, expected, strict=True):
            assert_same(case.run(), out, f"{kernel} {threads} threads {case.label}")


def test_results_do_not_depend_on_the_batch(kernel: str) -> None:
    case = layer(40, 50, 9, images=5)
    whole, packed = case.run(), case.pack()
    for i in range(5):
        one = ConvCase(case.x[i : i + 1], case.weight, padding=case.padding, activation="relu")
        assert_same(one.run(packed), whole[i : i + 1], kernel)


def test_nothing_is_read_behind_a_buffer(kernel: str) -> None:
    """Inputs end at an unmapped page: one byte too far is a fault."""
    for seed in range(40):
        keep: list[object] = []
        case = winograd_case(seed)
        want = case.run()
        case.x = guarded(case.x.permute(0, 2, 3, 1), keep).permute(0, 3, 1, 2)
        case.weight = guarded(case.weight, keep)
        if case.bias is not None:
            case.bias = guarded(case.bias, keep)
        assert_same(case.run(guarded(case.pack(), keep)), want, f"{kernel} {case.label}")


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_reaches_the_same_outputs(kernel: str, value: float) -> None:
    weight = torch.randn(20, 20, 3, 3)
    for y in range(4):
        for x in range(4):
            image = torch.randn(1, 20, 10, 10)
            image[0, 3, y, x] = value
            case = ConvCase(image, weight, padding=(1, 1, 1, 1), algorithm="winograd")
            like = F.conv2d(image, weight, padding=1)
            assert torch.equal(case.run().isfinite(), like.isfinite()), kernel


def test_packing_is_inverted(kernel: str) -> None:
    for c, oc in ((1, 1), (5, 70), (64, 33)):
        weight = torch.randn(oc, c, 3, 3)
        packed = ops.conv_relu_pack(weight, 1, "winograd")
        assert packing.ALGORITHMS[packing.read_header(packed).algorithm] == "winograd"
        assert_same(ops.conv_relu_unpack(packed, weight.shape), weight, kernel)


def test_no_images(kernel: str) -> None:
    weight = torch.randn(7, 8, 3, 3)
    assert ConvCase(torch.zeros(0, 8, 9, 9), weight, algorithm="winograd").run().shape[0] == 0


def test_refusals() -> None:
    takes = "conv_relu_pack: Winograd's algorithm takes a float32 weight [OC, C, 3, 3] of 1 group, "
    for shape, groups, dtype, told in (
        ((4, 4, 3, 3), 1, torch.bfloat16, "torch.bfloat16 [4, 4, 3, 3] of 1"),
        ((4, 4, 5, 3), 1, torch.float32, "torch.float32 [4, 4, 5, 3] of 1"),
        ((4, 4, 3, 3), 2, torch.float32, "torch.float32 [4, 4, 3, 3] of 2"),
    ):
        with pytest.raises(
            ValueError, match=f"^{re.escape(takes)}but weight is {re.escape(told)}$"
        ):
            ops.conv_relu_pack(torch.zeros(shape, dtype=dtype), groups, "winograd")
    told = r"algorithm must be one of \('direct', 'winograd', 'sparse'\), but is 'fft'"
    with pytest.raises(ValueError, match=f"^conv_relu_pack: {told}$"):
        ops.conv_relu_pack(torch.zeros(4, 4, 3, 3), 1, "fft")


def test_calls_that_the_algorithm_does_not_take() -> None:
    weight, x = torch.zeros(4, 4, 3, 3), torch.zeros(1, 4, 9, 9)
    packed, plain = ops.conv_relu_pack(weight, 1, "winograd"), packing.pack_plain(weight, 1, 1)
    wraps = ((53651, 529561), (469411, 77457))  # whose product is 1 modulo 2^64
    for stride, dilation in (((2, 1), (1, 1)), ((1, 1), (1, 2)), wraps):
        told = (
            "conv_relu: the weight is packed for Winograd's algorithm, which takes stride 1 and "
            f"dilation 1, but stride is {list(stride)} and dilation {list(dilation)}"
        )
        reach = [2 * dilation[0], 0, 2 * dilation[1], 0]  # padding: the window fits
        with pytest.raises((ValueError, RuntimeError), match=re.escape(told)):
            ops.conv_relu(x, packed, weight.shape, stride=stride, padding=reach, dilation=dilation)
        with pytest.raises(ValueError, match=f"^{re.escape(told)}$"):
            conv_relu_reference(
                x, plain, [4, 4, 3, 3], list(stride), reach, list(dilation), None, None, 0, 0.0,
                0.0, None,
            )  # fmt: skip
