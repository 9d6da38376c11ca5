"""Linear layers on float activations and int8 or int4 weights, for decoding.

With one row, or few, a layer takes the time to read its weight: int8 is a quarter and int4 an
eighth of float32. Activations are never quantized; sums are float32. ``weight_only_pack.py`` has
the packing and the int4 quantizer.

As in ``int8_gemm_linear.py`` the kernel checks its arguments anyway, in less time than Python: the
checks of ``checks.py`` run only after it has refused, for their types and words.
"""

import torch
from torch import Tensor

from . import checks
from . import weight_only_reference as plain
from .define import define
from .epilogue import ACTIVATION_CODE, OUT_DTYPE_CODE

define(
    "int8_weight_linear(Tensor x, Tensor packed, Tensor scale_w, Tensor? bias, Tensor? residual, "
    "int activation, int out_dtype) -> Tensor",
    plain,
)
define(
    "int4_linear(Tensor x, Tensor packed, int n, Tensor? bias, Tensor? residual, int activation, "
    "int out_dtype) -> Tensor",
    plain,
)


def int8_weight_linear(
    x: Tensor,
    packed: Tensor,
    scale_w: Tensor,
    bias: Tensor | None = None,
    *,
    residual: Tensor | None = None,
    activation: str = "none",
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """``activation(x @ w.T * scale_w + bias + residual)`` with float ``x`` and int8 ``w``.

    Sums are within ``(K + 8) * 2**-24 * (|x| @ |w|)`` of the exact ones and do not depend on the
    number of threads. NaN and Inf in ``x`` spread as in a float product.

    Args:
        x: float32, bfloat16 or float16 ``[..., K]``.
        packed: ``int8_weight_pack`` of the weight ``[N, K]``.
        scale_w, bias: float32 ``[N]``.
        residual: float32, bfloat16 or float16 ``[..., N]``, added before the activation.
        activation: one of ``ACTIVATIONS``.
        out_dtype: float32, bfloat16 or float16; None means that of ``x``.

    Raises:
        TypeError, ValueError: an argument has another dtype, shape or value than stated.
        RuntimeError: ``packed`` is for another kernel or shape.
    """
    op, dtype = "int8_weight_linear", x.dtype if out_dtype is None else out_dtype
    checks.no_grad(op, x, scale_w, bias, residual)
    try:
        act, to = ACTIVATION_CODE[activation], OUT_DTYPE_CODE[dtype]
        out: Tensor = torch.ops.pyops.int8_weight_linear.default(
            x, packed, scale_w, bias, residual, act, to
        )
        return out
    except (KeyError, TypeError, RuntimeError) as error:
        refused = error
    checks.linear(op, x, packed, scale_w, bias, residual, dtype, pack="int8_weight_pack")
    checks.activations(op, activation)
    raise refused


def int4_linear(
    x: Tensor,
    packed: Tensor,
    n: int,
    bias: Tensor | None = None,
    *,
    residual: Tensor | None = None,
    activation: str = "none",
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """``activation(x @ w.T + bias + residual)`` with float ``x`` and int4 ``w`` of ``int4_pack``.

    Sums are within ``(K + 8) * 2**-24 * (|x| @ (|w| + scale * |zero'|))`` of the exact ones,
    ``zero' = zero - 8`` (0 without zero points), and do not depend on the number of threads. NaN
    and Inf in ``x`` spread as in a float product.

    Args:
        x: float32, bfloat16 or float16 ``[..., K]``.
        packed: ``int4_pack`` of the weight ``[n, K]``.
        n: output channels.
        bias, residual, activation, out_dtype: as for ``int8_weight_linear``.

    Raises:
        TypeError, ValueError: an argument has another dtype, shape or value than stated.
        RuntimeError: ``packed`` is for another kernel or shape.
    """
    op, dtype = "int4_linear", x.dtype if out_dtype is None else out_dtype
    checks.no_grad(op, x, bias, residual)
    try:
        act, to = ACTIVATION_CODE[activation], OUT_DTYPE_CODE[dtype]
        out: Tensor = torch.ops.pyops.int4_linear.default(x, packed, n, bias, residual, act, to)
        return out
    except (KeyError, TypeError, RuntimeError) as error:
        refused = error
    checks.linear(op, x, packed, None, bias, residual, dtype, pack="int4_pack", n=n)
    checks.activations(op, activation)
    raise refused
