"""References in plain torch and fakes of ``int8_pool`` and ``int8_adaptive_pool``."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from . import int8_pool_checks as checks
from .epilogue import requantize
from .images import empty_image


@dataclass
class _Axis:
    """The windows along one axis: tap ``k`` of output ``o`` is at ``begin[o] + k * step``."""

    begin: Tensor
    taps: Tensor  # of each window; those outside the image are among them
    step: int
    size: int
    divisor: Tensor

    def at(self, k: int) -> tuple[Tensor, Tensor]:
        """Positions of tap ``k``, and whether each is there."""
        at = self.begin + k * self.step
        there = (k < self.taps) & (at >= 0) & (at < self.size)
        return at.clamp(0, max(self.size - 1, 0)), there

    def count(self) -> Tensor:
        """The taps of each window that lie inside the image."""
        most = int(self.taps.max())
        return torch.stack([self.at(k)[1] for k in range(most)]).sum(0)


def _positions(
    size: int, kernel: int, stride: int, padding: tuple[int, int], dilation: int, ceil_mode: bool
) -> int:
    room = size + sum(padding) - dilation * (kernel - 1) - 1
    if room < 0:
        return 0
    count = room // stride + 1
    if ceil_mode and room % stride and count * stride < size + padding[0]:
        count += 1
    return count


def _axis(
    size: int,
    kernel: int,
    stride: int,
    padding: tuple[int, int],
    dilation: int,
    ceil_mode: bool,
    count_padding: bool,
) -> _Axis:
    outputs = _positions(size, kernel, stride, padding, dilation, ceil_mode)
    begin = torch.arange(outputs) * stride - padding[0]
    axis = _Axis(begin, torch.full_like(begin, kernel), dilation, size, begin)
    padded = _Axis(begin + padding[0], axis.taps, dilation, size + sum(padding), begin)
    axis.divisor = (padded if count_padding else axis).count()
    return axis


def _adaptive_axis(size: int, outputs: int) -> _Axis:
    at = torch.arange(outputs)
    begin, end = at * size // outputs, ((at + 1) * size + outputs - 1) // outputs
    return _Axis(begin, end - begin, 1, size, end - begin)


def _pool(
    x: Tensor,
    kind: int,
    ys: _Axis,
    xs: _Axis,
    divisor: int,
    codes: tuple[float, int, torch.dtype, float, int],
) -> Tensor:
    scale, zero, dtype, out_scale, out_zero = codes
    lowest = torch.iinfo(x.dtype).min
    q = x.to(torch.int32)
    shape = (*x.shape[:2], len(ys.begin), len(xs.begin))
    best = torch.full(shape, lowest, dtype=torch.int32, device=x.device)
    total = torch.zeros_like(best)
    for i in range(int(ys.taps.max()) if x.numel() else 0):
        y, y_there = ys.at(i)
        for j in range(int(xs.taps.max())):
            at, x_there = xs.at(j)
            there = (y_there[:, None] & x_there).to(x.device)
            tap = q[:, :, y.to(x.device)][..., at.to(x.device)]
            best = torch.maximum(best, torch.where(there, tap, lowest))
            total = total + torch.where(there, tap - zero, 0)
    out = empty_image(shape, dtype, x.device)
    if kind == checks.MAX and (scale, zero, x.dtype) == (out_scale, out_zero, dtype):
        return out.copy_(best)
    by = (ys.divisor[:, None] * xs.divisor).clamp(min=1).double()
    if divisor:
        by = torch.full_like(by, divisor)
    factor = (scale / by).float().to(x.device)
    if kind == checks.MAX:
        total, factor = best - zero, torch.tensor(scale, dtype=torch.float32, device=x.device)
    v = total.to(torch.float32) * factor
    return out.copy_(requantize(v, dtype, out_scale, out_zero) if dtype in checks.CODES else v)


def check_pool(
    x: Tensor,
    kind: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int,
    scale_x: float,
    zero_point_x: int,
    out_dtype: int,
    out_scale: float,
    out_zero_point: int,
) -> tuple[torch.dtype, list[int]]:
    """The output's dtype and shape."""
    op = "int8_pool"
    out = (out_dtype, out_scale, out_zero_point)
    dtype = checks.image(op, x, kind, scale_x, zero_point_x, out)
    checks.windows(op, kernel, stride, padding, dilation, divisor_override)
    shape = [*x.shape[:2]]
    for i in (0, 1):
        pads = (padding[2 * i], padding[2 * i + 1])
        size = x.shape[2 + i]
        count = _positions(size, kernel[i], stride[i], pads, dilation[i], ceil_mode)
        if count < 1:
            raise ValueError(f"{op}: the window is larger than the padded image")
        shape.append(count)
    checks.taps(op, min(kernel[0], x.shape[2]) * min(kernel[1], x.shape[3]))
    return dtype, shape


