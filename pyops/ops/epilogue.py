"""Reference of the epilogue that every int8 product ends with, in plain torch.

The order is fixed, and each step is rounded to float32::

    v = float(acc - zero_point * column_sum)
    v = v * scale_a;  v = v * scale_w;  v = v + bias;  v = v + residual;  v = activation(v)

followed by a float store or by requantization. ``csrc/cpu/common/epilogue.inl.h`` does the same
operations in the same order, so the two agree bit for bit on a CPU.
"""

from typing import NamedTuple

import torch
from torch import Tensor

ACTIVATIONS = ("none", "relu", "gelu", "gelu_tanh", "silu")
# Of convolutions; those beyond ACTIVATIONS take the parameters of an ``Activation``.
CONV_ACTIVATIONS = (*ACTIVATIONS, "clamp", "hardswish", "leaky_relu")
OUT_DTYPES = (
    torch.float32,
    torch.bfloat16,
    torch.float16,
    torch.int8,
    torch.uint8,
    torch.int32,
)
ACTIVATION_CODE = {name: code for code, name in enumerate(ACTIVATIONS)}
CONV_ACTIVATION_CODE = {name: code for code, name in enumerate(CONV_ACTIVATIONS)}
OUT_DTYPE_CODE = {dtype: code for code, dtype in enumerate(OUT_DTYPES)}

# Adding 1.5 * 2^23 leaves the nearest integer in the low mantissa bits of a float32.
_ROUND = 12582912.0
_ROUND_BITS = 0x4B400000
_LOG2_E = 1.44269502162933349609375
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
# From scripts/fit_polynomials.py, ascending powers; the tails are tables of 16 intervals.
_EXP = (0.5, 0.166665733, 0.0416668616, 0.00836373959, 0.00139015343)
# fmt: off
_NORMAL_TAIL = (
    (0.5, 0.359657288, 0.236147493, 0.140488997, 0.0752879828, 0.0361777321, 0.0155320736,
     0.0059410762, 0.00202013762, 0.000609546551, 0.000162976474, 3.85686544e-05, 8.07098422e-06,
     1.49232665e-06, 2.43649936e-07, 2.23712657e-08),
    (-0.143369883, -0.134404331, -0.110733576, -0.0801781565, -0.0510203615, -0.0285326205,
     -0.0140233086, -0.00605717348, -0.00229932438, -0.000767080928, -0.000224901785,
     -5.7950263e-05, -1.31228708e-05, -2.61163973e-06, -4.56781805e-07, -7.02126997e-08),
    (-3.54023832e-08, 0.00867899321, 0.0143010505, 0.0155324414, 0.0131786279, 0.00921260007,
     0.00543343462, 0.00273803901, 0.00118783349, 0.000445795333, 0.000145218306, 4.11567053e-05,
     1.01660153e-05, 2.19142248e-06, 4.12678446e-07, 6.79453365e-08),
    (0.00308632944, 0.00251939241, 0.00115221436, -0.000280161534, -0.00117111788,
     -0.00136882451, -0.00110159488, -0.00069472933, -0.000359603931, -0.000156218739,
     -5.76798629e-05, -1.82445729e-05, -4.97017891e-06, -1.17050934e-06, -2.38971808e-07,
     -4.23839879e-08),
    (-9.72504381e-07, -0.000266105664, -0.0003797393, -0.00030592471, -0.000132730784,
     2.1588241e-05, 9.5521551e-05, 9.76871743e-05, 6.73285467e-05, 3.59517762e-05,
     1.56303904e-05, 5.66789049e-06, 1.73808269e-06, 4.54695481e-07, 1.02084989e-07,
     1.9753772e-08),
    (-5.8486221e-05, -4.16445182e-05, -2.66457619e-06, 2.89552172e-05, 3.61527382e-05,
     2.35476455e-05, 6.46923945e-06, -4.18784521e-06, -6.89955823e-06, -5.28989904e-06,
     -2.89475929e-06, -1.24511064e-06, -4.37901406e-07, -1.28554106e-07, -3.18954463e-08,
     -6.74295864e-09),
)
_TANH_TAIL = (
    (0.5, 0.359671235, 0.236231297, 0.140655324, 0.0754473656, 0.0362156816, 0.0154248467,
     0.00576418033, 0.00186339754, 0.00051253289, 0.000117775206, 2.21798546e-05, 3.3566364e-06,
     4.00212059e-07, 3.68551376e-08, 1.96123962e-09),
    (-0.143369883, -0.134365052, -0.110641122, -0.0801254958, -0.0510918833, -0.0286865029,
     -0.0141413966, -0.0060766302, -0.00224929908, -0.000706037157, -0.000184534816,
     -3.93830887e-05, -6.72723445e-06, -9.01485066e-07, -9.29006205e-08, -7.217829e-09),
    (-3.70716684e-08, 0.0087120356, 0.0143105732, 0.0154837715, 0.0131154926, 0.00920055248,
     0.00547555648, 0.00278589549, 0.00120719371, 0.000440231233, 0.000132838686, 3.2532429e-05,
     6.33779518e-06, 9.62647277e-07, 1.11752712e-07, 9.72126735e-09),
    (0.00310161733, 0.00252248324, 0.00113475509, -0.000296303275, -0.00116321235,
     -0.00134686846, -0.00109064649, -0.000700721052, -0.000370206224, -0.000161471195,
     -5.75288395e-05, -1.64613757e-05, -3.71182887e-06, -6.46950639e-07, -8.55084963e-08,
     -8.40931591e-09),
    (-1.01832313e-06, -0.000271368248, -0.000383070234, -0.000301854336, -0.000126638421,
     2.17246397e-05, 9.09989321e-05, 9.47025837e-05, 6.78133147e-05, 3.76036442e-05,
     1.65087495e-05, 5.70860857e-06, 1.53356984e-06, 3.14944231e-07, 4.86279923e-08,
     5.55067681e-09),
    (-5.97917933e-05, -4.21364748e-05, -1.4411396e-06, 3.0255218e-05, 3.5561312e-05,
     2.21368409e-05, 6.19014372e-06, -3.47597847e-06, -6.37656103e-06, -5.3184358e-06,
     -3.1046286e-06, -1.35169989e-06, -4.42283834e-07, -1.08037881e-07, -1.94822789e-08,
     -2.55950172e-09),
)
# fmt: on


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


