"""int8 convolutions on every kernel of their products, against the plain-torch reference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pyops import backends, ops
from pyops.ops import int8_conv_packing
from pyops.testing.cases.int8_conv_relu import ConvCase, conv_case
from pyops.testing.cases.int8_gemm import random_codes
from pyops.testing.compare import assert_same
from pyops.testing.guarded import guarded
from pyops.testing.threads import on_threads

PRODUCTS = [row.name for row in backends.implementations("int8_gemm") if row.available]


@pytest.fixture(params=PRODUCTS or ["reference"])
def kernel(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every kernel of the products, forced."""
    if request.param == "reference":
        yield request.param
        return
    with backends.force("int8_gemm", request.param):
        yield request.param


def codes(rng: torch.Generator, *shape: int, signed: bool = False) -> Tensor:
    rows = random_codes(rng, shape[0] * shape[1], shape[2] * shape[3], signed, 0)
    return rows.reshape(shape).to(memory_format=torch.channels_last)


def on_all_kernels(seeds: range) -> None:
    for seed in seeds:
        case = conv_case(seed)
        expected = case.reference()
        for name in PRODUCTS:
            with backends.force("int8_gemm", name):
                assert_same(case.run(), expected, f"{name} seed {seed} {case.label}")


@pytest.mark.parametrize("block", range(8))
def test_all_kernels_equal_the_reference(block: int) -> None:
    """400 random geometries, each with another epilogue, on every kernel of this CPU."""
    on_all_kernels(range(block * 50, block * 50 + 50))


@pytest.mark.slow
@pytest.mark.parametrize("block", range(8, 70))
def test_all_kernels_equal_the_reference_at_length(block: int) -> None:
    """3100 more."""
    on_all_kernels(range(block * 50, block * 50 + 50))


def test_the_reference_is_a_convolution() -> None:
    """In int64, by torch."""
    for seed in range(150):
        case = conv_case(seed)
        o = case.options
        top, bottom, left, right = o["padding"]
        centred = F.pad(case.x.double() - o["zero_point_x"], (left, right, top, bottom))
        exact = F.conv2d(
            centred, case.weight.double(), None, o["stride"], 0, o["dilation"], case.groups
        )
        kept = {key: o[key] for key in ("stride", "padding", "dilation", "zero_point_x")}
        sums = replace(case, options=kept | {"out_dtype": torch.int32})
        assert_same(sums.reference().long(), exact.long(), case.label)


# Strips of several lines and of a part of a line, several blocks, images and panels; few pixels
# and many channels; taps on tiles of 64 and rows of K; strides that skip.
LARGE: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any], int]] = [
    ((2, 64, 57, 53), (130, 64, 3, 3), {"padding": 1}, 1),
    ((1, 128, 40, 37), (64, 128, 3, 3), {"padding": 1, "stride": 2}, 1),
    ((3, 256, 7, 7), (200, 256, 3, 3), {"padding": 1}, 1),
    ((1, 512, 7, 7), (512, 512, 1, 1), {}, 1),
    ((1, 256, 29, 29), (96, 256, 1, 1), {"stride": 2}, 1),
    ((2, 3, 95, 101), (64, 3, 7, 7), {"padding": 3, "stride": 2}, 1),
    ((1, 128, 33, 35), (128, 64, 3, 3), {"padding": 2, "dilation": 2}, 2),
    ((1, 68, 30, 31), (70, 68, 3, 5), {"padding": (0, 1, 2, 3)}, 1),
    ((1, 64, 3, 700), (64, 64, 3, 3), {"padding": (9, 8, 7, 6), "stride": (3, 1)}, 1),
]


@pytest.mark.parametrize("at", range(len(LARGE)))
def test_large_convolutions(kernel: str, at: int) -> None:
    x_shape, w_shape, options, groups = LARGE[at]
    rng = torch.Generator().manual_seed(at)
    weight = codes(rng, *w_shape, signed=True)
    options = {"zero_point_x": 77, "out_dtype": torch.int32} | options
    case = ConvCase(codes(rng, *x_shape), weight, groups, options)
    expected = case.reference()
    for threads in (1, 2, 4):
        with on_threads(threads):
            assert_same(case.run(), expected, f"{kernel} {threads} threads {case.label}")


@pytest.mark.parametrize("signed", [False, True])
def test_extremes_do_not_overflow(kernel: str, signed: bool) -> None:
    """All lowest or all highest codes at K = 65536."""
    c = 4096 if kernel != "reference" else 64
    for extreme in (1, 2):
        x = random_codes(torch.Generator(), 5 * 5, c, signed, extreme)
        x = x.reshape(1, 5, 5, c).permute(0, 3, 1, 2)
        w = random_codes(torch.Generator(), 17, c * 16, True, extreme).reshape(17, c, 4, 4)
        out = ops.int8_conv_relu(x, ops.int8_conv_pack(w), w.shape, out_dtype=torch.int32)
        exact = F.conv2d(x.double(), w.double())
        assert_same(out.long(), exact.long(), f"{kernel} {extreme}")


