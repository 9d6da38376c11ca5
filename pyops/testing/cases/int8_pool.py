"""Random calls of the ops on 8-bit codes, at the level of the dispatcher."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyops.ops import int8_pool_codes_reference, int8_pool_reference
from pyops.ops.epilogue import OUT_DTYPES

OPS = (
    "int8_pool",
    "int8_adaptive_pool",
    "int8_add",
    "int8_concat",
    "int8_quantize",
    "int8_dequantize",
)
CODES = (torch.int8, torch.uint8)


@dataclass
class CodesCase:
    """One call of ``torch.ops.pyops.<op>``."""

    op: str
    arguments: list[Any]

    @property
    def label(self) -> str:
        shown = [
            f"{list(a.shape)} {a.dtype} {a.stride()}" if isinstance(a, Tensor) else a
            for a in self.arguments
        ]
        return f"{self.op} {shown}"

    def run(self) -> Tensor:
        out: Tensor = getattr(torch.ops.pyops, self.op)(*self.arguments)
        return out

    def plain(self, kind: str) -> Tensor:
        """The "reference" or the "fake" of the op."""
        pools = self.op in OPS[:2]
        module = int8_pool_reference if pools else int8_pool_codes_reference
        out: Tensor = getattr(module, f"{self.op}_{kind}")(*self.arguments)
        return out

    def with_tensors(self, change: Callable[[Tensor], Tensor]) -> CodesCase:
        """The call on changed tensors."""
        arguments = [
            change(a)
            if isinstance(a, Tensor)
            else [change(t) for t in a]
            if isinstance(a, list) and a and isinstance(a[0], Tensor)
            else a
            for a in self.arguments
        ]
        return CodesCase(self.op, arguments)


class _Random:
    """Choices that depend on the seed alone."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def integer(self, low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=self.generator))

    def pick(self, choices: Any) -> Any:
        return choices[self.integer(0, len(choices) - 1)]

    def scale(self) -> float:
        return 0.01 + float(torch.rand((), generator=self.generator)) * 0.1

    def zero(self, dtype: torch.dtype) -> int:
        info = torch.iinfo(dtype)
        return int(self.pick((info.min, info.max, 0, self.integer(info.min, info.max))))

    def codes(self, shape: list[int], dtype: torch.dtype) -> Tensor:
        info = torch.iinfo(dtype)
        low, high = self.pick(((info.min, info.max), (info.min, info.max), (info.max, info.max)))
        q = torch.randint(low, high + 1, shape, dtype=dtype, generator=self.generator)
        return self.arranged(q)

    def arranged(self, t: Tensor) -> Tensor:
        """Mostly channels_last; sometimes contiguous, or of another image's memory."""
        if t.dim() != 4:
            return t
        kind = self.integer(0, 4)
        if kind == 0:
            return t.transpose(2, 3).contiguous().transpose(2, 3)
        return t if kind == 1 else t.contiguous(memory_format=torch.channels_last)

    def output(self) -> tuple[int, float, int]:
        code = self.integer(0, 4)
        if code < 3:
            return code, 1.0, 0
        return code, self.scale(), self.zero(OUT_DTYPES[code])


def codes_case(op: str, seed: int, channels: int, height: int, width: int) -> CodesCase:
    """A case that depends on its arguments alone; over many seeds every option comes up."""
    r = _Random(seed)
    dtype = r.pick(CODES)
    scale, zero = r.scale(), r.zero(dtype)
    shape = [r.integer(1, 2), channels, height, width]
    if op in OPS[2:]:
        shape = shape[: r.pick((4, 4, 4, 3, 2, 1))]
    out = r.output()
    arguments: list[Any]
    if op in OPS[:2]:
        kind = r.integer(0, 1)
        if r.integer(0, 2) == 0:
            out = (OUT_DTYPES.index(dtype), scale, zero)
        x = r.codes(shape, dtype)
        if op == "int8_pool":
            arguments = [x, kind, *_windows(r, height, width), scale, zero, *out]
        else:
            size = [r.integer(1, 8), r.integer(1, 8)] if r.integer(0, 1) else [1, 1]
            arguments = [x, kind, size, scale, zero, *out]
    elif op == "int8_add":
        other = r.pick(CODES)
        activation = r.pick((0, 1, 5))
        low = -r.scale() * 40
        a, b = r.codes(shape, dtype), r.codes(shape, other)
        own = (scale, zero, r.scale(), r.zero(other))
        arguments = [a, b, *own, activation, low, r.scale() * 40, *out]
    elif op == "int8_concat":
        arguments = _concat(r, shape, out)
    elif op == "int8_quantize":
        x = torch.randn(shape, generator=r.generator) * 4
        x = r.arranged(x.to(r.pick((torch.float32, torch.bfloat16, torch.float16))))
        arguments = [x, scale, zero, OUT_DTYPES.index(dtype)]
    else:
        arguments = [r.codes(shape, dtype), scale, zero, r.integer(0, 2)]
    return CodesCase(op, arguments)


def _windows(r: _Random, height: int, width: int) -> list[Any]:
    kernel, padding, dilation = [], [], []
    for size in (height, width):
        k, d = r.integer(1, 5), r.pick((1, 1, 1, 2, 3))
        half = (d * (k - 1) + 1) // 2
        pads = [r.integer(0, half), r.integer(0, half)]
        if size + sum(pads) < d * (k - 1) + 1:
            k, d, pads = 1, 1, [0, 0]
        kernel.append(k)
        dilation.append(d)
        padding += pads
    stride = [r.integer(1, 3), r.integer(1, 3)]
    flags = [bool(r.integer(0, 1)), bool(r.integer(0, 1)), r.pick((0, 0, 3))]
    return [kernel, stride, padding, dilation, *flags]


def _concat(r: _Random, shape: list[int], out: tuple[int, float, int]) -> list[Any]:
    dim = r.integer(0, len(shape) - 1)
    xs, scales, zeros = [], [], []
    for _ in range(r.integer(1, 4)):
        dtype = r.pick(CODES)
        own = list(shape)
        own[dim] = r.integer(0, 40)
        same = out[0] > 2 and r.integer(0, 1) == 0
        dtype = OUT_DTYPES[out[0]] if same else dtype
        xs.append(r.codes(own, dtype))
        scales.append(out[1] if same else r.scale())
        zeros.append(out[2] if same else r.zero(dtype))
    signed = dim - len(shape) if r.integer(0, 1) else dim
    return [xs, scales, zeros, signed, out[1], out[2], out[0]]
