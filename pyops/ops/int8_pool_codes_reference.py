"""References in plain torch and fakes of the ops that take 8-bit codes one by one."""

from collections.abc import Sequence

import torch
from torch import Tensor

from . import int8_pool_checks as checks
from .checks import code, floats, same_device
from .epilogue import CONV_ACTIVATIONS, OUT_DTYPES, requantize
from .images import empty_image


def _value(q: Tensor, scale: float, zero: int) -> Tensor:
    factor = torch.tensor(scale, dtype=torch.float32, device=q.device)
    return (q.to(torch.int32) - zero).to(torch.float32) * factor


def _store(v: Tensor, dtype: torch.dtype, scale: float, zero: int) -> Tensor:
    out = empty_image(v.shape, dtype, v.device)
    return out.copy_(requantize(v, dtype, scale, zero) if dtype in checks.CODES else v)


def check_quantize(x: Tensor, scale: float, zero_point: int, out_dtype: int) -> torch.dtype:
    op = "int8_quantize"
    floats(op, "x", x.dtype)
    if out_dtype not in (3, 4):
        raise ValueError(f"{op}: out_dtype must be 3 or 4, but is {out_dtype}")
    dtype = OUT_DTYPES[out_dtype]
    checks.scale_and_zero(op, dtype, scale, zero_point, ("scale", "zero_point"))
    return dtype


def int8_quantize_reference(x: Tensor, scale: float, zero_point: int, out_dtype: int) -> Tensor:
    dtype = check_quantize(x, scale, zero_point, out_dtype)
    return _store(x.to(torch.float32), dtype, scale, zero_point)


def int8_quantize_fake(x: Tensor, scale: float, zero_point: int, out_dtype: int) -> Tensor:
    dtype = check_quantize(x, scale, zero_point, out_dtype)
    return empty_image(x.shape, dtype, x.device)


def check_dequantize(q: Tensor, scale: float, zero_point: int, out_dtype: int) -> torch.dtype:
    op = "int8_dequantize"
    checks.codes(op, "q", q)
    checks.scale_and_zero(op, q.dtype, scale, zero_point, ("scale", "zero_point"))
    code(op, "out_dtype", out_dtype, 3)
    return OUT_DTYPES[out_dtype]


def int8_dequantize_reference(q: Tensor, scale: float, zero_point: int, out_dtype: int) -> Tensor:
    dtype = check_dequantize(q, scale, zero_point, out_dtype)
    return _store(_value(q, scale, zero_point), dtype, 1.0, 0)


def int8_dequantize_fake(q: Tensor, scale: float, zero_point: int, out_dtype: int) -> Tensor:
    dtype = check_dequantize(q, scale, zero_point, out_dtype)
    return empty_image(q.shape, dtype, q.device)


def check_add(
    a: Tensor,
    b: Tensor,
    scale_a: float,
    zero_point_a: int,
    scale_b: float,
    zero_point_b: int,
    activation: int,
    low: float,
    high: float,
    out_dtype: int,
    out_scale: float,
    out_zero_point: int,
) -> torch.dtype:
    op = "int8_add"
    checks.codes(op, "a", a)
    checks.codes(op, "b", b)
    same_device(op, a, b=b)
    if a.shape != b.shape:
        raise ValueError(
            f"{op}: b must have the shape of a, {list(a.shape)}, but is {list(b.shape)}"
        )
    checks.scale_and_zero(op, a.dtype, scale_a, zero_point_a, ("scale_a", "zero_point_a"))
    checks.scale_and_zero(op, b.dtype, scale_b, zero_point_b, ("scale_b", "zero_point_b"))
    if activation not in (0, 1, 5):
        raise ValueError(f"{op}: activation code {activation} is unknown")
    if activation == 5 and not low <= high:
        raise ValueError(f"{op}: low must be at most high, but {low} > {high}")
    return checks.output(op, out_dtype, out_scale, out_zero_point)