def test_nothing_is_read_behind_a_buffer(kernel: str) -> None:
    """Inputs end at an unmapped page: one byte too far is a fault."""
    keep: list[object] = []
    for seed in range(1000, 1080):
        case = conv_case(seed)
        if case.x.numel() == 0:
            continue
        last = case.x.permute(0, 2, 3, 1).contiguous()
        case.x = guarded(last, keep).permute(0, 3, 1, 2)
        for name in ("scale_w", "bias", "slope"):
            if case.options.get(name) is not None:
                case.options[name] = guarded(case.options[name], keep)
        if case.options.get("residual") is not None:
            rows = case.options["residual"].permute(0, 2, 3, 1).contiguous()
            case.options["residual"] = guarded(rows, keep).permute(0, 3, 1, 2)
        packed = guarded(ops.int8_conv_pack(case.weight, case.groups), keep)
        out = ops.int8_conv_relu(case.x, packed, case.weight.shape, **case.options)
        assert_same(out, case.reference(), f"{kernel} seed {seed} {case.label}")


def test_pack_and_unpack(kernel: str) -> None:
    rng = torch.Generator().manual_seed(2)
    for shape, groups in (
        ((5, 3, 3, 3), 1),
        ((66, 64, 1, 1), 1),
        ((12, 5, 2, 3), 4),
        ((0, 3, 1, 1), 1),
    ):
        w = random_codes(rng, shape[0], shape[1] * shape[2] * shape[3], True, 0).reshape(shape)
        packed = ops.int8_conv_pack(w, groups)
        assert_same(ops.int8_conv_unpack(packed, shape), w, f"{kernel} {shape}")
        header = int8_conv_packing.read_conv_header(packed)
        assert (header.shape, header.groups) == (shape, groups)


def test_output_and_inputs_of_any_memory_format(kernel: str) -> None:
    rng = torch.Generator().manual_seed(3)
    x, w = codes(rng, 2, 6, 9, 8), codes(rng, 5, 6, 3, 3, signed=True)
    packed = ops.int8_conv_pack(w)
    expected = ops.int8_conv_relu(x, packed, w.shape, padding=1)
    assert expected.is_contiguous(memory_format=torch.channels_last)
    wide = torch.empty(2, 9, 16, 12, dtype=torch.uint8).permute(0, 3, 1, 2)[:, ::2, :, ::2]
    for view in (
        wide,
        x.contiguous(),
        x.flip(3).flip(3),
        torch.empty(2, 6, 8, 9).mT.to(torch.uint8),
    ):
        view.copy_(x)
        assert_same(ops.int8_conv_relu(view, packed, w.shape, padding=1), expected, kernel)


def test_lines(kernel: str) -> None:
    """[N, C, L] is an image of one line."""
    rng = torch.Generator().manual_seed(4)
    x, w = codes(rng, 2, 64, 1, 50).squeeze(2), codes(rng, 7, 64, 1, 5, signed=True).squeeze(2)
    packed, bias = ops.int8_conv_pack(w), torch.randn(7)
    options: dict[str, Any] = {"bias": bias, "scale_x": 0.01, "zero_point_x": 3}
    out = ops.int8_conv_relu(x, packed, w.shape, stride=2, padding=(1, 2), dilation=3, **options)
    image = ops.int8_conv_relu(
        x.unsqueeze(2), packed, (7, 64, 1, 5), stride=(1, 2), padding=(0, 0, 1, 2), dilation=(1, 3),
        **options,
    )  # fmt: skip
    assert_same(out, image.squeeze(2), kernel)


@pytest.mark.parametrize(("kernel_size", "dilation"), [((3, 3), 1), ((2, 5), 1), ((4, 3), 2)])
def test_padding_same_is_that_of_torch(kernel_size: tuple[int, int], dilation: int) -> None:
    rng = torch.Generator().manual_seed(5)
    x, w = codes(rng, 1, 4, 11, 12), codes(rng, 3, 4, *kernel_size, signed=True)
    out = ops.int8_conv_relu(
        x, ops.int8_conv_pack(w), w.shape, padding="same", dilation=dilation,
        out_dtype=torch.int32,
    )  # fmt: skip
    exact = F.conv2d(x.double(), w.double(), padding="same", dilation=dilation)
    assert_same(out.long(), exact.long(), "same")


def test_torch_sees_the_ops_as_they_are() -> None:
    for seed in range(8):
        case = conv_case(seed)
        packed = ops.int8_conv_pack(case.weight, case.groups)
        torch.library.opcheck(torch.ops.pyops.int8_conv_pack.default, (case.weight, case.groups))
        unpack = (packed, list(case.weight.shape))
        torch.library.opcheck(torch.ops.pyops.int8_conv_unpack.default, unpack)
        torch.library.opcheck(torch.ops.pyops.int8_conv_relu.default, case.arguments(packed))


def test_compiles_into_one_graph() -> None:
    rng = torch.Generator().manual_seed(6)
    x, w = codes(rng, 2, 6, 9, 8), codes(rng, 5, 6, 3, 3, signed=True)
    packed = ops.int8_conv_pack(w)

    def forward(x: Tensor) -> Tensor:
        return ops.int8_conv_relu(
            x, packed, w.shape, padding="same", activation="clamp", low=0.0, high=6.0, scale_x=1e-3
        )

    assert_same(torch.compile(forward, fullgraph=True)(x), forward(x), "compiled")
