"""Checks that the ops on 8-bit codes share; ``csrc/checks/int8_pool.h`` has the same words."""

from collections.abc import Sequence

import torch
from torch import Tensor

from . import checks
from .epilogue import OUT_DTYPE_CODE, OUT_DTYPES

CODES = (torch.int8, torch.uint8)
OUTPUTS = OUT_DTYPES[:5]
MAX = 0
KINDS = ("max", "average")
MOST_TAPS = 1 << 23
_INT32 = 1 << 31


def codes(op: str, name: str, x: Tensor) -> None:
    if x.dtype not in CODES:
        raise TypeError(f"{op}: {name} must be torch.uint8 or torch.int8, but is {x.dtype}")


def scale_and_zero(
    op: str, dtype: torch.dtype, scale: float, zero: int, names: tuple[str, str]
) -> None:
    checks.scale(op, names[0], scale)
    checks.zero_point(op, names[1], zero, dtype)


def output(op: str, out_dtype: int, scale: float, zero: int) -> torch.dtype:
    checks.code(op, "out_dtype", out_dtype, len(OUTPUTS))
    dtype = OUTPUTS[out_dtype]
    if dtype in CODES:
        scale_and_zero(op, dtype, scale, zero, ("out_scale", "out_zero_point"))
    elif scale != 1.0 or zero != 0:
        raise ValueError(
            f"{op}: out_scale and out_zero_point are for int8 and uint8 outputs, "
            f"but out_dtype is {dtype}"
        )
    return dtype


def dtype_code(
    op: str, name: str, dtype: torch.dtype, allowed: Sequence[torch.dtype] = OUTPUTS
) -> int:
    """The code of a dtype that the public functions take."""
    if dtype not in allowed:
        raise TypeError(f"{op}: {name} must be one of {list(allowed)}, but is {dtype}")
    return OUT_DTYPE_CODE[dtype]


def integers(op: str, name: str, value: int | Sequence[int], count: int) -> list[int]:
    """One integer for all ``count`` of them, or so many."""
    values = [value] * count if isinstance(value, int) else list(value)
    if len(values) != count:
        raise ValueError(f"{op}: {name} must be 1 integer or {count}, but is {value}")
    return values


def four_paddings(op: str, padding: int | Sequence[int]) -> list[int]:
    """``[top, bottom, left, right]`` of one integer, of (height, width), or of all four."""
    values = [padding] * 2 if isinstance(padding, int) else list(padding)
    if len(values) == 2:
        return [values[0], values[0], values[1], values[1]]
    if len(values) != 4:
        raise ValueError(f"{op}: padding must be 1 integer, 2 or 4, but is {padding}")
    return values


def sizes(op: str, name: str, values: Sequence[int], count: int, least: int) -> None:
    if len(values) != count or not all(least <= v < _INT32 for v in values):
        raise ValueError(
            f"{op}: {name} must be {count} integers of at least {least}, but is {list(values)}"
        )


def image(
    op: str, x: Tensor, kind: int, scale: float, zero: int, out: tuple[int, float, int]
) -> torch.dtype:
    """What the pools take beside their windows; the output's dtype."""
    checks.code(op, "kind", kind, len(KINDS))
    codes(op, "x", x)
    if x.dim() != 4:
        raise ValueError(f"{op}: x must be 4-D [N, C, H, W], but is {x.dim()}-D")
    scale_and_zero(op, x.dtype, scale, zero, ("scale_x", "zero_point_x"))
    return output(op, *out)


def half_padding(
    op: str, padding: Sequence[int], kernel: Sequence[int], dilation: Sequence[int]
) -> None:
    """As torch: no window may begin more than half of it before the image."""
    for i, value in enumerate(padding):
        half = (dilation[i // 2] * (kernel[i // 2] - 1) + 1) // 2
        if value > half:
            raise ValueError(
                f"{op}: padding may be at most half the window, {half}, but is {value}"
            )


def windows(
    op: str,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    divisor: int,
) -> None:
    """``padding`` is that of all four sides; ``divisor``: 0, or what windows are divided by."""
    for name, values, count, least in (
        ("kernel", kernel, 2, 1),
        ("stride", stride, 2, 1),
        ("padding", padding, 4, 0),
        ("dilation", dilation, 2, 1),
    ):
        sizes(op, name, values, count, least)
    half_padding(op, padding, kernel, dilation)
    if divisor < 0:
        raise ValueError(f"{op}: divisor_override must be at least 0, but is {divisor}")


def taps(op: str, count: int) -> None:
    if count > MOST_TAPS:
        raise ValueError(
            f"{op}: a window has {count} positions, but at most {MOST_TAPS} are exact in int32"
        )
