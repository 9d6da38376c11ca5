"""Argument checks of the float convolution, shared by public functions, reference and fake.

``csrc/checks/conv_relu.h`` makes the same checks with the same words.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from . import checks
from .conv_checks import positions
from .epilogue import CONV_ACTIVATIONS

OP = "conv_relu"
DTYPES = (torch.float32, torch.bfloat16)
_DTYPE_NAMES = "torch.float32 or torch.bfloat16"


def dtype(op: str, name: str, given: torch.dtype) -> None:
    if given not in DTYPES:
        raise TypeError(f"{op}: {name} must be {_DTYPE_NAMES}, but is {given}")


def weight_shape(op: str, shape: Sequence[int]) -> None:
    if len(shape) != 4 or any(size < 1 for size in shape):
        raise ValueError(
            f"{op}: weight_shape must be 4 positive sizes [OC, C / groups, KH, KW], "
            f"but is {list(shape)}"
        )


def groups_of(op: str, oc: int, groups: int) -> None:
    if groups < 1 or oc % groups:
        raise ValueError(f"{op}: groups must divide the {oc} output channels, but is {groups}")


def pack(weight: Tensor, groups: int) -> None:
    op = "conv_relu_pack"
    dtype(op, "weight", weight.dtype)
    if weight.dim() != 4:
        raise ValueError(
            f"{op}: weight must be 4-D [OC, C / groups, KH, KW], but is {weight.dim()}-D"
        )
    weight_shape(op, weight.shape)
    groups_of(op, weight.shape[0], groups)


def unpack(packed: Tensor, shape: Sequence[int], weight_dtype: int) -> None:
    op = "conv_relu_unpack"
    weight_shape(op, shape)
    checks.code(op, "weight_dtype", weight_dtype, len(DTYPES))
    checks.packed(op, packed, "conv_relu_pack")


def _numbers(name: str, values: Sequence[int], count: int, least: int) -> None:
    if len(values) != count or any(v < least for v in values):
        raise ValueError(
            f"{OP}: {name} must be {count} integers of at least {least}, but is {list(values)}"
        )


def output_shape(
    x: Tensor,
    shape: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> tuple[int, int, int, int]:
    """``[N, OC, OH, OW]``, once the geometry has been checked."""
    weight_shape(OP, shape)
    _numbers("stride", stride, 2, 1)
    _numbers("padding", padding, 4, 0)
    _numbers("dilation", dilation, 2, 1)
    if x.dim() != 4:
        raise ValueError(f"{OP}: x must be 4-D [N, C, H, W], but is {x.dim()}-D")
    n, c, h, w = x.shape
    oc, cg, kh, kw = shape
    if c < 1 or c % cg:
        raise ValueError(f"{OP}: x has {c} channels, which is no multiple of the weight's {cg}")
    groups_of(OP, oc, c // cg)
    oh = positions(h, kh, stride[0], padding[0] + padding[1], dilation[0])
    ow = positions(w, kw, stride[1], padding[2] + padding[3], dilation[1])
    if oh < 1 or ow < 1:
        raise ValueError(
            f"{OP}: a kernel of {kh} x {kw} does not fit the input of {h} x {w} with padding "
            f"{list(padding)} and dilation {list(dilation)}"
        )
    return n, oc, oh, ow


def _slope(activation: int, slope: Tensor | None, oc: int) -> None:
    if (slope is not None) != (CONV_ACTIVATIONS[activation] == "leaky_relu"):
        raise ValueError(
            f"{OP}: slope goes with the activation 'leaky_relu', and with no other, but "
            f"{CONV_ACTIVATIONS[activation]!r} is given {'one' if slope is not None else 'none'}"
        )
    if slope is None:
        return
    if slope.dtype != torch.float32:
        raise TypeError(f"{OP}: slope must be torch.float32, but is {slope.dtype}")
    if slope.dim() != 1 or slope.shape[0] not in (1, oc):
        raise ValueError(f"{OP}: slope must be [1] or [{oc}], but is {list(slope.shape)}")


def conv_relu(
    x: Tensor,
    packed: Tensor,
    shape: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    bias: Tensor | None,
    residual: Tensor | None,
    activation: int,
    slope: Tensor | None,
) -> tuple[int, int, int, int]:
    """The shape of the output.

    Raises:
        TypeError, ValueError: with what was given and what was expected.
    """
    dtype(OP, "x", x.dtype)
    out = output_shape(x, shape, stride, padding, dilation)
    checks.packed(OP, packed, "conv_relu_pack")
    checks.channels(OP, "bias", bias, out[1])
    if residual is not None and residual.dtype != x.dtype:
        raise TypeError(
            f"{OP}: residual must have the dtype of x, {x.dtype}, but is {residual.dtype}"
        )
    if residual is not None and residual.shape != out:
        raise ValueError(
            f"{OP}: residual must have the shape of the output, {list(out)}, "
            f"but is {list(residual.shape)}"
        )
    checks.code(OP, "activation", activation, len(CONV_ACTIVATIONS))
    _slope(activation, slope, out[1])
    checks.same_device(OP, x, packed=packed, bias=bias, residual=residual, slope=slope)
    return out
