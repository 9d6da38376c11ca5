"""Random programs of ``run_net``, with what one op after another makes of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pyops import ops
from pyops.ops import NetProgram, run_net
from pyops.ops import net_reference as plain
from pyops.ops.int8_conv_packing import pack_conv_plain
from pyops.ops.packing import MAX_K, pack_plain

At = tuple[float, int]
Out = tuple[torch.dtype, float, int]


@dataclass
class NetCase:
    """One call. ``registers``: what single ops make, all of them; inputs come first.

    ``plain_tensors``: weights packed for the reference, all else as in ``tensors``.
    """

    program: NetProgram
    inputs: list[Tensor]
    registers: list[Tensor]
    tensors: list[Tensor] = field(default_factory=list)
    plain_tensors: list[Tensor] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    @property
    def expected(self) -> list[Tensor]:
        return [self.registers[at] for at in self.program.outputs]

    @property
    def label(self) -> str:
        return f"{', '.join(self.names)} from {[list(x.shape) for x in self.inputs]}"

    def run(self) -> list[Tensor]:
        return run_net(self.program, self.inputs, self.tensors)

    def plain(self, kind: str) -> list[Tensor]:
        """By the "reference" or the "fake"."""
        p = self.program
        function: Any = getattr(plain, f"run_net_{kind}")
        out: list[Tensor] = function(self.inputs, self.plain_tensors, p.steps, p.numbers, p.outputs)
        return out


class _Builder:
    """Adds steps to a program and runs the op of each at once."""

    def __init__(self, seed: int, size: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.size = size
        self.at: dict[int, At | None] = {}

    def integer(self, low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=self.generator))

    def pick(self, choices: Any) -> Any:
        return choices[self.integer(0, len(choices) - 1)]

    def out(self) -> Out:
        """Mostly uint8."""
        if self.integer(0, 9) == 0:
            return torch.int8, 0.02 + 0.01 * self.integer(0, 5), self.integer(-128, 127)
        return torch.uint8, 0.02 + 0.01 * self.integer(0, 5), self.integer(0, 255)

    def begin(self, planes: bool) -> None:
        n, c = self.integer(1, 4), self.pick((1, 3, 8, 32))
        image = torch.randn(n, c, self.size, self.size + 1, generator=self.generator) * 2
        if not planes:
            image = image.contiguous(memory_format=torch.channels_last)
        self.case = NetCase(NetProgram(1), [image], [image])
        self.at[0] = None
        out = self.out()
        y = self.case.program.quantize(0, out)
        made = ops.int8_quantize(image, scale=out[1], zero_point=out[2], dtype=out[0])
        self.made("quantize", y, made, out)

    def made(self, name: str, y: int, value: Tensor, out: Out) -> int:
        assert y == len(self.case.registers)
        self.case.registers.append(value)
        self.case.names.append(name)
        self.at[y] = None if out[0].is_floating_point else (out[1], out[2])
        return y

    def codes(self, dims: tuple[int, ...] = (4,)) -> list[int]:
        r = self.case.registers
        return [i for i, at in self.at.items() if at is not None and r[i].dim() in dims]

    def weights(self, weight: Tensor, packed: Tensor, plainly: Tensor, bias: bool) -> list[Tensor]:
        n = weight.shape[0]
        scale = 0.002 + 0.01 * torch.rand(n, generator=self.generator)
        rest = [scale, torch.randn(n, generator=self.generator)][: 1 + bias]
        self.case.tensors += [packed, *rest]
        self.case.plain_tensors += [plainly, *rest]
        return rest

    def weight(self, *shape: int) -> Tensor:
        return torch.randint(-127, 128, shape, dtype=torch.int8, generator=self.generator)

    def conv(self) -> int:
        case, p = self.case, self.case.program
        x = self.pick(self.codes())
        value, at = case.registers[x], self.at[x]
        assert at is not None
        c, bias = value.shape[1], bool(self.integer(0, 1))
        depthwise = self.integer(0, 2) == 0
        k = self.pick((1, 1, 3, 5))
        groups, oc = (c, c) if depthwise else (1, self.pick((8, 20, 64, c)))
        weight = self.weight(oc, c // groups, k, k)
        packed = ops.int8_conv_pack(weight, groups)
        stride = [self.pick((1, 1, 2))] * 2
        padding = [self.integer(k // 2, k - 1) for _ in range(4)]
        size = [
            (s + padding[2 * i] + padding[2 * i + 1] - k) // stride[0] + 1
            for i, s in enumerate(value.shape[2:])
        ]
        shape = (value.shape[0], oc, *size)
        act = self.pick(("none", "relu", "clamp", "leaky_relu", "hardswish", "silu"))
        fits = [i for i, r in enumerate(case.registers) if tuple(r.shape) == shape]
        residual = self.pick(fits) if fits and self.integer(0, 1) else None
        other = (1.0, 0) if residual is None else self.at[residual] or (1.0, 0)
        rest = self.weights(weight, packed, pack_conv_plain(weight, groups), bias)
        slope = torch.tensor([0.1]) if act == "leaky_relu" else None
        if slope is not None:
            case.tensors.append(slope)
            case.plain_tensors.append(slope)
        out = (torch.float32, 1.0, 0) if self.integer(0, 9) == 0 else self.out()
        how: dict[str, Any] = {"activation": act, "low": -0.5, "high": 3.0}
        window: dict[str, Any] = {"stride": stride, "padding": padding}
        shape4 = list(weight.shape)
        y = p.conv(
            x, at, shape4, bias=bias, residual=residual, residual_at=other, out=out, **window, **how
        )
        made = ops.int8_conv_relu(
            value, packed, shape4, scale_x=at[0], zero_point_x=at[1], scale_w=rest[0],
            bias=rest[1] if bias else None, slope=slope,
            residual=None if residual is None else case.registers[residual],
            residual_scale=other[0], residual_zero_point=other[1],
            out_dtype=out[0], out_scale=out[1], out_zero_point=out[2], **window, **how,
        )  # fmt: skip
        return self.made("conv", y, made, out)

    def linear(self) -> int:
        if not any(self.case.registers[i][0].numel() <= MAX_K for i in self.codes((2, 4))):
            return self.pool()
        case, (x, at) = self.case, self._rows()
        value, bias, n = case.registers[x], bool(self.integer(0, 1)), self.pick((1, 10, 64))
        weight = self.weight(n, value.shape[-1])
        packed = ops.int8_pack(weight)
        rest = self.weights(weight, packed, pack_plain(weight), bias)
        out, act = self.out(), self.pick(("none", "relu", "gelu"))
        y = case.program.linear(x, at, n, bias=bias, activation=act, out=out)
        made = ops.int8_gemm(
            value, packed, n, scale_a=torch.tensor([at[0]]),
            zero_point_a=torch.tensor([at[1]], dtype=torch.int32), scale_w=rest[0],
            bias=rest[1] if bias else None, activation=act, out_dtype=out[0], out_scale=out[1],
            out_zero_point=out[2],
        )  # fmt: skip
        return self.made("linear", y, made, out)

    def _rows(self) -> tuple[int, At]:
        """Codes of 2 dimensions; images are flattened."""
        fits = self.codes((2, 4))
        x = self.pick([i for i in fits if self.case.registers[i][0].numel() <= MAX_K])
        at = self.at[x]
        assert at is not None
        value = self.case.registers[x]
        if value.dim() == 4:
            y = self.case.program.flatten(x)
            x = self.made("flatten", y, value.flatten(1), (value.dtype, *at))
        return x, at

    def add(self) -> int:
        case, a = self.case, self.pick(self.codes())
        fits = [i for i in self.codes() if case.registers[i].shape == case.registers[a].shape]
        b, out = self.pick(fits), self.out()
        how: dict[str, Any] = {"activation": self.pick(("none", "relu", "clamp"))}
        if how["activation"] == "clamp":
            how |= {"low": -1.0, "high": 2.0}
        at_a, at_b = self.at[a], self.at[b]
        assert at_a is not None
        assert at_b is not None
        y = case.program.add(a, at_a, b, at_b, out=out, **how)
        made = ops.int8_add(
            case.registers[a], case.registers[b], scale_a=at_a[0], zero_point_a=at_a[1],
            scale_b=at_b[0], zero_point_b=at_b[1], out_dtype=out[0], out_scale=out[1],
            out_zero_point=out[2], **how,
        )  # fmt: skip
        return self.made("add", y, made, out)

    def concat(self) -> int:
        case, a = self.case, self.pick(self.codes())
        r = case.registers
        fits = [
            i
            for i in self.codes()
            if (r[i].shape[0], *r[i].shape[2:]) == (r[a].shape[0], *r[a].shape[2:])
        ]
        xs, out = [a, *(self.pick(fits) for _ in range(self.integer(0, 2)))], self.out()
        ats = [self.at[x] or (1.0, 0) for x in xs]
        y = case.program.concat(xs, ats, 1, out)
        made = torch.ops.pyops.int8_concat.default(
            [r[x] for x in xs], [at[0] for at in ats], [at[1] for at in ats], 1, out[1], out[2],
            4 if out[0] == torch.uint8 else 3,
        )  # fmt: skip
        return self.made("concat", y, made, out)

    def pool(self) -> int:
        case, x = self.case, self.pick(self.codes())
        at, kind = self.at[x], self.integer(0, 1)
        assert at is not None
        value = case.registers[x]
        out = self.pick((self.out(), (value.dtype, *at)))
        code = 4 if out[0] == torch.uint8 else 3
        if self.integer(0, 1):
            size = [self.integer(1, 3), self.integer(1, 3)]
            y = case.program.adaptive_pool(x, at, kind, size, out)
            run = torch.ops.pyops.int8_adaptive_pool.default
            return self.made("adaptive pool", y, run(value, kind, size, *at, code, *out[1:]), out)
        window: list[Any] = [[3, 3], [2, 1], [1, 1, 1, 1], [1, 1], False, True, 0]
        add: Any = case.program.pool
        y = add(x, at, kind, *window, out)
        run = torch.ops.pyops.int8_pool.default
        return self.made("pool", y, run(value, kind, *window, *at, code, *out[1:]), out)

    def clamp(self) -> int | None:
        case = self.case
        fits = [i for i in self.codes((2, 4)) if case.registers[i].dtype == torch.uint8]
        if not fits:
            return None
        x, low, high = self.pick(fits), self.integer(0, 255), self.integer(0, 255)
        at = self.at[x]
        assert at is not None
        y = case.program.clamp(x, low, high)
        return self.made("clamp", y, torch.clamp(case.registers[x], low, high), (torch.uint8, *at))

    def dequantize(self) -> int:
        x = self.pick(self.codes((2, 4)))
        at = self.at[x]
        assert at is not None
        y = self.case.program.dequantize(x, at)
        value = ops.int8_dequantize(self.case.registers[x], scale=at[0], zero_point=at[1])
        return self.made("dequantize", y, value, (torch.float32, 1.0, 0))


STEPS = ("conv", "conv", "conv", "linear", "add", "concat", "pool", "clamp", "dequantize")


def net_case(seed: int, steps: int = 8, size: int = 9) -> NetCase:
    """A case that depends on its arguments alone; its last step is among the outputs."""
    builder = _Builder(seed, size)
    builder.begin(planes=seed % 2 == 0)
    for _ in range(steps):
        getattr(builder, builder.pick(STEPS))()
    case = builder.case
    last = len(case.registers) - 1
    others = [i for i in range(1, last) if builder.integer(0, 4) == 0]
    case.program.returns(last, *others)
    return case
