"""What the nodes of a converted net's graph call: layers, and the steps of a net on codes.

Codes are uint8 with one scale and zero point for a tensor, which the graph holds as numbers. The
ops check types and shapes; nothing is looked up here but the layers' packed weights.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..ops.epilogue import ACTIVATIONS, CONV_ACTIVATION_CODE, OUT_DTYPE_CODE

if TYPE_CHECKING:
    from ..nn.fused_conv2d import FusedConv2d
    from ..nn.int8_conv2d import Int8Conv2d
    from ..nn.static_int8_linear import StaticInt8Linear

CODES = OUT_DTYPE_CODE[torch.uint8]
FLOAT = OUT_DTYPE_CODE[torch.float32]
# (scale, zero point) of codes; None stands for floats.
At = tuple[float, int]


def out_of(at: At | None) -> tuple[int, float, int]:
    """``out_dtype, out_scale, out_zero_point`` of an op that makes codes, or float32."""
    return (FLOAT, 1.0, 0) if at is None else (CODES, *at)


def act_of(act: Sequence[Any]) -> tuple[int, float, float]:
    """``activation, low, high`` of an op."""
    return CONV_ACTIVATION_CODE[act[0]], act[1], act[2]


@functools.cache
def constant(value: float) -> Tensor:
    """A number as the tensor that an op wants."""
    with torch.inference_mode(False):
        return torch.tensor([value], dtype=torch.float32)


def quantize(x: Tensor, scale: float, zero_point: int) -> Tensor:
    """Floats as codes.

    Raises:
        RuntimeError: the tensor would need a gradient.
    """
    if x.requires_grad and torch.is_grad_enabled():
        raise RuntimeError(
            "this net has no gradient but its input requires grad: run under "
            "torch.inference_mode() or torch.no_grad(), or detach the input"
        )
    out: Tensor = torch.ops.pyops.int8_quantize.default(x, scale, zero_point, CODES)
    return out


def dequantize(x: Tensor, scale: float, zero_point: int) -> Tensor:
    """Codes as float32."""
    out: Tensor = torch.ops.pyops.int8_dequantize.default(x, scale, zero_point, FLOAT)
    return out


def conv(
    layer: Int8Conv2d,
    x: Tensor,
    at: At,
    residual: Tensor | None,
    residual_at: At,
    act: tuple[int, float, float],
    slope: Tensor | None,
    out: tuple[int, float, int],
) -> Tensor:
    """``act(layer(x) + residual)``."""
    y: Tensor = torch.ops.pyops.int8_conv_relu.default(
        x,
        layer.packed.get(),
        layer.packed.shape,
        layer.stride,
        layer.padding,
        layer.dilation,
        *at,
        layer.packed.scale,
        layer._buffers["bias"],
        residual,
        *residual_at,
        *act,
        slope,
        *out,
    )
    return y


def float_conv(
    layer: FusedConv2d,
    x: Tensor,
    residual: Tensor | None,
    act: tuple[int, float, float],
    slope: Tensor | None,
) -> Tensor:
    """``act(layer(x) + residual)`` of floats.

    Raises:
        RuntimeError: a tensor would need a gradient.
    """
    layer.refuse_grad(x)
    if residual is not None:
        layer.refuse_grad(residual)
    return layer.run(x, residual, act, None if slope is None else slope.float())


def conv_of_rows(
    layer: Int8Conv2d, x: Tensor, at: At, residual: Tensor | None, *rest: Any
) -> Tensor:
    """The same on ``[N, C, L]``: rows are images of height 1."""
    rows = None if residual is None else residual.unsqueeze(2)
    return conv(layer, x.unsqueeze(2), at, rows, *rest).squeeze(2)


def linear(layer: StaticInt8Linear, x: Tensor, act: str, out: tuple[int, float, int]) -> Tensor:
    """``act(layer(x))`` of codes ``[..., K]``."""
    return layer.of_codes(x, ACTIVATIONS.index(act), *out)


def add(
    a: Tensor,
    b: Tensor,
    at: tuple[float, int, float, int],
    act: tuple[int, float, float],
    out: tuple[int, float, int],
) -> Tensor:
    """``act(a + b)``."""
    y: Tensor = torch.ops.pyops.int8_add.default(a, b, *at, *act, *out)
    return y


def concat(
    xs: list[Tensor], scales: list[float], zero_points: list[int], dim: int, out: Sequence[Any]
) -> Tensor:
    """Concatenation, each part requantized where its scale or zero point is another one."""
    dtype, scale, zero_point = out
    y: Tensor = torch.ops.pyops.int8_concat.default(
        xs, scales, zero_points, dim, scale, zero_point, dtype
    )
    return y


def pool(x: Tensor, how: Sequence[Any], at: At, out: tuple[int, float, int]) -> Tensor:
    """Max or average pooling; ``how``: the arguments of ``net_steps.pool`` after ``x``."""
    kind, kernel, stride, (height, width), *rest = how
    padding = [height, height, width, width]
    y: Tensor = torch.ops.pyops.int8_pool.default(
        x, kind, kernel, stride, padding, *rest, *at, *out
    )
    return y


def adaptive_pool(
    x: Tensor, kind: int, size: Sequence[int], at: At, out: tuple[int, float, int]
) -> Tensor:
    """Adaptive max or average pooling."""
    y: Tensor = torch.ops.pyops.int8_adaptive_pool.default(x, kind, size, *at, *out)
    return y
