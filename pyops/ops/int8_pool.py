"""Pools of 8-bit codes: max, average and adaptive, of images in channels_last memory.

A code ``q`` stands for ``(q - zero_point) * scale``. Sums are exact integers, rescaled once::

    max:      the greatest code; where scale, zero point or dtype change, requantized
    average:  v = float(sum of (q - zero_point)) * float32(scale / divisor), requantized
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from . import int8_pool_checks as checks
from . import int8_pool_reference as plain
from .define import define

define(
    "int8_pool(Tensor x, int kind, int[] kernel, int[] stride, int[] padding, int[] dilation, "
    "bool ceil_mode, bool count_include_pad, int divisor_override, float scale_x, "
    "int zero_point_x, int out_dtype, float out_scale, int out_zero_point) -> Tensor",
    plain,
)
define(
    "int8_adaptive_pool(Tensor x, int kind, int[] output_size, float scale_x, int zero_point_x, "
    "int out_dtype, float out_scale, int out_zero_point) -> Tensor",
    plain,
)


def _kind(op: str, kind: str) -> int:
    if kind not in checks.KINDS:
        raise ValueError(f"{op}: kind must be one of {checks.KINDS}, but is {kind!r}")
    return checks.KINDS.index(kind)


def _output(
    op: str,
    x: Tensor,
    scale_x: float,
    zero_point_x: int,
    out_dtype: torch.dtype | None,
    out_scale: float | None,
    out_zero_point: int | None,
) -> tuple[int, float, int]:
    """What None means: the input's dtype; the input's scale and zero point, or 1 and 0."""
    dtype = x.dtype if out_dtype is None else out_dtype
    code = checks.dtype_code(op, "out_dtype", dtype)
    same = dtype == x.dtype
    scale, zero = (scale_x, zero_point_x) if same else (1.0, 0)
    return (
        code,
        scale if out_scale is None else out_scale,
        zero if out_zero_point is None else out_zero_point,
    )


def _call(
    function: Callable[..., Tensor], check: Callable[..., object], *arguments: object
) -> Tensor:
    try:
        return function(*arguments)
    except RuntimeError as error:
        refused = error
    check(*arguments)
    raise refused


def int8_pool(
    x: Tensor,
    kernel: int | Sequence[int],
    *,
    kind: str = "max",
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    scale_x: float = 1.0,
    zero_point_x: int = 0,
    out_dtype: torch.dtype | None = None,
    out_scale: float | None = None,
    out_zero_point: int | None = None,
) -> Tensor:
    """``F.max_pool2d`` or ``F.avg_pool2d`` on codes.

    Args:
        x: uint8 or int8 ``[N, C, H, W]``; other memory formats are made channels_last.
        kernel, stride, dilation: one integer, or (height, width); ``stride`` None means ``kernel``.
        kind: "max" or "average".
        padding: one integer, (height, width) or (top, bottom, left, right). A padded position is
            no position of a max, and value 0 in an average.
        ceil_mode: also a window that ends behind image and padding.
        count_include_pad: an average divides by all positions inside image and padding, not only
            those inside the image.
        divisor_override: what an average divides by instead.
        out_dtype: uint8, int8, float32, bfloat16 or float16; None means that of ``x``.
        out_scale, out_zero_point: None means those of ``x`` for an output of its dtype, else 1, 0.

    Returns:
        ``[N, C, OH, OW]``, channels_last.

    Raises:
        TypeError, ValueError: an argument has another dtype, shape or value than stated.
    """
    op = "int8_pool"
    size = checks.integers(op, "kernel", kernel, 2)
    return _call(
        torch.ops.pyops.int8_pool.default,
        plain.check_pool,
        x,
        _kind(op, kind),
        size,
        size if stride is None else checks.integers(op, "stride", stride, 2),
        checks.four_paddings(op, padding),
        checks.integers(op, "dilation", dilation, 2),
        ceil_mode,
        count_include_pad,
        _divisor(op, divisor_override),
        scale_x,
        zero_point_x,
        *_output(op, x, scale_x, zero_point_x, out_dtype, out_scale, out_zero_point),
    )


def _divisor(op: str, divisor: int | None) -> int:
    if divisor is None:
        return 0
    if divisor < 1:
        raise ValueError(f"{op}: divisor_override must be at least 1, but is {divisor}")
    return divisor


def int8_adaptive_pool(
    x: Tensor,
    output_size: int | Sequence[int] = 1,
    *,
    kind: str = "average",
    scale_x: float = 1.0,
    zero_point_x: int = 0,
    out_dtype: torch.dtype | None = None,
    out_scale: float | None = None,
    out_zero_point: int | None = None,
) -> Tensor:
    """``F.adaptive_avg_pool2d`` or ``F.adaptive_max_pool2d`` on codes; size 1 is the global one.

    Args:
        x: uint8 or int8 ``[N, C, H, W]``; other memory formats are made channels_last.
        output_size: one integer, or (height, width).
        kind: "max" or "average".
        out_dtype, out_scale, out_zero_point: as for ``int8_pool``.

    Returns:
        ``[N, C, OH, OW]``, channels_last.

    Raises:
        TypeError, ValueError: an argument has another dtype, shape or value than stated.
    """
    op = "int8_adaptive_pool"
    return _call(
        torch.ops.pyops.int8_adaptive_pool.default,
        plain.check_adaptive_pool,
        x,
        _kind(op, kind),
        checks.integers(op, "output_size", output_size, 2),
        scale_x,
        zero_point_x,
        *_output(op, x, scale_x, zero_point_x, out_dtype, out_scale, out_zero_point),
    )
