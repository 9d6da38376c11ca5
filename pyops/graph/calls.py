"""What the nodes of a rewritten graph call. Each does exactly what the original nodes did.

``forward.py`` runs a graph only while its layers and norms are those that were fused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.int8_linear import Int8Linear
from ..ops import ACTIVATIONS
from ..ops.epilogue import OUT_DTYPE_CODE
from ..ops.int8_gemm_rows_reference import LINEAR, STEP_INTS

_FLOAT: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda y: y,
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda y: F.gelu(y, approximate="tanh"),
    "silu": F.silu,
}
_DTYPES = {torch.float32, torch.bfloat16, torch.float16}
# What stands for a step: a layer, a norm, or weight, bias and name of a norm that is no module.
Part = Int8Linear | nn.Module | tuple[Tensor | None, Tensor | None, str]


def unpack(values: Any, expected: int) -> tuple[Any, ...]:
    """What unpacking ``values`` into ``expected`` names assigns.

    Raises:
        ValueError: there are more or fewer, in Python's own words.
    """
    found = len(values)
    if found > expected:
        raise ValueError(f"too many values to unpack (expected {expected})")
    if found < expected:
        raise ValueError(f"not enough values to unpack (expected {expected}, got {found})")
    return tuple(values)


def linear(
    layer: Int8Linear,
    x: Tensor,
    residual: Tensor | None = None,
    activation: str = "none",
    gate: Tensor | None = None,
) -> Tensor:
    """``activation(layer(x) + residual) * gate``; both operands may broadcast or promote."""
    if residual is None or layer.takes(x, residual):
        y = layer.forward(x, residual=residual, activation=activation)
    else:
        y = _FLOAT[activation](layer.forward(x) + residual)
    return y if gate is None else y * gate


def written_rms_norm(x: Tensor, weight: Tensor, eps: float, upcast: bool) -> Tensor:
    """RMSNorm as models write it: ``upcast``, in float32 and cast back before the weight."""
    h = x.to(torch.float32) if upcast else x
    h = h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + eps)
    return weight * (h.to(x.dtype) if upcast else h)


_NORMS: dict[str, Callable[..., Tensor]] = {
    "layer_norm": lambda x, w, b, eps: F.layer_norm(x, x.shape[-1:], w, b, eps),
    "rms_norm": lambda x, w, b, eps: F.rms_norm(x, x.shape[-1:], w, eps),
    "written": lambda x, w, b, eps: written_rms_norm(x, w, eps, False),
    "written upcast": lambda x, w, b, eps: written_rms_norm(x, w, eps, True),
}


def rows(
    inputs: Sequence[Tensor],
    parts: Sequence[Part],
    steps: Sequence[int],
    eps: Sequence[float],
    outputs: Sequence[int],
    widths: Sequence[int],
) -> Sequence[Tensor]:
    """The registers ``outputs`` of a row program (``ops/int8_gemm_rows.py``) with these parts.

    One call where inputs and parts are what it takes: rows of ``widths``, all of one dtype, and the
    tensors that the steps were written for. Otherwise step after step.
    """
    tensors = _tensors(inputs, parts, steps, widths)
    if tensors is None:
        return _one_by_one(inputs, parts, steps, eps, outputs)
    code = OUT_DTYPE_CODE[inputs[0].dtype]
    out: list[Tensor] = torch.ops.pyops.int8_rows.default(
        inputs, tensors, steps, eps, outputs, code
    )
    return out


def _tensors(
    inputs: Sequence[Tensor], parts: Sequence[Part], steps: Sequence[int], widths: Sequence[int]
) -> list[Tensor] | None:
    """What the steps take; None where they cannot run as one call."""
    first = inputs[0]
    if not isinstance(first, Tensor) or first.dtype not in _DTYPES or first.dim() == 0:
        return None
    dtype, shape = first.dtype, first.shape
    for x, width in zip(inputs, widths, strict=True):
        if x is not first and not (isinstance(x, Tensor) and x.dtype == dtype):
            return None
        own = x.shape
        if own[-1:] != (width,) or (own != shape and own[:-1] != shape[:-1]):
            return None
    tensors: list[Tensor] = []
    for part, given in zip(parts, steps[STEP_INTS - 1 :: STEP_INTS], strict=True):
        if isinstance(part, Int8Linear):
            packed, bias = part.packed, part._buffers["bias"]
            if packed.sparse:
                return None
            tensors.append(packed.get())
            tensors.append(packed.scale)
            if bias is not None:
                tensors.append(bias)
            if given != (bias is not None):
                return None
        elif not _add_norm(part, given, dtype, tensors):
            return None
    if torch.is_grad_enabled() and any(t.requires_grad for t in (*inputs, *tensors)):
        return None
    return tensors


def _add_norm(
    part: nn.Module | tuple[Tensor | None, Tensor | None, str],
    given: int,
    dtype: torch.dtype,
    tensors: list[Tensor],
) -> bool:
    """Adds weight and bias, if they are those that are ``given`` and of this dtype.

    Of another one, the result would be promoted or rounded otherwise.
    """
    if isinstance(part, tuple):
        weight, bias, _ = part
    else:
        own = part._parameters
        weight, bias = own["weight"], own.get("bias")
    for tensor, bit in ((weight, 1), (bias, 2)):
        if (tensor is not None) != bool(given & bit):
            return False
        if tensor is not None:
            if tensor.dtype != dtype:
                return False
            tensors.append(tensor)
    return True


def _one_by_one(
    inputs: Sequence[Any],
    parts: Sequence[Part],
    steps: Sequence[int],
    eps: Sequence[float],
    outputs: Sequence[int],
) -> list[Tensor]:
    registers: list[Any] = list(inputs)
    for number, part in enumerate(parts):
        kind, at, residual, gate, activation, _ = steps[STEP_INTS * number :][:STEP_INTS]
        x = registers[at]
        if kind == LINEAR:
            assert isinstance(part, Int8Linear)
            y = linear(
                part,
                x,
                registers[residual] if residual >= 0 else None,
                ACTIVATIONS[activation],
                registers[gate] if gate >= 0 else None,
            )
        elif isinstance(part, tuple):
            weight, bias, name = part
            y = _NORMS[name](x, weight, bias, eps[number])
        else:
            assert isinstance(part, nn.Module)
            y = part(x)
        registers.append(y)
    return [registers[at] for at in outputs]
