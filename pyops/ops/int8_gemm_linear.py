"""A linear layer on int8 weights: rows are quantized, then multiplied, in one call.

The integers are those of ``quantize_rows`` and ``int8_gemm``, so fusing them changes no bit.

The kernel checks its arguments anyway, in less time than Python: the checks of ``checks.py`` run
only after it has refused, to say so in the type and words that they share with the references.
"""

import torch
from torch import Tensor

from . import checks
from . import int8_gemm_reference as plain
from .define import define
from .epilogue import ACTIVATION_CODE, OUT_DTYPE_CODE

define(
    "int8_linear(Tensor x, Tensor packed, Tensor scale_w, Tensor? bias, Tensor? residual, int "
    "activation, int out_dtype) -> Tensor",
    plain,
)


def int8_linear(
    x: Tensor,
    packed: Tensor,
    scale_w: Tensor,
    bias: Tensor | None = None,
    *,
    residual: Tensor | None = None,
    activation: str = "none",
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """``activation(x @ w.T + bias + residual)`` with each row of ``x`` quantized to int8.

    The same as symmetric ``quantize_rows`` and then ``int8_gemm``, in one call.

    Args:
        x: float32, bfloat16 or float16 ``[..., K]``.
        packed, scale_w, bias, residual, activation: as for ``int8_gemm``.
        out_dtype: float32, bfloat16 or float16; None means that of ``x``.

    Raises:
        TypeError, ValueError: an argument has another dtype, shape or value than stated.
        RuntimeError: ``packed`` is for another kernel or shape.
    """
    dtype = x.dtype if out_dtype is None else out_dtype
    checks.no_grad("int8_linear", x, scale_w, bias, residual)
    try:
        act, to = ACTIVATION_CODE[activation], OUT_DTYPE_CODE[dtype]
        out: Tensor = torch.ops.pyops.int8_linear.default(
            x, packed, scale_w, bias, residual, act, to
        )
        return out
    except (KeyError, TypeError, RuntimeError) as error:
        refused = error
    checks.linear("int8_linear", x, packed, scale_w, bias, residual, dtype)
    checks.activations("int8_linear", activation)
    raise refused
