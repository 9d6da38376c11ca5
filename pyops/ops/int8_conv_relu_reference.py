"""References of the int8 convolutions in plain torch, and their fakes."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from . import checks, conv_checks
from . import int8_conv_packing as packing
from .conv_checks import Geometry
from .epilogue import CONV_ACTIVATIONS, OUT_DTYPES, Activation, finish
from .images import empty_image
from .int8_gemm_reference import packed_of_unknown_size
from .int8_sparse_packing import is_sparse, unpack_sparse_plain

_OP = "int8_conv_relu"


def int8_conv_pack_reference(weight: Tensor, groups: int) -> Tensor:
    conv_checks.conv_pack(weight, groups)
    return packing.pack_conv_plain(weight, groups)


def int8_conv_pack_fake(weight: Tensor, groups: int) -> Tensor:
    conv_checks.conv_pack(weight, groups)
    return packed_of_unknown_size(weight)


def int8_conv_unpack_reference(packed: Tensor, shape: Sequence[int]) -> Tensor:
    checks.packed("int8_conv_unpack", packed, "int8_conv_pack")
    weight = packing.unpack_conv_plain(packed)
    if list(weight.shape) != list(shape):
        raise ValueError(
            f"int8_conv_unpack: the packed weight is {list(weight.shape)}, "
            f"but shape = {list(shape)} given"
        )
    return weight


def int8_conv_unpack_fake(packed: Tensor, shape: Sequence[int]) -> Tensor:
    checks.packed("int8_conv_unpack", packed, "int8_conv_pack")
    return packed.new_empty(tuple(shape), dtype=torch.int8)


def int8_conv_sums(x: Tensor, zero_point: int, weight: Tensor, groups: int, g: Geometry) -> Tensor:
    """Exact ``sum (x - zero_point) * w`` in int32, ``[N * OH * OW, OC]``, tap by tap.

    512 products of at most 255 * 128 stay below 2^24, so float32 holds each partial sum exactly.
    """
    top, bottom, left, right = g.padding
    centred = F.pad(x.to(torch.int32) - zero_point, (left, right, top, bottom)).to(torch.float32)
    oc, c, kh, kw = weight.shape
    by_group = weight.to(torch.float32).reshape(groups, oc // groups, c, kh, kw)
    pixels = x.shape[0] * g.out[0] * g.out[1]
    total = torch.zeros(groups, pixels, oc // groups, dtype=torch.int32, device=x.device)
    with torch.autocast(x.device.type, enabled=False):  # it would round the product to bfloat16
        for ky in range(kh):
            for kx in range(kw):
                y0, x0 = ky * g.dilation[0], kx * g.dilation[1]
                under = centred[:, :, y0:, x0:][:, :, :: g.stride[0], :: g.stride[1]]
                under = under[:, :, : g.out[0], : g.out[1]]
                rows = under.reshape(x.shape[0], groups, c, g.out[0] * g.out[1]).permute(1, 0, 3, 2)
                rows = rows.reshape(groups, pixels, c)
                for k in range(0, c, 512):
                    part = rows[..., k : k + 512] @ by_group[:, :, k : k + 512, ky, kx].mT
                    total += part.to(torch.int32)
    return total.permute(1, 0, 2).reshape(pixels, oc)


def _rows(images: Tensor) -> Tensor:
    return images.permute(0, 2, 3, 1).reshape(-1, images.shape[1])


def _check(
    x: Tensor,
    packed: Tensor,
    oc: int,
    scale_x: float,
    zero_point_x: int,
    scale_w: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    residual_scale: float,
    residual_zero_point: int,
    act: Activation,
    out_dtype: torch.dtype,
    out_scale: float,
    out_zero_point: int,
    g: Geometry,
) -> None:
    checks.scale(_OP, "scale_x", scale_x)
    checks.zero_point(_OP, "zero_point_x", zero_point_x, x.dtype)
    checks.channels(_OP, "scale_w", scale_w, oc)
    checks.channels(_OP, "bias", bias, oc)
    conv_checks.residual(
        _OP, residual, residual_scale, residual_zero_point, (x.shape[0], oc, *g.out)
    )
    conv_checks.activation(_OP, act, oc)
    conv_checks.output(_OP, out_dtype, out_scale, out_zero_point)
    checks.same_device(
        _OP, x, packed=packed, scale_w=scale_w, bias=bias, residual=residual, slope=act.slope
    )
    if out_dtype != torch.int32:
        return
    if scale_x != 1.0 or any(t is not None for t in (scale_w, bias, residual)):
        raise ValueError(f"{_OP}: out_dtype torch.int32 takes no scale, bias or residual")
    if act.name != "none":
        raise ValueError(f"{_OP}: out_dtype torch.int32 takes no activation")


def int8_conv_relu_fake(
    x: Tensor,
    packed: Tensor,
    weight_shape: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    scale_x: float,
    zero_point_x: int,
    scale_w: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    residual_scale: float,
    residual_zero_point: int,
    activation: int,
    low: float,
    high: float,
    slope: Tensor | None,
    out_dtype: int,
    out_scale: float,
    out_zero_point: int,
) -> Tensor:
    conv_checks.code_dtype(_OP, "x", x.dtype)
    checks.packed(_OP, packed, "int8_conv_pack")
    checks.code(_OP, "activation", activation, len(CONV_ACTIVATIONS))
    checks.code(_OP, "out_dtype", out_dtype, len(OUT_DTYPES))
    oc, _, kh, kw = conv_checks.weight_shape(_OP, weight_shape, False)
    g = conv_checks.geometry(_OP, x, (kh, kw), stride, padding, dilation)
    act = Activation(CONV_ACTIVATIONS[activation], low, high, slope)
    dtype = OUT_DTYPES[out_dtype]
    _check(
        x, packed, oc, scale_x, zero_point_x, scale_w, bias, residual, residual_scale,
        residual_zero_point, act, dtype, out_scale, out_zero_point, g,
    )  # fmt: skip
    return empty_image((x.shape[0], oc, *g.out), dtype, x.device)


def int8_conv_relu_reference(
    x: Tensor,
    packed: Tensor,
    weight_shape: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    scale_x: float,
    zero_point_x: int,
    scale_w: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    residual_scale: float,
    residual_zero_point: int,
    activation: int,
    low: float,
    high: float,
    slope: Tensor | None,
    out_dtype: int,
    out_scale: float,
    out_zero_point: int,
) -> Tensor:
    out = int8_conv_relu_fake(
        x, packed, weight_shape, stride, padding, dilation, scale_x, zero_point_x, scale_w, bias,
        residual, residual_scale, residual_zero_point, activation, low, high, slope, out_dtype,
        out_scale, out_zero_point,
    )  # fmt: skip
    if is_sparse(packed):
        header, weight = unpack_sparse_plain(packed)
    else:
        header, weight = packing.read_conv_header(packed), packing.unpack_conv_plain(packed)
    conv_checks.packed_shape(_OP, header, weight_shape, x.shape[1])
    g = Geometry(stride, padding, dilation, (out.shape[2], out.shape[3]))
    acc = int8_conv_sums(x, zero_point_x, weight, header.groups, g)
    as_floats = residual
    if residual is not None and residual.dtype in (torch.int8, torch.uint8):
        centred = residual.to(torch.int32) - residual_zero_point
        as_floats = centred.to(torch.float32) * torch.tensor(residual_scale, dtype=torch.float32)
    rows = finish(
        acc,
        acc,  # not read: the zero point is taken already
        scale_a=torch.tensor([scale_x], dtype=torch.float32, device=x.device),
        zero_point_a=None,
        scale_w=scale_w,
        bias=bias,
        residual=None if as_floats is None else _rows(as_floats),
        activation=Activation(CONV_ACTIVATIONS[activation], low, high, slope),
        out_dtype=out.dtype,
        out_scale=out_scale,
        out_zero_point=out_zero_point,
    )
    images = rows.reshape(out.shape[0], *out.shape[2:], out.shape[1]).permute(0, 3, 1, 2)
    return out.copy_(images)
