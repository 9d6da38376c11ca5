"""Argument checks of the convolutions, shared by public functions, references and fakes.

``csrc/checks/conv_shape.h`` and ``csrc/checks/int8_conv_relu.h`` make the same checks with the same
words.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from . import checks
from .epilogue import CONV_ACTIVATIONS, OUT_DTYPES, Activation
from .int8_conv_packing import ConvHeader

_LARGEST = 1 << 20
_CODES = (torch.int8, torch.uint8)


class Geometry(NamedTuple):
    """Stride and dilation ``[h, w]``, padding ``[top, bottom, left, right]``, output ``[h, w]``."""

    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]
    out: tuple[int, int]


def _integers(op: str, name: str, values: Sequence[int], count: int, least: int) -> None:
    if len(values) != count:
        raise ValueError(f"{op}: {name} must have {count} integers, but has {len(values)}")
    for value in values:
        if not least <= value <= _LARGEST:
            raise ValueError(f"{op}: {name} must be in [{least}, {_LARGEST}], but {value} given")


def positions(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """How often a window fits along one axis."""
    last = size + padding - (dilation * (kernel - 1) + 1)
    return 0 if last < 0 else last // stride + 1


def geometry(
    op: str,
    x: Tensor,
    kernel: tuple[int, int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Geometry:
    if x.dim() != 4:
        raise ValueError(f"{op}: x must be 4-D [N, C, H, W], but is {x.dim()}-D")
    _integers(op, "stride", stride, 2, 1)
    _integers(op, "padding", padding, 4, 0)
    _integers(op, "dilation", dilation, 2, 1)
    h = positions(x.shape[2], kernel[0], stride[0], padding[0] + padding[1], dilation[0])
    w = positions(x.shape[3], kernel[1], stride[1], padding[2] + padding[3], dilation[1])
    if h == 0 or w == 0:
        raise ValueError(
            f"{op}: a window of {kernel[0]} x {kernel[1]} does not fit into the padded input"
        )
    return Geometry(stride, padding, dilation, (h, w))


def code_dtype(op: str, name: str, dtype: torch.dtype) -> None:
    if dtype not in _CODES:
        raise TypeError(f"{op}: {name} must be torch.int8 or torch.uint8, but is {dtype}")


def activation(op: str, act: Activation, oc: int) -> None:
    if act.name not in CONV_ACTIVATIONS:
        raise ValueError(f"{op}: activation must be one of {CONV_ACTIVATIONS}, but is {act.name!r}")
    if act.name == "clamp" and not act.low <= act.high:
        raise ValueError(
            f"{op}: clamp needs low <= high, but they are {act.low:g} and {act.high:g}"
        )
    most = torch.finfo(torch.float32).max
    if act.name == "clamp" and any(most < abs(v) < math.inf for v in (act.low, act.high)):
        raise ValueError(
            f"{op}: clamp needs bounds within float32, but they are {act.low:g} and {act.high:g}"
        )
    if (act.slope is not None) != (act.name == "leaky_relu"):
        raise ValueError(f"{op}: slope goes with the activation leaky_relu")
    if act.slope is None:
        return
    if act.slope.dtype != torch.float32:
        raise TypeError(f"{op}: slope must be torch.float32, but is {act.slope.dtype}")
    if act.slope.dim() != 1 or act.slope.shape[0] not in (1, oc):
        raise ValueError(f"{op}: slope must be [1] or [{oc}], but is {list(act.slope.shape)}")


def conv_pack(weight: Tensor, groups: int) -> None:
    op = "int8_conv_pack"
    if weight.dtype != torch.int8:
        raise TypeError(f"{op}: weight must be torch.int8, but is {weight.dtype}")
    if weight.dim() != 4:
        raise ValueError(
            f"{op}: weight must be 4-D [OC, C / groups, KH, KW], but is {weight.dim()}-D"
        )
    if not 1 <= groups <= max(1, weight.shape[0]) or weight.shape[0] % groups:
        raise ValueError(
            f"{op}: groups is {groups}, which does not divide {weight.shape[0]} output channels"
        )
    if weight.shape[2] == 0 or weight.shape[3] == 0:
        raise ValueError(f"{op}: the window is empty")
    depth = weight.shape[1:].numel()
    if depth > 65536:
        raise ValueError(
            f"{op}: KH * KW * C / groups is {depth}, but at most 65536 is exact in int32"
        )


def residual_shape(op: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise ValueError(
            f"{op}: residual must be {list(shape)} like the output, but is {list(tensor.shape)}"
        )


def residual(
    op: str, tensor: Tensor | None, factor: float, zero: int, shape: tuple[int, ...]
) -> None:
    if tensor is None:
        if factor != 1.0 or zero != 0:
            raise ValueError(f"{op}: residual_scale and residual_zero_point are for a residual")
        return
    residual_shape(op, tensor, shape)
    if tensor.dtype in _CODES:
        checks.scale(op, "residual_scale", factor)
        return checks.zero_point(op, "residual_zero_point", zero, tensor.dtype)
    checks.floats(op, "residual", tensor.dtype)
    if factor != 1.0 or zero != 0:
        raise ValueError(
            f"{op}: residual_scale and residual_zero_point are for int8 and uint8 residuals"
        )


def output(op: str, out_dtype: torch.dtype, factor: float, zero: int) -> None:
    if out_dtype not in OUT_DTYPES:
        raise TypeError(
            f"{op}: out_dtype must be {checks.FLOAT_NAMES}, torch.int8, torch.uint8 or "
            f"torch.int32, but is {out_dtype}"
        )
    if out_dtype in _CODES:
        checks.scale(op, "out_scale", factor)
        return checks.zero_point(op, "out_zero_point", zero, out_dtype)
    if factor != 1.0 or zero != 0:
        raise ValueError(
            f"{op}: out_scale and out_zero_point are for int8 and uint8 outputs, "
            f"but out_dtype is {out_dtype}"
        )


def weight_shape(op: str, shape: Sequence[int], lines: bool) -> list[int]:
    """``[OC, C / groups, KH, KW]``; ``lines``: from that of a 1-D convolution."""
    dims = 3 if lines else 4
    # All are positive in nearly every call: only others are looked at in parts.
    if len(shape) != dims or (min(shape) < 1 and (min(shape[:2]) < 0 or min(shape[2:]) < 1)):
        form = "[OC, C / groups, K]" if lines else "[OC, C / groups, KH, KW]"
        raise ValueError(f"{op}: weight_shape must be {form}, but is {list(shape)}")
    return [*shape[:2], 1, shape[2]] if lines else list(shape)


def packed_shape(op: str, header: ConvHeader, shape: Sequence[int], channels: int) -> None:
    """Against the shape that the call is for, and the channels of its input."""
    if list(header.shape) != list(shape):
        raise ValueError(
            f"{op}: the packed weight is {list(header.shape)}, but weight_shape is {list(shape)}"
        )
    if header.shape[1] * header.groups != channels:
        raise ValueError(
            f"{op}: x has {channels} channels, but the weight takes "
            f"{header.shape[1] * header.groups}"
        )
