"""Ops that take 8-bit codes one by one: to and from floats, sums, concatenations.

A code ``q`` stands for ``(q - zero_point) * scale``; each step below is rounded to float32.
4-D tensors are images: whatever their memory format, the output is channels_last.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from . import int8_pool_checks as checks
from . import int8_pool_codes_reference as plain
from .checks import FLOATS, no_grad
from .define import define
from .epilogue import CONV_ACTIVATION_CODE

define("int8_quantize(Tensor x, float scale, int zero_point, int out_dtype) -> Tensor", plain)
define("int8_dequantize(Tensor q, float scale, int zero_point, int out_dtype) -> Tensor", plain)
define(
    "int8_add(Tensor a, Tensor b, float scale_a, int zero_point_a, float scale_b, "
    "int zero_point_b, int activation, float low, float high, int out_dtype, float out_scale, "
    "int out_zero_point) -> Tensor",
    plain,
)
define(
    "int8_concat(Tensor[] xs, float[] scales, int[] zero_points, int dim, float out_scale, "
    "int out_zero_point, int out_dtype) -> Tensor",
    plain,
)

_ADD_ACTIVATIONS = ("none", "relu", "clamp")


def int8_quantize(
    x: Tensor, *, scale: float, zero_point: int = 0, dtype: torch.dtype = torch.uint8
) -> Tensor:
    """``clamp(rne(x * (1 / scale)) + zero_point)``; NaN becomes the lowest code.

    Args:
        x: float32, bfloat16 or float16 of any shape.
        dtype: uint8 or int8.

    Raises:
        TypeError, ValueError: an argument has another dtype or value than stated, or ``x``
            requires grad.
    """
    op = "int8_quantize"
    no_grad(op, x)
    arguments = (x, scale, zero_point, checks.dtype_code(op, "dtype", dtype, checks.CODES))
    try:
        out: Tensor = torch.ops.pyops.int8_quantize.default(*arguments)
        return out
    except RuntimeError as error:
        refused = error
    plain.check_quantize(*arguments)
    raise refused


def int8_dequantize(
    q: Tensor, *, scale: float, zero_point: int = 0, out_dtype: torch.dtype = torch.float32
) -> Tensor:
    """``(q - zero_point) * scale``.

    Args:
        q: uint8 or int8 of any shape.
        out_dtype: float32, bfloat16 or float16.

    Raises:
        TypeError, ValueError: an argument has another dtype or value than stated.
    """
    op = "int8_dequantize"
    arguments = (q, scale, zero_point, checks.dtype_code(op, "out_dtype", out_dtype, FLOATS))
    try:
        out: Tensor = torch.ops.pyops.int8_dequantize.default(*arguments)
        return out
    except RuntimeError as error:
        refused = error
    plain.check_dequantize(*arguments)
    raise refused


def int8_add(
    a: Tensor,
    b: Tensor,
    *,
    scale_a: float = 1.0,
    zero_point_a: int = 0,
    scale_b: float = 1.0,
    zero_point_b: int = 0,
    activation: str = "none",
    low: float | None = None,
    high: float | None = None,
    out_dtype: torch.dtype = torch.uint8,
    out_scale: float = 1.0,
    out_zero_point: int = 0,
) -> Tensor:
    """``activation((a - zero_point_a) * scale_a + (b - zero_point_b) * scale_b)``.

    Args:
        a, b: uint8 or int8 of one shape.
        activation: "none", "relu" or "clamp", which takes ``low`` and ``high``.
        out_dtype: uint8 or int8 with ``out_scale`` and ``out_zero_point``; float32, bfloat16 or
            float16 without.

    Raises:
        TypeError, ValueError: an argument has another dtype, shape or value than stated.
    """
    op = "int8_add"
    if activation not in _ADD_ACTIVATIONS:
        raise ValueError(
            f"{op}: activation must be one of {_ADD_ACTIVATIONS}, but is {activation!r}"
        )
    if (activation == "clamp") != (low is not None and high is not None):
        raise ValueError(f"{op}: low and high are for activation 'clamp', which takes both")
    arguments = (
        a,
        b,
        scale_a,
        zero_point_a,
        scale_b,
        zero_point_b,
        CONV_ACTIVATION_CODE[activation],
        0.0 if low is None else low,
        0.0 if high is None else high,
        checks.dtype_code(op, "out_dtype", out_dtype),
        out_scale,
        out_zero_point,
    )
    try:
        out: Tensor = torch.ops.pyops.int8_add.default(*arguments)
        return out
    except RuntimeError as error:
        refused = error
    plain.check_add(*arguments)
    raise refused


def int8_concat(
    xs: Sequence[Tensor],
    *,
    scales: Sequence[float],
    zero_points: Sequence[int],
    dim: int = 1,
    out_dtype: torch.dtype = torch.uint8,
    out_scale: float = 1.0,
    out_zero_point: int = 0,
) -> Tensor:
    """``torch.cat`` of codes, each requantized where its scale, zero point or dtype differs.

    Args:
        xs: uint8 or int8, of one shape but for ``dim``.
        scales, zero_points: one for each tensor.
        out_dtype: as for ``int8_add``.

    Raises:
        TypeError, ValueError: an argument has another dtype, shape, length or value than stated.
    """
    op = "int8_concat"
    code = checks.dtype_code(op, "out_dtype", out_dtype)
    arguments = (xs, scales, zero_points, dim, out_scale, out_zero_point, code)
    try:
        out: Tensor = torch.ops.pyops.int8_concat.default(*arguments)
        return out
    except RuntimeError as error:
        refused = error
    plain.check_concat(*arguments)
    raise refused
