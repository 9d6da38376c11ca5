"""References of the float convolution and its packs in plain torch, and their fakes."""

import torch
import torch.nn.functional as F
from torch import Tensor

from . import conv_relu_checks as own
from . import conv_relu_packing as packing
from .epilogue import CONV_ACTIVATIONS, Activation, finish_float
from .images import empty_image
from .int8_gemm_reference import packed_of_unknown_size


def conv_relu_pack_reference(weight: Tensor, groups: int, algorithm: int) -> Tensor:
    own.pack(weight, groups, algorithm)
    return packing.pack_plain(weight, groups, algorithm)


def conv_relu_pack_fake(weight: Tensor, groups: int, algorithm: int) -> Tensor:
    own.pack(weight, groups, algorithm)
    return packed_of_unknown_size(weight)


def unpack_as(
    op: str, packed: Tensor, shape: list[int], dtype: torch.dtype
) -> tuple[Tensor, packing.Header]:
    """The weight of that shape and dtype in a plain packed one, and its header."""
    header, weight = packing.unpack_plain(packed)
    if list(header.shape) != list(shape):
        raise ValueError(
            f"{op}: the packed weight is {list(header.shape)}, but weight_shape is {list(shape)}"
        )
    if header.dtype != dtype:
        raise TypeError(
            f"{op}: the packed weight is {header.dtype}, which goes with x of the same dtype, "
            f"not {dtype}"
        )
    return weight, header


def conv_relu_unpack_reference(
    packed: Tensor, weight_shape: list[int], weight_dtype: int
) -> Tensor:
    own.unpack(packed, weight_shape, weight_dtype)
    dtype = packing.WEIGHT_DTYPES[weight_dtype]
    return unpack_as("conv_relu_unpack", packed, weight_shape, dtype)[0]


def conv_relu_unpack_fake(packed: Tensor, weight_shape: list[int], weight_dtype: int) -> Tensor:
    own.unpack(packed, weight_shape, weight_dtype)
    return packed.new_empty(weight_shape, dtype=packing.WEIGHT_DTYPES[weight_dtype])


def conv_relu_reference(
    x: Tensor,
    packed: Tensor,
    weight_shape: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    bias: Tensor | None,
    residual: Tensor | None,
    activation: int,
    low: float,
    high: float,
    slope: Tensor | None,
) -> Tensor:
    shape = own.conv_relu(
        x, packed, weight_shape, stride, padding, dilation, bias, residual, activation, low, high,
        slope,
    )  # fmt: skip
    weight, header = unpack_as(own.OP, packed, weight_shape, x.dtype)
    groups = header.groups
    if groups != x.shape[1] // weight_shape[1]:
        raise ValueError(
            f"{own.OP}: the weight is packed for {groups} groups, but x has {x.shape[1]} channels, "
            f"which makes {x.shape[1] // weight_shape[1]}"
        )
    if packing.ALGORITHMS[header.algorithm] == "winograd":
        own.winograd_geometry(own.OP, stride, dilation)
    top, bottom, left, right = padding
    with torch.autocast(x.device.type, enabled=False):
        padded = F.pad(x.to(torch.float32), (left, right, top, bottom))
        v = F.conv2d(padded, weight.to(torch.float32), None, stride, 0, dilation, groups)
    rows = None if residual is None else residual.permute(0, 2, 3, 1)
    how = Activation(CONV_ACTIVATIONS[activation], low, high, slope)
    v = finish_float(v.permute(0, 2, 3, 1), bias, rows, how)
    return empty_image(shape, x.dtype, x.device).copy_(v.permute(0, 3, 1, 2))


def conv_relu_fake(
    x: Tensor,
    packed: Tensor,
    weight_shape: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    bias: Tensor | None,
    residual: Tensor | None,
    activation: int,
    low: float,
    high: float,
    slope: Tensor | None,
) -> Tensor:
    shape = own.conv_relu(
        x, packed, weight_shape, stride, padding, dilation, bias, residual, activation, low, high,
        slope,
    )  # fmt: skip
    return empty_image(shape, x.dtype, x.device)