def int8_pool_reference(
    x: Tensor,
    kind: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int,
    scale_x: float,
    zero_point_x: int,
    out_dtype: int,
    out_scale: float,
    out_zero_point: int,
) -> Tensor:
    dtype, _ = check_pool(
        x, kind, kernel, stride, padding, dilation, ceil_mode, count_include_pad,
        divisor_override, scale_x, zero_point_x, out_dtype, out_scale, out_zero_point,
    )  # fmt: skip
    ys, xs = (
        _axis(
            x.shape[2 + i], kernel[i], stride[i], (padding[2 * i], padding[2 * i + 1]),
            dilation[i], ceil_mode, count_include_pad,
        )
        for i in (0, 1)
    )  # fmt: skip
    codes = (scale_x, zero_point_x, dtype, out_scale, out_zero_point)
    return _pool(x, kind, ys, xs, divisor_override, codes)


def int8_pool_fake(
    x: Tensor,
    kind: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int,
    scale_x: float,
    zero_point_x: int,
    out_dtype: int,
    out_scale: float,
    out_zero_point: int,
) -> Tensor:
    dtype, shape = check_pool(
        x, kind, kernel, stride, padding, dilation, ceil_mode, count_include_pad,
        divisor_override, scale_x, zero_point_x, out_dtype, out_scale, out_zero_point,
    )  # fmt: skip
    return empty_image(shape, dtype, x.device)


def check_adaptive_pool(
    x: Tensor,
    kind: int,
    output_size: Sequence[int],
    scale_x: float,
    zero_point_x: int,
    out_dtype: int,
    out_scale: float,
    out_zero_point: int,
) -> torch.dtype:
    """The output's dtype."""
    op = "int8_adaptive_pool"
    out = (out_dtype, out_scale, out_zero_point)
    dtype = checks.image(op, x, kind, scale_x, zero_point_x, out)
    checks.sizes(op, "output_size", output_size, 2, 1)
    if x.shape[2] < 1 or x.shape[3] < 1:
        raise ValueError(f"{op}: x must have pixels, but is empty")
    height, width = (
        -(-size // count) for size, count in zip(x.shape[2:], output_size, strict=True)
    )
    checks.taps(op, height * width)
    return dtype


def int8_adaptive_pool_reference(
    x: Tensor,
    kind: int,
    output_size: Sequence[int],
    scale_x: float,
    zero_point_x: int,
    out_dtype: int,
    out_scale: float,
    out_zero_point: int,
) -> Tensor:
    dtype = check_adaptive_pool(
        x, kind, output_size, scale_x, zero_point_x, out_dtype, out_scale, out_zero_point
    )
    ys, xs = (_adaptive_axis(x.shape[2 + i], output_size[i]) for i in (0, 1))
    return _pool(x, kind, ys, xs, 0, (scale_x, zero_point_x, dtype, out_scale, out_zero_point))


def int8_adaptive_pool_fake(
    x: Tensor,
    kind: int,
    output_size: Sequence[int],
    scale_x: float,
    zero_point_x: int,
    out_dtype: int,
    out_scale: float,
    out_zero_point: int,
) -> Tensor:
    dtype = check_adaptive_pool(
        x, kind, output_size, scale_x, zero_point_x, out_dtype, out_scale, out_zero_point
    )
    return empty_image([*x.shape[:2], *output_size], dtype, x.device)
