"""Reference of the epilogue that every int8 product ends with, in plain torch.

The order is fixed, and each step is rounded to float32::

    v = float(acc - zero_point * column_sum)
    v = v * scale_a;  v = v * scale_w;  v = v + bias;  v = v + residual;  v = activation(v)

followed by a float store or by requantization. ``csrc/cpu/common/epilogue.inl.h`` does the same
operations in the same order, so the two agree bit for bit on a CPU.
"""

import torch
from torch import Tensor

ACTIVATIONS = ("none", "relu", "gelu", "gelu_tanh", "silu")
OUT_DTYPES = (
    torch.float32,
    torch.bfloat16,
    torch.float16,
    torch.int8,
    torch.uint8,
    torch.int32,
)
ACTIVATION_CODE = {name: code for code, name in enumerate(ACTIVATIONS)}
OUT_DTYPE_CODE = {dtype: code for code, dtype in enumerate(OUT_DTYPES)}

# Adding 1.5 * 2^23 leaves the nearest integer in the low mantissa bits of a float32.
_ROUND = 12582912.0
_ROUND_BITS = 0x4B400000
_LOG2_E = 1.44269502162933349609375
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
# Both from scripts/fit_polynomials.py, ascending powers.
_EXP = (0.5, 0.166665733, 0.0416668616, 0.00836373959, 0.00139015343)
_TAIL = (
    0.0997974798,
    0.0985168442,
    0.103746668,
    0.0329280756,
    0.201757684,
    -0.20578213,
    0.296120733,
    -0.152808726,
    0.0257233568,
)


def _horner(x: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    value = torch.full_like(x, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        value = value * x + c
    return value


def exp(y: Tensor) -> Tensor:
    """``e**y`` in float32 for ``y >= -87.3``; infinite above 88.37 (Cody and Waite, 1980)."""
    y = torch.clamp(y, min=-87.3, max=89.0)
    shifted = y * _LOG2_E + _ROUND
    n = shifted - _ROUND
    r = y - n * _LN2_HIGH
    r = r - n * _LN2_LOW
    p = _horner(r, _EXP) * (r * r) + r + 1.0
    power = ((shifted.view(torch.int32) - _ROUND_BITS + 127) << 23).view(torch.float32)
    return torch.where(torch.isnan(y), y, p * power)


def gelu(x: Tensor) -> Tensor:
    """``x * Phi(x)`` with the exact normal distribution (Hendrycks and Gimpel, 2016).

    ``Phi(-z) = exp(-z^2 / 2) * t * p(t)`` with ``t = 1 / (1 + z / 4)``.
    """
    z = torch.clamp(x.abs(), max=14.0)
    t = 1.0 / (z * 0.25 + 1.0)
    tail = exp(z * z * -0.5) * (t * _horner(t, _TAIL))
    return torch.clamp(x, min=0.0) - z * tail


def silu(x: Tensor) -> Tensor:
    """``x / (1 + exp(-x))``."""
    return x / (exp(-x) + 1.0)


def gelu_tanh(x: Tensor) -> Tensor:
    """The tanh approximation of GELU, written as ``x * sigmoid(2 u)``.

    ``u = sqrt(2 / pi) * (x + 0.044715 x^3)``.
    """
    cubic = x * x * x * 0.044715 + x
    return x / (exp(cubic * -1.5957691216057308) + 1.0)


_ACTIVATION = {
    "none": lambda v: v,
    "relu": lambda v: torch.clamp(v, min=0.0),
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "silu": silu,
}


def activate(v: Tensor, activation: str) -> Tensor:
    """Apply one of ``ACTIVATIONS`` to a float32 tensor."""
    out: Tensor = _ACTIVATION[activation](v)
    return out


def requantize(v: Tensor, dtype: torch.dtype, scale: float, zero_point: int) -> Tensor:
    """``clamp(rne(v * (1 / scale)) + zero_point)``; NaN becomes the lowest value of ``dtype``."""
    info = torch.iinfo(dtype)
    inverse = torch.tensor(1.0, dtype=torch.float32) / torch.tensor(scale, dtype=torch.float32)
    low, high = float(info.min - zero_point), float(info.max - zero_point)
    t = torch.nan_to_num(v * inverse.to(v.device), nan=low, posinf=high, neginf=low)
    t = torch.clamp(t, min=low, max=high)
    return (torch.round(t).to(torch.int32) + zero_point).to(dtype)


def finish(
    acc: Tensor,
    column_sum: Tensor,
    *,
    scale_a: Tensor | None,
    zero_point_a: Tensor | None,
    scale_w: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str,
    out_dtype: torch.dtype,
    out_scale: float,
    out_zero_point: int,
) -> Tensor:
    """Take an int32 sum ``acc [M, N]`` to the output type. Row operands are ``[M]`` or ``[1]``."""
    if zero_point_a is not None:
        acc = acc - zero_point_a.reshape(-1, 1) * column_sum
    if out_dtype == torch.int32:
        return acc
    v = acc.to(torch.float32)
    if scale_a is not None:
        v = v * scale_a.reshape(-1, 1)
    if scale_w is not None:
        v = v * scale_w
    if bias is not None:
        v = v + bias
    if residual is not None:
        v = v + residual.to(torch.float32)
    v = activate(v, activation)
    if out_dtype in (torch.int8, torch.uint8):
        return requantize(v, out_dtype, out_scale, out_zero_point)
    return v.to(out_dtype)
