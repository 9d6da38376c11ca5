"""Reference of ``int8_rows`` in plain torch, its fake, and the checks that both make."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from . import checks
from .epilogue import ACTIVATIONS, OUT_DTYPES
from .int8_gemm_reference import divide, int8_linear_reference

OP = "int8_rows"
STEP_INTS = 6
LINEAR, LAYER_NORM, RMS_NORM = range(3)
_LANES = 64  # kNormLanes of csrc/cpu/common/norm.h


@dataclass
class _Step:
    """One step, with its tensors; ``residual`` and ``gate`` are -1 where there is none."""

    kind: int
    x: int
    residual: int
    gate: int
    activation: int
    eps: float
    tensors: list[Tensor | None]  # packed, scale_w, bias; or weight, bias

    @property
    def registers(self) -> Iterator[tuple[str, int]]:
        yield from (("x", self.x), ("residual", self.residual), ("gate", self.gate))


def _steps(tensors: Sequence[Tensor], steps: Sequence[int], eps: Sequence[float]) -> list[_Step]:
    if not steps or len(steps) % STEP_INTS:
        raise ValueError(
            f"{OP}: steps must be {STEP_INTS} integers for each step, but are {len(steps)}"
        )
    if len(eps) != len(steps) // STEP_INTS:
        raise ValueError(f"{OP}: eps has {len(eps)} entries for {len(steps) // STEP_INTS} steps")
    found, taken = [], 0
    for number in range(len(eps)):
        kind, x, residual, gate, activation, given = steps[
            STEP_INTS * number : STEP_INTS * (number + 1)
        ]
        checks.code(OP, "step", kind, 3)
        if not 0 <= given < (2 if kind == LINEAR else 4):
            raise ValueError(f"{OP}: step {number} is given code {given}, which is unknown")
        if kind != LINEAR and (residual, gate, activation) != (-1, -1, 0):
            raise ValueError(
                f"{OP}: step {number} is a norm, which takes no residual, gate or activation"
            )
        checks.code(OP, "activation", activation, len(ACTIVATIONS))
        wanted = [True, True, given & 1] if kind == LINEAR else [given & 1, given & 2]
        own: list[Tensor | None] = []
        for is_given in wanted:
            if is_given and taken == len(tensors):
                raise ValueError(
                    f"{OP}: the steps take more than the {len(tensors)} tensors that are given"
                )
            own.append(tensors[taken] if is_given else None)
            taken += bool(is_given)
        found.append(_Step(kind, x, residual, gate, activation, eps[number], own))
    if taken != len(tensors):
        raise ValueError(f"{OP}: the steps take {taken} tensors, but {len(tensors)} are given")
    return found


def _check_inputs(inputs: Sequence[Tensor]) -> None:
    if not inputs:
        raise ValueError(f"{OP}: inputs must hold at least 1 tensor, but is empty")
    for i, x in enumerate(inputs):
        checks.float_rows(OP, "inputs", x)
        if x.shape[:-1] != inputs[0].shape[:-1]:
            raise ValueError(
                f"{OP}: inputs[{i}] must have the leading dimensions of inputs[0], "
                f"but is {list(x.shape)}"
            )
        checks.same_device(OP, inputs[0], **{f"inputs[{i}]": x})


def check(
    inputs: Sequence[Tensor],
    tensors: Sequence[Tensor],
    steps: Sequence[int],
    eps: Sequence[float],
    outputs: Sequence[int],
    out_dtype: int,
) -> tuple[list[_Step], list[int]]:
    """The steps, and the width of every register; what the packed bytes hold is left out."""
    _check_inputs(inputs)
    checks.code(OP, "out_dtype", out_dtype, 3)
    found = _steps(tensors, steps, eps)
    widths = [x.shape[-1] for x in inputs]
    lead = inputs[0].shape[:-1]
    for number, step in enumerate(found):
        for name, at in step.registers:
            if not (0 if name == "x" else -1) <= at < len(widths):
                raise ValueError(
                    f"{OP}: step {number} reads register {at}, but there are {len(widths)}"
                )
        widths.append(_check_step(step, inputs[0].new_empty((*lead, widths[step.x]))))
        for name, at in (("residual", step.residual), ("gate", step.gate)):
            if at >= 0 and widths[at] != widths[-1]:
                raise ValueError(
                    f"{OP}: step {number}: {name} must have {widths[-1]} columns, "
                    f"but register {at} has {widths[at]}"
                )
    if not outputs:
        raise ValueError(f"{OP}: outputs must name at least 1 register, but is empty")
    for i, at in enumerate(outputs):
        if not len(inputs) <= at < len(widths) or at in outputs[:i]:
            raise ValueError(
                f"{OP}: output register {at} must be one that a step makes, named once"
            )
    return found, widths


def _check_step(step: _Step, x: Tensor) -> int:
    """The width of what the step makes."""
    if step.kind == LINEAR:
        packed, scale_w, bias = step.tensors
        assert packed is not None
        assert scale_w is not None
        return checks.linear(OP, x, packed, scale_w, bias, None, x.dtype)
    for name, tensor in zip(("weight", "bias"), step.tensors, strict=True):
        if tensor is not None:
            checks.floats(OP, name, tensor.dtype)
            checks.same_device(OP, x, **{name: tensor})
            if tensor.shape != x.shape[-1:]:
                raise ValueError(
                    f"{OP}: {name} must be [{x.shape[-1]}], but is {list(tensor.shape)}"
                )
    return x.shape[-1]


def row_sum(v: Tensor) -> Tensor:
    """The sum over the last dimension of a float32 tensor, kept, in the order of the kernels.

    64 partial sums, each of every 64th element; then the upper half of them is added to the lower
    half until one is left.
    """
    blocks = -(-v.shape[-1] // _LANES)
    padded = torch.nn.functional.pad(v, (0, blocks * _LANES - v.shape[-1]))
    total = v.new_zeros((*v.shape[:-1], _LANES))
    for i in range(blocks):
        total = total + padded[..., i * _LANES : (i + 1) * _LANES]
    while total.shape[-1] > 1:
        half = total.shape[-1] // 2
        total = total[..., :half] + total[..., half:]
    return total


def _sqrt(v: Tensor) -> Tensor:
    """The nearest float32. torch's own on a CPU is not always that; of float64 it rounds to it."""
    return torch.sqrt(v.double()).float() if v.device.type == "cpu" else torch.sqrt(v)


