"""Linear layers on int8 weights: the input is quantized row by row, then multiplied, in one call.

``int8_linear`` is one layer; ``int8_linear_group`` several that read one input (query, key, value);
``int8_mlp`` two that follow one another. All give the integers of ``quantize_rows`` and
``int8_gemm``, so fusing layers changes no bit.

The kernel checks its arguments anyway, in less time than Python: the checks of ``checks.py`` run
only after it has refused, to say so in the type and words that they share with the references.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from . import checks
from . import int8_gemm_reference as plain
from .epilogue import ACTIVATION_CODE, OUT_DTYPE_CODE

torch.library.define(
    "pyops::int8_linear",
    "(Tensor x, Tensor packed, Tensor scale_w, Tensor? bias, Tensor? residual, int activation, "
    "int out_dtype) -> Tensor",
)
torch.library.define(
    "pyops::int8_linear_group",
    "(Tensor x, Tensor[] packed, Tensor[] scale_w, Tensor[] bias, int[] activation, "
    "int out_dtype) -> Tensor[]",
)
torch.library.define(
    "pyops::int8_mlp",
    "(Tensor x, Tensor packed_up, Tensor scale_up, Tensor? bias_up, int activation, "
    "Tensor packed_down, Tensor scale_down, Tensor? bias_down, Tensor? residual, "
    "int out_dtype) -> Tensor",
)

for _op in ("int8_linear", "int8_linear_group", "int8_mlp"):
    torch.library.impl(f"pyops::{_op}", "default", getattr(plain, f"{_op}_reference"))
    torch.library.register_fake(f"pyops::{_op}", getattr(plain, f"{_op}_fake"))


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
    except (KeyError, RuntimeError) as error:
        refused = error
    checks.int8_linear(x, packed, scale_w, bias, residual, dtype)
    checks.activations("int8_linear", activation)
    raise refused


def int8_linear_group(
    x: Tensor,
    packed: Sequence[Tensor],
    scale_w: Sequence[Tensor],
    bias: Sequence[Tensor] = (),
    *,
    activation: Sequence[str] = (),
    out_dtype: torch.dtype | None = None,
) -> list[Tensor]:
    """``[activation[i](x @ w[i].T + bias[i]) for i]`` with ``x`` quantized once for all weights.

    Bit for bit what ``int8_linear`` returns for each weight, in one call and one split over
    threads.

    Args:
        x: float32, bfloat16 or float16 ``[..., K]``.
        packed, scale_w: as for ``int8_linear``, one per weight ``[N_i, K]``, at least one.
        bias: float32 ``[N_i]`` for every weight, or none at all.
        activation: one of ``ACTIVATIONS`` for every weight, or none at all.
        out_dtype: float32, bfloat16 or float16; None means that of ``x``.

    Raises:
        TypeError, ValueError: an argument has another dtype, shape, length or value than stated.
        RuntimeError: a weight is packed for another kernel or shape.
    """
    dtype = x.dtype if out_dtype is None else out_dtype
    names = activation or ["none"] * len(packed)
    checks.no_grad("int8_linear_group", x, *scale_w, *bias)
    try:
        acts, to = [ACTIVATION_CODE[name] for name in names], OUT_DTYPE_CODE[dtype]
        out: list[Tensor] = torch.ops.pyops.int8_linear_group.default(
            x, packed, scale_w, bias, acts, to
        )
        return out
    except (KeyError, RuntimeError) as error:
        refused = error
    checks.int8_linear_group(x, packed, scale_w, bias, names, dtype)
    checks.activations("int8_linear_group", *names)
    raise refused


def int8_mlp(
    x: Tensor,
    packed_up: Tensor,
    scale_up: Tensor,
    bias_up: Tensor | None,
    packed_down: Tensor,
    scale_down: Tensor,
    bias_down: Tensor | None,
    *,
    activation: str = "none",
    residual: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """``activation(x @ up.T + bias_up) @ down.T + bias_down + residual``: two layers in one call.

    Bit for bit what two calls of ``int8_linear`` return, the hidden values being of ``out_dtype``;
    but a block of rows passes both layers before the next one, so that its hidden values stay in
    the cache and are never written to memory (as operator fusion in "Data movement is all you
    need", Ivanov et al. 2021, arXiv:2007.00072).

    Args:
        x: float32, bfloat16 or float16 ``[..., K]``.
        packed_up, scale_up, bias_up: weight ``[H, K]``, as for ``int8_linear``.
        packed_down, scale_down, bias_down: weight ``[N, H]``.
        activation: one of ``ACTIVATIONS``, between the two.
        residual: float32, bfloat16 or float16 ``[..., N]``.
        out_dtype: float32, bfloat16 or float16; None means that of ``x``.

    Raises:
        TypeError, ValueError: an argument has another dtype, shape or value than stated.
        RuntimeError: a weight is packed for another kernel or shape.
    """
    dtype = x.dtype if out_dtype is None else out_dtype
    checks.no_grad("int8_mlp", x, scale_up, bias_up, scale_down, bias_down, residual)
    up, down = (packed_up, scale_up, bias_up), (packed_down, scale_down, bias_down)
    try:
        act, to = ACTIVATION_CODE[activation], OUT_DTYPE_CODE[dtype]
        out: Tensor = torch.ops.pyops.int8_mlp.default(x, *up, act, *down, residual, to)
        return out
    except (KeyError, RuntimeError) as error:
        refused = error
    checks.int8_mlp(x, *up, *down, residual, dtype)
    checks.activations("int8_mlp", activation)
    raise refused
