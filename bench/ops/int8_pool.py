"""Pools, sums and concatenations of uint8 codes at the shapes of ResNet-50 and MobileNetV2."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from case import Call, Case, StaticScales, WrongResultError
from torch import Tensor

from pyops import backends, ops
from pyops.testing.cases.int8_pool import CodesCase

# kind, (N, C, H, W)
Shape = tuple[str, tuple[int, int, int, int]]
SHAPES: tuple[Shape, ...] = (
    ("codes_max", (1, 64, 112, 112)),
    ("codes_max", (8, 64, 112, 112)),
    ("codes_mean", (1, 2048, 7, 7)),
    ("codes_mean", (1, 1280, 7, 7)),
    ("codes_mean", (8, 2048, 7, 7)),
    ("codes_add", (1, 256, 56, 56)),
    ("codes_add", (1, 512, 28, 28)),
    ("codes_add", (1, 1024, 14, 14)),
    ("codes_add", (1, 2048, 7, 7)),
    ("codes_add", (1, 24, 56, 56)),
    ("codes_add", (8, 256, 56, 56)),
)
ODD: tuple[Shape, ...] = (("codes_max", (1, 37, 55, 57)), ("codes_mean", (3, 65, 9, 11)))
SMALL: tuple[Shape, ...] = (("codes_add", (1, 160, 7, 7)), ("codes_max", (1, 32, 28, 28)))
TINY: tuple[Shape, ...] = (
    ("codes_max", (1, 5, 7, 9)),
    ("codes_mean", (2, 8, 3, 3)),
    ("codes_add", (1, 17, 3, 5)),
)
# Peers multiply by other products of the scales, so a tie may round the other way.
PEER_STEPS = 1


def cases(shapes: str) -> Iterator[Case]:
    """Yield every case of ``shapes``: "all", "main", "odd", "small" or "tiny"."""
    sets = {"all": SHAPES + ODD, "main": SHAPES, "odd": ODD, "small": SMALL, "tiny": TINY}
    for kind, shape in sets[shapes]:
        yield codes_case(kind, shape)


def codes_case(kind: str, shape: tuple[int, int, int, int]) -> Case:
    """One op on random uint8 images, channels_last."""
    generator = torch.Generator().manual_seed(0)

    def image() -> Tensor:
        q = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        return q.contiguous(memory_format=torch.channels_last)

    x, b = image(), image()
    relu = kind == "codes_add"
    scales = StaticScales(0.03, 20, torch.tensor([0.04]), 0.05, 0 if relu else 20, relu)
    name, arguments, call = _call(kind, x, b, scales)
    case = CodesCase(name, arguments)

    def check(result: Tensor, steps: int) -> None:
        codes = result.int_repr() if result.is_quantized else result
        off = (codes.int() - case.plain("reference").int()).abs().max()
        if off > steps:
            raise WrongResultError(f"is off by {int(off)} steps, expected at most {steps}")

    operands = 2 if relu else 1
    return Case(
        kind=kind,
        op="int8_pool",
        peak="not measured",  # no product: memory, or the steps of the rescaling, bind it
        kernel=backends.kernel("int8_pool"),
        name=f"{name} {kind.removeprefix('codes_')} u8 {'x'.join(map(str, shape))}",
        operations=float(x.numel() * (9 / 4 if kind == "codes_max" else 1)),
        bytes_moved=float(operands * x.numel() + case.run().numel()),
        make_ours=lambda: call,
        check_ours=lambda result: check(result, 0),
        check_peer=lambda result: check(result, PEER_STEPS),
        tensors={"x": x, "b": b},
        static=scales,
    )


def _call(
    kind: str, x: Tensor, b: Tensor, s: StaticScales
) -> tuple[str, list[object], Callable[[], Tensor]]:
    """The op's name, its arguments for the dispatcher, and the public call."""
    uint8, scale, zero = 4, s.scale_x, s.zero_point_x
    if kind == "codes_max":
        windows = [[3, 3], [2, 2], [1, 1, 1, 1], [1, 1], False, True, 0]
        arguments = [x, 0, *windows, scale, zero, uint8, scale, zero]
        call: Call = lambda: ops.int8_pool(  # noqa: E731
            x, 3, stride=2, padding=1, scale_x=scale, zero_point_x=zero
        )
        return "int8_pool", arguments, call
    if kind == "codes_mean":
        arguments = [x, 1, [1, 1], scale, zero, uint8, scale, zero]
        return (
            "int8_adaptive_pool",
            arguments,
            lambda: ops.int8_adaptive_pool(x, scale_x=scale, zero_point_x=zero),
        )
    own, out = float(s.scale_w), (s.scale_out, s.zero_point_out)
    arguments = [x, b, scale, zero, own, zero, 1, 0.0, 0.0, uint8, *out]
    return (
        "int8_add",
        arguments,
        lambda: ops.int8_add(
            x,
            b,
            scale_a=scale,
            zero_point_a=zero,
            scale_b=own,
            zero_point_b=zero,
            activation="relu",
            out_scale=out[0],
            out_zero_point=out[1],
        ),
    )
