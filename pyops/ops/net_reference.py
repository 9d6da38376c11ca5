"""Reference of ``run_net`` in plain torch, its fake, and the checks that both make.

A step is its kind, the number of its integers, and the integers; ``csrc/cpu/net/program.h``
lists them. Each step runs the reference or the fake of the op that it stands for.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from . import checks, conv_checks, float_pools
from . import conv_relu_reference as float_plain
from . import int8_conv_relu_reference as conv_plain
from . import int8_gemm_reference as gemm_plain
from . import int8_pool_codes_reference as codes_plain
from . import int8_pool_reference as pool_plain

OP = "run_net"
KINDS = (
    "quantize", "dequantize", "conv", "linear", "add", "concat", "pool", "adaptive pool", "clamp",
    "flatten", "float conv", "float pool", "float adaptive pool", "float linear",
)  # fmt: skip
_COUNTS = (3, 3, 20, 7, 7, None, 18, 7, 3, 1, 16, 13, 4, 4)
_FLATTENED = (torch.uint8, torch.int8, torch.float32, torch.bfloat16)


class _Step:
    """What a step takes, in order; ``plain(module, name)`` finds the function of an op."""

    def __init__(self, call: "_Call", kind: int, ints: Sequence[int]) -> None:
        self.call = call
        self.kind = kind
        self.ints = list(ints)

    def register(self, i: int) -> Tensor:
        at, registers = self.ints[i], self.call.registers
        if not 0 <= at < len(registers):
            raise ValueError(f"it reads register {at}, but there are {len(registers)}")
        return registers[at]

    def numbers(self, count: int) -> list[float]:
        call = self.call
        if call.taken_numbers + count > len(call.numbers):
            raise ValueError(
                f"the steps take more than the {len(call.numbers)} numbers that are given"
            )
        call.taken_numbers += count
        return list(call.numbers[call.taken_numbers - count : call.taken_numbers])

    def tensor(self, there: int = 1) -> Any:
        call = self.call
        if not there:
            return None
        if call.taken_tensors == len(call.tensors):
            raise ValueError(
                f"the steps take more than the {len(call.tensors)} tensors that are given"
            )
        call.taken_tensors += 1
        return call.tensors[call.taken_tensors - 1]

    def plain(self, module: Any, name: str) -> Callable[..., Tensor]:
        function: Callable[..., Tensor] = getattr(module, f"{name}_{self.call.kind}")
        return function


def _quantize(step: _Step) -> Tensor:
    _, zero, dtype = step.ints
    run = step.plain(codes_plain, "int8_quantize")
    return run(step.register(0), *step.numbers(1), zero, dtype)


def _dequantize(step: _Step) -> Tensor:
    _, zero, dtype = step.ints
    run = step.plain(codes_plain, "int8_dequantize")
    return run(step.register(0), *step.numbers(1), zero, dtype)


def _conv(step: _Step) -> Tensor:
    _, shortcut, act, flags, dtype, out_zero, zero, shortcut_zero, *window = step.ints
    x, residual = step.register(0), None if shortcut == -1 else step.register(1)
    checks.code(OP, "flags", flags, 4)
    packed, scale_w = step.tensor(), step.tensor()
    bias, slope = step.tensor(flags & 1), step.tensor(flags & 2)
    scale, shortcut_scale, low, high, out_scale = step.numbers(5)
    return step.plain(conv_plain, "int8_conv_relu")(
        x, packed, window[:4], window[4:6], window[6:10], window[10:], scale, zero, scale_w, bias,
        residual, shortcut_scale, shortcut_zero, act, low, high, slope, dtype, out_scale, out_zero,
    )  # fmt: skip


def _linear(step: _Step) -> Tensor:
    op = "int8_gemm"
    _, n, zero, act, flags, dtype, out_zero = step.ints
    x = step.register(0)
    conv_checks.code_dtype(op, "a", x.dtype)
    checks.at_least_1d(op, "a", x)
    if x.dim() == 4:
        raise ValueError(f"{op}: a must not be an image [N, C, H, W]; flatten it")
    checks.code(OP, "flags", flags, 2)
    packed, scale_w, bias = step.tensor(), step.tensor(), step.tensor(flags)
    scale, out_scale = step.numbers(2)
    checks.code(op, "activation", act, 5)
    checks.code(op, "out_dtype", dtype, 6)
    checks.scale(op, "scale_a", scale)
    checks.zero_point(op, "zero_point_a", zero, x.dtype)
    at = (
        torch.tensor([scale], dtype=torch.float32, device=x.device),
        torch.tensor([zero], dtype=torch.int32, device=x.device),
    )
    run = step.plain(gemm_plain, op)
    return run(x, packed, n, *at, scale_w, bias, None, act, dtype, out_scale, out_zero)


def _add(step: _Step) -> Tensor:
    _, _, zero_a, zero_b, act, dtype, out_zero = step.ints
    a, b = step.register(0), step.register(1)
    scale_a, scale_b, low, high, out_scale = step.numbers(5)
    run = step.plain(codes_plain, "int8_add")
    return run(a, b, scale_a, zero_a, scale_b, zero_b, act, low, high, dtype, out_scale, out_zero)


def _concat(step: _Step) -> Tensor:
    dim, dtype, out_zero, *parts = step.ints
    xs = [step.register(i) for i in range(3, len(step.ints), 2)]
    out_scale, *scales = step.numbers(1 + len(xs))
    run = step.plain(codes_plain, "int8_concat")
    return run(xs, scales, parts[1::2], dim, out_scale, out_zero, dtype)


def _pool(step: _Step) -> Tensor:
    _, kind, *window, ceil, include, divisor, zero, dtype, out_zero = step.ints
    x, (scale, out_scale) = step.register(0), step.numbers(2)
    how = (window[:2], window[2:4], window[4:8], window[8:], bool(ceil), bool(include), divisor)
    run = step.plain(pool_plain, "int8_pool")
    return run(x, kind, *how, scale, zero, dtype, out_scale, out_zero)


def _adaptive(step: _Step) -> Tensor:
    _, kind, height, width, zero, dtype, out_zero = step.ints
    x, (scale, out_scale) = step.register(0), step.numbers(2)
    run = step.plain(pool_plain, "int8_adaptive_pool")
    return run(x, kind, [height, width], scale, zero, dtype, out_scale, out_zero)


def _clamp(step: _Step) -> Tensor:
    _, low, high = step.ints
    x = step.register(0)
    if x.dtype != torch.uint8:
        raise TypeError(f"clamp: x must be torch.uint8, but is {x.dtype}")
    if not (0 <= low <= 255 and 0 <= high <= 255):
        raise ValueError(f"clamp: low and high must be in [0, 255], but are {low} and {high}")
    return torch.clamp(x, low, high)


def _flatten(step: _Step) -> Tensor:
    x = step.register(0)
    if x.dtype not in _FLATTENED:
        raise TypeError(
            "flatten: x must be torch.uint8, torch.int8, torch.float32 or torch.bfloat16, "
            f"but is {x.dtype}"
        )
    if x.dim() < 2:
        raise ValueError(f"flatten: x must have at least 2 dimensions, but has {x.dim()}")
    return x.flatten(1).clone(memory_format=torch.contiguous_format)


def _float_conv(step: _Step) -> Tensor:
    _, shortcut, act, flags, *window = step.ints
    x, residual = step.register(0), None if shortcut == -1 else step.register(1)
    checks.code(OP, "flags", flags, 4)
    packed, bias, slope = step.tensor(), step.tensor(flags & 1), step.tensor(flags & 2)
    low, high = step.numbers(2)
    return step.plain(float_plain, "conv_relu")(
        x, packed, window[:4], window[4:6], window[6:10], window[10:], bias, residual, act, low,
        high, slope,
    )  # fmt: skip


def _float_pool(step: _Step) -> Tensor:
    _, kind, *window, ceil, include, divisor = step.ints
    how = (window[:2], window[2:4], window[4:6], window[6:], bool(ceil), bool(include), divisor)
    return float_pools.pool(step.register(0), kind, *how)


def _float_adaptive(step: _Step) -> Tensor:
    _, kind, *size = step.ints
    return float_pools.adaptive_pool(step.register(0), kind, size)


def _float_linear(step: _Step) -> Tensor:
    _, n, act, flags = step.ints
    x = step.register(0)
    checks.at_least_1d("float linear", "x", x)
    if x.dim() == 4:
        raise ValueError("float linear: x must not be an image [N, C, H, W]; flatten it")
    checks.code(OP, "flags", flags, 2)
    checks.code("float linear", "activation", act, 5)
    packed, bias = step.tensor(), step.tensor(flags)
    k = x.shape[-1]
    y = step.plain(float_plain, "conv_relu")(
        x.reshape(-1, k)[..., None, None], packed, [n, k, 1, 1], [1, 1], [0] * 4, [1, 1], bias,
        None, act, 0.0, 0.0, None,
    )  # fmt: skip
    return y.reshape(*x.shape[:-1], n)


_RUN: tuple[Callable[[_Step], Tensor], ...] = (
    _quantize, _dequantize, _conv, _linear, _add, _concat, _pool, _adaptive, _clamp, _flatten,
    _float_conv, _float_pool, _float_adaptive, _float_linear,
)  # fmt: skip


class _Call:
    """One call; ``kind``: whether the ops' "reference" or "fake" runs."""

    def __init__(
        self,
        kind: str,
        inputs: Sequence[Tensor],
        tensors: Sequence[Tensor],
        steps: Sequence[int],
        numbers: Sequence[float],
    ) -> None:
        if not inputs:
            raise ValueError(f"{OP}: inputs must hold at least 1 tensor, but is empty")
        if not steps:
            raise ValueError(f"{OP}: steps must hold at least 1 step, but is empty")
        for i, x in enumerate(inputs):
            checks.same_device(OP, inputs[0], **{f"inputs[{i}]": x})
        self.kind = kind
        self.registers = list(inputs)
        self.inputs, self.tensors, self.steps, self.numbers = inputs, tensors, steps, numbers
        self.taken_tensors = self.taken_numbers = 0

    def run(self, outputs: Sequence[int]) -> list[Tensor]:
        for number, step in enumerate(self._steps()):
            try:
                self.registers.append(_RUN[step.kind](step))
            except (TypeError, ValueError) as error:
                raise type(error)(f"{OP}: step {number}: {error}") from None
        for name, taken, given in (
            ("numbers", self.taken_numbers, len(self.numbers)),
            ("tensors", self.taken_tensors, len(self.tensors)),
        ):
            if taken != given:
                raise ValueError(f"{OP}: the steps take {taken} {name}, but {given} are given")
        if not outputs:
            raise ValueError(f"{OP}: outputs must name at least 1 register, but is empty")
        for i, at in enumerate(outputs):
            if not len(self.inputs) <= at < len(self.registers) or at in outputs[:i]:
                raise ValueError(
                    f"{OP}: output register {at} must be one that a step makes, named once"
                )
        return [self.registers[at] for at in outputs]

    def _steps(self) -> Iterator[_Step]:
        steps, at, number = self.steps, 0, 0
        while at < len(steps):
            where = f"{OP}: step {number}"
            if len(steps) - at < 2:
                raise ValueError(f"{where}: it has no kind and count")
            kind, count, left = steps[at], steps[at + 1], len(steps) - at - 2
            if not 0 <= kind < len(KINDS):
                raise ValueError(f"{where}: kind code {kind} is unknown")
            if not 0 <= count <= left:
                raise ValueError(f"{where}: it counts {count} integers, but there are {left}")
            expected = _COUNTS[kind]
            if expected is None:
                expected = 3 + 2 * max(1, (count - 3) // 2)
            if count != expected:
                raise ValueError(
                    f"{where}: {KINDS[kind]} takes {expected} integers, but has {count}"
                )
            yield _Step(self, kind, steps[at + 2 : at + 2 + count])
            at, number = at + 2 + count, number + 1


def run_net_reference(
    inputs: Sequence[Tensor],
    tensors: Sequence[Tensor],
    steps: Sequence[int],
    numbers: Sequence[float],
    outputs: Sequence[int],
) -> list[Tensor]:
    return _Call("reference", inputs, tensors, steps, numbers).run(outputs)


def run_net_fake(
    inputs: Sequence[Tensor],
    tensors: Sequence[Tensor],
    steps: Sequence[int],
    numbers: Sequence[float],
    outputs: Sequence[int],
) -> list[Tensor]:
    return _Call("fake", inputs, tensors, steps, numbers).run(outputs)