def norm_reference(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    centered: bool,
    dtype: torch.dtype,
) -> Tensor:
    """LayerNorm (``centered``) or RMSNorm in float32, each step rounded; stored as ``dtype``."""
    v, n = x.to(torch.float32), x.shape[-1]
    if n == 0:
        return v.to(dtype)
    if centered:
        v = v - divide(row_sum(v), n)
    variance = divide(row_sum(v * v), n)
    v = v * (1.0 / _sqrt(variance + torch.tensor(eps, dtype=torch.float32)))
    if weight is not None:
        v = v * weight.to(torch.float32)
    if bias is not None:
        v = v + bias.to(torch.float32)
    return v.to(dtype)


def int8_rows_reference(
    inputs: Sequence[Tensor],
    tensors: Sequence[Tensor],
    steps: Sequence[int],
    eps: Sequence[float],
    outputs: Sequence[int],
    out_dtype: int,
) -> list[Tensor]:
    found, _ = check(inputs, tensors, steps, eps, outputs, out_dtype)
    dtype = OUT_DTYPES[out_dtype]
    registers = list(inputs)
    for step in found:
        x = registers[step.x]
        if step.kind != LINEAR:
            weight, bias = step.tensors
            centered = step.kind == LAYER_NORM
            registers.append(norm_reference(x, weight, bias, step.eps, centered, dtype))
            continue
        packed, scale_w, bias = step.tensors
        assert packed is not None
        assert scale_w is not None
        residual = registers[step.residual] if step.residual >= 0 else None
        y = int8_linear_reference(x, packed, scale_w, bias, residual, step.activation, 0)
        if step.gate >= 0:
            y = y * registers[step.gate].to(torch.float32)
        registers.append(y.to(dtype))
    return [registers[at] for at in outputs]


def int8_rows_fake(
    inputs: Sequence[Tensor],
    tensors: Sequence[Tensor],
    steps: Sequence[int],
    eps: Sequence[float],
    outputs: Sequence[int],
    out_dtype: int,
) -> list[Tensor]:
    _, widths = check(inputs, tensors, steps, eps, outputs, out_dtype)
    lead, dtype = inputs[0].shape[:-1], OUT_DTYPES[out_dtype]
    return [inputs[0].new_empty((*lead, widths[at]), dtype=dtype) for at in outputs]
