"""int8 convolutions with as many groups as channels, on every kernel of their own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pyops import ops
from pyops.ops import int8_conv_packing
from pyops.testing.cases.int8_conv_relu import ConvCase, conv_case
from pyops.testing.cases.int8_gemm import random_codes
from pyops.testing.compare import assert_same
from pyops.testing.threads import on_threads


def test_equals_the_reference(kernel: str) -> None:
    for seed in range(300):
        case = conv_case(seed, depthwise=True)
        assert_same(case.run(), case.reference(), f"{kernel} seed {seed} {case.label}")


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8])
@pytest.mark.parametrize("activation", ["none", "relu", "clamp"])
def test_values_beyond_every_code_saturate(
    kernel: str, dtype: torch.dtype, activation: str
) -> None:
    """Also those beyond int32, of both signs, in whole blocks of channels and in tails."""
    rng = torch.Generator().manual_seed(7)
    x = random_codes(rng, 9, 70, False, 0).reshape(1, 3, 3, 70).permute(0, 3, 1, 2)
    weight = random_codes(rng, 70, 9, True, 0).reshape(70, 1, 3, 3)
    for scale in (1.0, 900.0, 3e4, 2e7, 1e30):
        options: dict[str, Any] = {"scale_x": scale, "out_dtype": dtype, "out_zero_point": 5}
        options |= {"activation": activation, "padding": 1}
        if activation == "clamp":
            options |= {"low": -3.0, "high": 20.0}
        case = ConvCase(x, weight, 70, options)
        assert_same(case.run(), case.reference(), f"{kernel} {case.label}")


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_large_images_on_any_number_of_threads(kernel: str, threads: int) -> None:
    rng = torch.Generator().manual_seed(8)
    x = random_codes(rng, 2 * 40 * 37, 160, False, 0).reshape(2, 40, 37, 160).permute(0, 3, 1, 2)
    weight = random_codes(rng, 160, 25, True, 0).reshape(160, 1, 5, 5)
    options = {"padding": 2, "stride": 2, "zero_point_x": 9, "out_dtype": torch.int32}
    case = ConvCase(x, weight, 160, options)
    expected = case.reference()
    with on_threads(threads):
        assert_same(case.run(), expected, f"{kernel} {threads} threads")


def test_pack_and_unpack(kernel: str) -> None:
    rng = torch.Generator().manual_seed(9)
    for c in (1, 5, 64, 65):
        w = random_codes(rng, c, 6, True, 0).reshape(c, 1, 2, 3)
        packed = ops.int8_conv_pack(w, c)
        layout = int8_conv_packing.read_conv_header(packed).layout
        assert layout == ("plain" if kernel == "reference" else "depthwise")
        assert_same(ops.int8_conv_unpack(packed, w.shape), w, f"{kernel} {c}")
