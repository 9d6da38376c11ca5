"""The float pools of a net: torch's, with the checks of ``csrc/cpu/net/floats.cpp``."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from . import checks, conv_relu_checks
from . import int8_pool_checks as pools


def pool(
    x: Tensor,
    kind: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int,
) -> Tensor:
    op = "float pool"
    _image(op, x, kind)
    around = [padding[0], padding[0], padding[1], padding[1]]
    pools.windows(op, kernel, stride, around, dilation, divisor)
    if kind != pools.MAX and list(dilation) != [1, 1]:
        raise ValueError(f"{op}: averages take no dilation, but it is {list(dilation)}")
    sizes = zip(x.shape[2:], kernel, padding, dilation, strict=True)
    if any(size + 2 * p < d * (k - 1) + 1 for size, k, p, d in sizes):
        raise ValueError(f"{op}: the window is larger than the padded image")
    size, step, pad, spread = ((v[0], v[1]) for v in (kernel, stride, padding, dilation))
    if kind == pools.MAX:
        greatest: Tensor = F.max_pool2d(x, size, step, pad, spread, ceil_mode)
        return greatest
    return F.avg_pool2d(x, size, step, pad, ceil_mode, count_include_pad, divisor or None)


def adaptive_pool(x: Tensor, kind: int, size: Sequence[int]) -> Tensor:
    op = "float adaptive pool"
    _image(op, x, kind)
    pools.sizes(op, "output_size", size, 2, 1)
    if x.shape[2] < 1 or x.shape[3] < 1:
        raise ValueError(f"{op}: x must have pixels, but is empty")
    if kind == pools.MAX:
        greatest: Tensor = F.adaptive_max_pool2d(x, list(size))
        return greatest
    return F.adaptive_avg_pool2d(x, (size[0], size[1]))


def _image(op: str, x: Tensor, kind: int) -> None:
    checks.code(op, "kind", kind, len(pools.KINDS))
    conv_relu_checks.dtype(op, "x", x.dtype)
    if x.dim() != 4:
        raise ValueError(f"{op}: x must be 4-D [N, C, H, W], but is {x.dim()}-D")
