"""Codes whose scale is folded into the weight's: what kernels store straight from registers."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from pyops import backends
from pyops.testing.cases.int8_conv_relu import ConvCase
from pyops.testing.cases.int8_gemm import random_codes
from pyops.testing.compare import assert_same
from pyops.testing.guarded import guarded
from pyops.testing.threads import on_threads

DEPTHWISE = [row.name for row in backends.implementations("int8_conv_relu") if row.available]
PRODUCTS = [row.name for row in backends.implementations("int8_gemm") if row.available]
# Columns: whole vectors of 8 and 16, whole tiles, and one more or less.
COLUMNS = (1, 8, 16, 17, 24, 31, 32, 40, 48, 63, 64, 65, 96, 120, 144)
ACTIVATIONS: tuple[dict[str, Any], ...] = (
    {},
    {"activation": "relu"},
    {"activation": "clamp", "low": 0.0, "high": 200.5},
    {"activation": "clamp", "low": 3.0, "high": 90.0},
    {"activation": "clamp", "low": -1e30, "high": 1e30},
)


def folded_case(
    seed: int, columns: int, activation: dict[str, Any], zero: int, residual: bool, odd: bool
) -> ConvCase:
    """A convolution whose results lie about the range of uint8; ``odd``: with NaN and Inf."""
    rng = torch.Generator().manual_seed(seed)
    depth, (height, width) = (4, 20, 64)[seed % 3], ((1, 1), (3, 5), (4, 7), (1, 13))[seed % 4]
    x = random_codes(rng, height * width, depth, False, 0)
    w = random_codes(rng, columns, depth, True, 0)
    scale = torch.rand(columns, generator=rng) * 0.04 / depth**0.5
    bias = torch.randn(columns, generator=rng) * 60 + 60
    if odd:
        for at, value in enumerate((float("nan"), float("inf"), -float("inf"), 3e38, -3e38)):
            bias[(seed + 3 * at) % columns] = value
            scale[(seed + 5 * at) % columns] = (3e38, float("inf"), float("nan"))[at % 3]
    options = {
        "zero_point_x": seed % 3 * 100,
        "scale_w": scale,
        "bias": bias,
        "out_dtype": torch.uint8,
        "out_zero_point": zero,
        **activation,
    }
    if residual:
        codes = random_codes(rng, height * width, columns, False, 0)
        options["residual"] = codes.reshape(1, height, width, columns).permute(0, 3, 1, 2)
        options |= {"residual_scale": 0.5, "residual_zero_point": seed % 2 * 128}
    image = x.reshape(1, height, width, depth).permute(0, 3, 1, 2)
    return ConvCase(image, w.reshape(columns, depth, 1, 1), 1, options)


@pytest.mark.parametrize("columns", COLUMNS)
def test_folded_codes_equal_the_reference(columns: int) -> None:
    """Every activation, with and without zero point, residual, NaN and Inf; exact."""
    keep: list[object] = []
    product = itertools.product(ACTIVATIONS, (0, 130), (False, True), (False, True))
    for seed, (activation, zero, residual, odd) in enumerate(product):
        case = folded_case(seed, columns, activation, zero, residual, odd)
        if residual:
            rows = case.options["residual"].permute(0, 2, 3, 1).contiguous()
            case.options["residual"] = guarded(rows, keep).permute(0, 3, 1, 2)
        expected = case.reference()
        assert columns < 8 or len(expected.unique()) > 1
        for name in PRODUCTS:
            with backends.force("int8_gemm", name):
                assert_same(case.run(), expected, f"{name} seed {seed} {case.label}")


# Heights and widths of images whose pixels are whole tiles of 6 rows, one more or less, and two
# blocks; depths about the least of which rows of a tile take turns.
SIZES = [(1, 11), (2, 6), (1, 13), (1, 17), (3, 6), (1, 20), (5, 5), (8, 12), (9, 11)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("depth", "window"), [(44, 1), (48, 1), (52, 1), (256, 1), (48, 3)])
def test_rows_that_take_turns_equal_the_reference(
    size: tuple[int, int], depth: int, window: int
) -> None:
    """Tiles that begin while the codes of those before are made; exact."""
    height, width = size
    for residual, columns in itertools.product((False, True), (64, 80)):
        rng = torch.Generator().manual_seed(height * width + depth)
        x = random_codes(rng, height * width, depth, False, 0).reshape(1, height, width, depth)
        taps = window * window
        w = random_codes(rng, columns, depth * taps, True, 0)
        options = {
            "padding": window // 2,
            "zero_point_x": 100,
            "scale_w": torch.rand(columns, generator=rng) * 0.04 / (depth * taps) ** 0.5,
            "bias": torch.randn(columns, generator=rng) * 60 + 60,
            "out_dtype": torch.uint8,
            "out_zero_point": 30,
            "activation": "relu",
        }
        keep: list[object] = []
        if residual:
            codes = guarded(random_codes(rng, height * width, columns, False, 0), keep)
            options["residual"] = codes.reshape(1, height, width, columns).permute(0, 3, 1, 2)
            options |= {"residual_scale": 0.5, "residual_zero_point": 128}
        weight = w.reshape(columns, depth, window, window)
        case = ConvCase(x.permute(0, 3, 1, 2), weight, 1, options)
        expected = case.reference()
        assert len(expected.unique()) > 1
        for name in PRODUCTS:
            with backends.force("int8_gemm", name):
                assert_same(case.run(), expected, f"{name} {case.label}")


@pytest.mark.parametrize("columns", COLUMNS)
def test_folded_codes_of_depthwise_equal_the_reference(columns: int) -> None:
    """The same by 3x3 windows of one channel each; results beyond int32 among them."""
    for seed, (activation, zero, large, stride) in enumerate(
        itertools.product(ACTIVATIONS, (0, 130), (1.0, 1e6), (1, 2))
    ):
        rng = torch.Generator().manual_seed(seed)
        x = random_codes(rng, 9 * 11, columns, False, 0).reshape(1, 9, 11, columns)
        w = random_codes(rng, columns, 9, True, 0).reshape(columns, 1, 3, 3)
        options = {
            "padding": 1,
            "stride": stride,
            "zero_point_x": seed % 3 * 100,
            "scale_w": torch.rand(columns, generator=rng) * 0.01 * large,
            "bias": torch.randn(columns, generator=rng) * 60 + 60,
            "out_dtype": torch.uint8,
            "out_zero_point": zero,
            **activation,
        }
        case = ConvCase(x.permute(0, 3, 1, 2), w, columns, options)
        expected = case.reference()
        assert columns < 8 or len(expected.unique()) > 1
        for name in DEPTHWISE:
            with backends.force("int8_conv_relu", name):
                assert_same(case.run(), expected, f"{name} seed {seed} {case.label}")


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("columns", [96, 160])
def test_depthwise_codes_of_large_images(columns: int, stride: int, threads: int) -> None:
    """More rows and pixels than are made at once, on several threads; uint8 and int8 codes."""
    height, width = 180 * stride + 1, 270 * stride
    rng = torch.Generator().manual_seed(columns + stride)
    x = random_codes(rng, height * width, columns, False, 0).reshape(1, height, width, columns)
    w = random_codes(rng, columns, 9, True, 0).reshape(columns, 1, 3, 3)
    for out_dtype, zero in ((torch.uint8, 7), (torch.int8, -20)):
        options = {
            "padding": 1,
            "stride": stride,
            "zero_point_x": 100,
            "scale_w": torch.rand(columns, generator=rng) * 0.01,
            "bias": torch.randn(columns, generator=rng) * 20 + 20,
            "out_dtype": out_dtype,
            "out_zero_point": zero,
        }
        case = ConvCase(x.permute(0, 3, 1, 2), w, columns, options)
        expected = case.reference()
        assert len(expected.unique()) > 200
        for name in DEPTHWISE:
            with backends.force("int8_conv_relu", name), on_threads(threads):
                assert_same(case.run(), expected, f"{name} {threads} threads {case.label}")