def _gelu_of(x: Tensor, tail: tuple[tuple[float, ...], ...]) -> Tensor:
    """``max(x, 0) - |x| tail(|x|)``, where ``|x| = (i + f) * 23 / 64``; the tail ends at 5.57."""
    table = torch.tensor(tail, dtype=torch.float32, device=x.device)
    z = torch.clamp(x.abs(), max=5.57)
    steps = z * (64.0 / 23.0)
    shifted = steps + _ROUND
    f = steps - (shifted - _ROUND)
    interval = (shifted.view(torch.int32) & 15).long()
    value = table[-1][interval]
    for power in range(len(tail) - 2, -1, -1):
        value = value * f + table[power][interval]
    return torch.clamp(x, min=0.0) - z * value


def gelu(x: Tensor) -> Tensor:
    """``x * Phi(x)`` with the exact normal distribution (Hendrycks and Gimpel, 2016)."""
    return _gelu_of(x, _NORMAL_TAIL)


def gelu_tanh(x: Tensor) -> Tensor:
    """The tanh approximation of GELU: ``x / (1 + exp(-2 u))``.

    ``u = sqrt(2 / pi) * (x + 0.044715 x^3)``.
    """
    return _gelu_of(x, _TANH_TAIL)


def silu(x: Tensor) -> Tensor:
    """``x / (1 + exp(-x))``."""
    return x / (exp(-x) + 1.0)


class Activation(NamedTuple):
    """One of ``CONV_ACTIVATIONS`` with its parameters.

    ``low, high``: of "clamp" (ReLU6 is 0, 6). ``slope``: of "leaky_relu", fp32 [1], or one per
    output channel (PReLU).
    """

    name: str = "none"
    low: float = 0.0
    high: float = 0.0
    slope: Tensor | None = None


def hardswish(x: Tensor) -> Tensor:
    """``x * clamp(x + 3, 0, 6) / 6`` (Howard et al. 2019, arXiv:1905.02244)."""
    sixth = torch.tensor(1.0 / 6.0, dtype=torch.float32, device=x.device)
    return x * torch.clamp(x + 3.0, 0.0, 6.0) * sixth


def leaky_relu(x: Tensor, slope: Tensor) -> Tensor:
    """``x`` where it is positive, ``x * slope`` elsewhere; ``slope`` [1] or [N]."""
    return torch.clamp(x, min=0.0) + torch.clamp(x, max=0.0) * slope


_ACTIVATION = {
    "none": lambda v: v,
    "relu": lambda v: torch.clamp(v, min=0.0),
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "silu": silu,
    "hardswish": hardswish,
}


def activate(v: Tensor, activation: str | Activation) -> Tensor:
    """Apply one of ``ACTIVATIONS`` or an ``Activation`` to float32 ``v [..., N]``."""
    name = activation if isinstance(activation, str) else activation.name
    if isinstance(activation, Activation) and name == "clamp":
        return torch.clamp(v, activation.low, activation.high)
    if isinstance(activation, Activation) and name == "leaky_relu":
        assert activation.slope is not None
        return leaky_relu(v, activation.slope)
    out: Tensor = _ACTIVATION[name](v)
    return out


def requantize(v: Tensor, dtype: torch.dtype, scale: float, zero_point: int) -> Tensor:
    """``clamp(rne(v * (1 / scale)) + zero_point)``; NaN becomes the lowest value of ``dtype``."""
    info = torch.iinfo(dtype)
    inverse = torch.tensor(1.0, dtype=torch.float32) / torch.tensor(scale, dtype=torch.float32)
    low, high = float(info.min - zero_point), float(info.max - zero_point)
    t = torch.nan_to_num(v * inverse.to(v.device), nan=low, posinf=high, neginf=low)
    t = torch.clamp(t, min=low, max=high)
    return (torch.round(t).to(torch.int32) + zero_point).to(dtype)


def finish_float(
    v: Tensor, bias: Tensor | None, residual: Tensor | None, activation: str | Activation
) -> Tensor:
    """Bias, residual and activation of float32 ``v [..., N]``."""
    if bias is not None:
        v = v + bias
    if residual is not None:
        v = v + residual.to(torch.float32)
    return activate(v, activation)


def finish(
    acc: Tensor,
    column_sum: Tensor,
    *,
    scale_a: Tensor | None,
    zero_point_a: Tensor | None,
    scale_w: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str | Activation,
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
    v = finish_float(v, bias, residual, activation)
    if out_dtype in (torch.int8, torch.uint8):
        return requantize(v, out_dtype, out_scale, out_zero_point)
    return v.to(out_dtype)