def int8_add_reference(
    a: Tensor,
    b: Tensor,
    scale_a: float,
    zero_point_a: int,
    scale_b: float,
    zero_point_b: int,
    activation: int,
    low: float,
    high: float,
    out_dtype: int,
    out_scale: float,
    out_zero_point: int,
) -> Tensor:
    dtype = check_add(
        a, b, scale_a, zero_point_a, scale_b, zero_point_b, activation, low, high, out_dtype,
        out_scale, out_zero_point,
    )  # fmt: skip
    v = _value(a, scale_a, zero_point_a) + _value(b, scale_b, zero_point_b)
    if CONV_ACTIVATIONS[activation] == "relu":
        v = torch.clamp(v, min=0.0)
    elif CONV_ACTIVATIONS[activation] == "clamp":
        v = torch.clamp(v, low, high)
    return _store(v, dtype, out_scale, out_zero_point)


def int8_add_fake(
    a: Tensor,
    b: Tensor,
    scale_a: float,
    zero_point_a: int,
    scale_b: float,
    zero_point_b: int,
    activation: int,
    low: float,
    high: float,
    out_dtype: int,
    out_scale: float,
    out_zero_point: int,
) -> Tensor:
    dtype = check_add(
        a, b, scale_a, zero_point_a, scale_b, zero_point_b, activation, low, high, out_dtype,
        out_scale, out_zero_point,
    )  # fmt: skip
    return empty_image(a.shape, dtype, a.device)


def check_concat(
    xs: Sequence[Tensor],
    scales: Sequence[float],
    zero_points: Sequence[int],
    dim: int,
    out_scale: float,
    out_zero_point: int,
    out_dtype: int,
) -> tuple[torch.dtype, list[int]]:
    """The output's dtype and shape."""
    op = "int8_concat"
    if not xs:
        raise ValueError(f"{op}: xs must hold at least 1 tensor, but is empty")
    if len(scales) != len(xs) or len(zero_points) != len(xs):
        raise ValueError(
            f"{op}: {len(xs)} tensors need as many scales and zero points, "
            f"but there are {len(scales)} and {len(zero_points)}"
        )
    dtype = checks.output(op, out_dtype, out_scale, out_zero_point)
    dims = xs[0].dim()
    if not -dims <= dim < dims:
        raise ValueError(f"{op}: dim {dim} is not one of {dims}")
    shape = [*xs[0].shape]
    shape[dim] = 0
    for i, (x, scale, zero) in enumerate(zip(xs, scales, zero_points, strict=True)):
        checks.codes(op, "xs", x)
        same_device(op, xs[0], xs=x)
        checks.scale_and_zero(op, x.dtype, scale, zero, ("scales", "zero_points"))
        own = [*x.shape]
        if len(own) == dims:
            shape[dim] += own[dim]
            own[dim] = shape[dim]
        if own != shape:
            raise ValueError(
                f"{op}: xs[{i}] must have the shape of xs[0] but for dim {dim % dims}, "
                f"but is {list(x.shape)}"
            )
    return dtype, shape


def int8_concat_reference(
    xs: Sequence[Tensor],
    scales: Sequence[float],
    zero_points: Sequence[int],
    dim: int,
    out_scale: float,
    out_zero_point: int,
    out_dtype: int,
) -> Tensor:
    dtype, shape = check_concat(xs, scales, zero_points, dim, out_scale, out_zero_point, out_dtype)
    parts = []
    for x, scale, zero in zip(xs, scales, zero_points, strict=True):
        copied = (x.dtype, scale, zero) == (dtype, out_scale, out_zero_point)
        v = x if copied else _store(_value(x, scale, zero), dtype, out_scale, out_zero_point)
        parts.append(v)
    return empty_image(shape, dtype, xs[0].device).copy_(torch.cat(parts, dim))


def int8_concat_fake(
    xs: Sequence[Tensor],
    scales: Sequence[float],
    zero_points: Sequence[int],
    dim: int,
    out_scale: float,
    out_zero_point: int,
    out_dtype: int,
) -> Tensor:
    dtype, shape = check_concat(xs, scales, zero_points, dim, out_scale, out_zero_point, out_dtype)
    return empty_image(shape, dtype, xs[0].device)
