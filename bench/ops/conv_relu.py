"""``conv_relu`` in float32 and bfloat16: the layers of ResNet-50 and MobileNetV2."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from case import Call, Case, WrongResultError, sqnr_db
from torch import Tensor

from pyops import ops
from pyops.ops.conv_relu import kernel_of
from pyops.testing.cases.conv_relu import ConvCase

# C, H = W, OC, kernel, stride, groups; padding keeps the size.
Layer = tuple[int, int, int, int, int, int]
RESNET: tuple[Layer, ...] = (
    (3, 224, 64, 7, 2, 1),
    (64, 56, 64, 1, 1, 1),
    (64, 56, 64, 3, 1, 1),
    (64, 56, 256, 1, 1, 1),
    (256, 56, 64, 1, 1, 1),
    (128, 56, 128, 3, 2, 1),
    (128, 28, 128, 3, 1, 1),
    (128, 28, 512, 1, 1, 1),
    (512, 28, 128, 1, 1, 1),
    (512, 28, 1024, 1, 2, 1),
    (256, 14, 256, 3, 1, 1),
    (256, 14, 1024, 1, 1, 1),
    (1024, 14, 256, 1, 1, 1),
    (512, 7, 512, 3, 1, 1),
    (512, 7, 2048, 1, 1, 1),
    (2048, 7, 512, 1, 1, 1),
)
MOBILENET: tuple[Layer, ...] = (
    (3, 224, 32, 3, 2, 1),
    (32, 112, 32, 3, 1, 32),
    (32, 112, 16, 1, 1, 1),
    (16, 112, 96, 1, 1, 1),
    (96, 112, 96, 3, 2, 96),
    (24, 56, 144, 1, 1, 1),
    (144, 56, 144, 3, 1, 144),
    (192, 28, 192, 3, 1, 192),
    (384, 14, 384, 3, 1, 384),
    (384, 14, 64, 1, 1, 1),
    (960, 7, 960, 3, 1, 960),
    (320, 7, 1280, 1, 1, 1),
)
ODD: tuple[Layer, ...] = (
    (37, 23, 51, 3, 1, 1),
    (60, 31, 60, 5, 2, 60),
    (48, 19, 96, 3, 1, 4),
    (16, 56, 16, 3, 1, 1),  # about the least channels for Winograd's algorithm
    (32, 56, 32, 3, 1, 1),
)
TINY: tuple[Layer, ...] = (
    (3, 9, 8, 3, 2, 1),
    (8, 5, 8, 3, 1, 8),
    (8, 5, 12, 1, 1, 1),
    (8, 6, 9, 3, 1, 1),
)
# A peer may round sums and bias to bf16: half a unit in the last place is 54 dB below.
PEER_SQNR_DB = 45.0


def cases(shapes: str) -> Iterator[Case]:
    """Yield every case of ``shapes``: "all", "main", "few" (batch 1), "odd" or "tiny"."""
    main = RESNET + MOBILENET
    sets = {"all": main + ODD, "main": main, "few": main, "odd": ODD, "tiny": TINY}
    for dtype in (torch.float32, torch.bfloat16):
        for batch in (1,) if shapes in ("few", "tiny") else (1, 8):
            for layer in sets[shapes]:
                yield conv(layer, batch, dtype, "direct")
                *_, kernel, stride, groups = layer
                if dtype == torch.float32 and (kernel, stride, groups) == (3, 1, 1):
                    yield conv(layer, batch, dtype, "winograd")


def conv(layer: Layer, batch: int, dtype: torch.dtype, algorithm: str) -> Case:
    """A layer with bias and ReLU, on channels_last images."""
    c, size, oc, kernel, stride, groups = layer
    generator = torch.Generator().manual_seed(0)

    def tensor(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    last = torch.channels_last
    x = tensor(batch, c, size, size).to(dtype).contiguous(memory_format=last)
    weight = tensor(oc, c // groups, kernel, kernel).to(dtype).contiguous(memory_format=last)
    bias = tensor(oc)
    padding = kernel // 2

    def make_ours() -> Call:
        packed, shape = ops.conv_relu_pack(weight, groups, algorithm), list(weight.shape)
        return lambda: ops.conv_relu(
            x, packed, shape, stride=stride, padding=padding, bias=bias, activation="relu"
        )

    def exact() -> tuple[Tensor, Tensor]:
        one = slice(0, 1)  # of the batch: float64 takes its time
        case = ConvCase(x[one], weight, groups, (stride, stride), (padding,) * 4, bias=bias)
        case.activation, case.algorithm = "relu", algorithm
        return case.exact()

    out = (size + 2 * padding - kernel) // stride + 1
    elements = x.numel() + weight.numel() + batch * oc * out * out
    return Case(
        kind="conv",
        op="conv_relu",
        peak=peak_of(dtype),
        kernel=kernel_of(dtype),
        name=f"conv {str(dtype).removeprefix('torch.')} B{batch} {c}->{oc} {size}x{size} "
        f"k{kernel} s{stride}{f' g{groups}' if groups > 1 else ''}"
        f"{' winograd' if algorithm == 'winograd' else ''}",
        operations=2.0 * batch * oc * out * out * kernel * kernel * c // groups,
        bytes_moved=float(x.element_size() * elements),
        make_ours=make_ours,
        check_ours=lambda result: expect_within(result[:1], *exact()),
        check_peer=lambda result: expect_close(result[:1], exact()[0]),
        tensors={"x": x, "weight": weight, "bias": bias},
        geometry={"stride": stride, "padding": padding, "groups": groups},
    )


def peak_of(dtype: torch.dtype) -> str:
    """Return the name of the instruction peak that bounds the kernel for such images.

    That of ``tdpbf16ps`` is not measured, nor is one for the generic kernel.
    """
    peaks = {"avx512bf16": "vdpbf16ps_zmm", "avx512": "fma_zmm", "avx2": "fma_ymm"}
    return peaks.get(kernel_of(dtype), "not measured")


def expect_within(result: Tensor, exact: Tensor, bound: Tensor) -> None:
    """Raise WrongResultError where the error is larger than its bound."""
    excess = (result.double() - exact).abs() / bound
    if not bool((excess <= 1).all()):
        raise WrongResultError(f"is off by {excess.max().item():.2f} times the bound")


def expect_close(result: Tensor, exact: Tensor) -> None:
    """Raise WrongResultError where the error is larger than bf16 explains."""
    if (quality := sqnr_db(result, exact)) < PEER_SQNR_DB:
        raise WrongResultError(f"SQNR is {quality:.1f} dB, expected at least {PEER_SQNR_DB} dB")
