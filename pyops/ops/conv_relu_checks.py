"""Argument checks of the float convolution, shared by public functions, reference and fake.

``csrc/checks/conv_relu.h`` makes the same checks with the same words.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from . import checks, conv_checks
from .conv_relu_packing import ALGORITHMS
from .epilogue import CONV_ACTIVATIONS, Activation

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


def weight_of(op: str, weight: Tensor, groups: int) -> None:
    """The sizes of a weight to be packed for so many groups."""
    if weight.dim() != 4:
        raise ValueError(
            f"{op}: weight must be 4-D [OC, C / groups, KH, KW], but is {weight.dim()}-D"
        )
    weight_shape(op, weight.shape)
    groups_of(op, weight.shape[0], groups)


def pack(weight: Tensor, groups: int, algorithm: int) -> None:
    op = "conv_relu_pack"
    dtype(op, "weight", weight.dtype)
    weight_of(op, weight, groups)
    checks.code(op, "algorithm", algorithm, len(ALGORITHMS))
    takes = weight.dtype == torch.float32 and winograd_takes(weight.shape, groups)
    if ALGORITHMS[algorithm] == "winograd" and not takes:
        raise ValueError(
            f"{op}: Winograd's algorithm takes a float32 weight [OC, C, 3, 3] of 1 group, but "
            f"weight is {weight.dtype} {list(weight.shape)} of {groups}"
        )


def winograd_takes(shape: Sequence[int], groups: int) -> bool:
    """Whether ``conv_relu_pack`` takes float32 weights of ``shape`` for Winograd's algorithm."""
    return list(shape[2:]) == [3, 3] and groups == 1


def winograd_geometry(op: str, stride: Sequence[int], dilation: Sequence[int]) -> None:
    """Of calls of a weight that is packed for Winograd's algorithm."""
    if {*stride, *dilation} != {1}:
        raise ValueError(
            f"{op}: the weight is packed for Winograd's algorithm, which takes stride 1 and "
            f"dilation 1, but stride is {list(stride)} and dilation {list(dilation)}"
        )


def unpack(packed: Tensor, shape: Sequence[int], weight_dtype: int) -> None:
    op = "conv_relu_unpack"
    weight_shape(op, shape)
    checks.code(op, "weight_dtype", weight_dtype, len(DTYPES))
    checks.packed(op, packed, "conv_relu_pack")


def output_shape(
    x: Tensor,
    shape: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> tuple[int, int, int, int]:
    """``[N, OC, OH, OW]``, once the geometry has been checked."""
    weight_shape(OP, shape)
    oc, cg, kh, kw = shape
    _, _, _, (oh, ow) = conv_checks.geometry(OP, x, (kh, kw), stride, padding, dilation)
    n, c = x.shape[:2]
    if c < 1 or c % cg:
        raise ValueError(f"{OP}: x has {c} channels, which is no multiple of the weight's {cg}")
    groups_of(OP, oc, c // cg)
    return n, oc, oh, ow


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
    low: float,
    high: float,
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
    if residual is not None:
        conv_checks.residual_shape(OP, residual, out)
    checks.code(OP, "activation", activation, len(CONV_ACTIVATIONS))
    act = Activation(CONV_ACTIVATIONS[activation], low, high, slope)
    conv_checks.activation(OP, act, out[1])
    checks.same_device(OP, x, packed=packed, bias=bias, residual=residual, slope=slope)
    return out
