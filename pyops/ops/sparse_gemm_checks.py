"""Argument checks of products with a sparse weight, shared by functions, references and fakes.

``csrc/checks/sparse_gemm.h`` makes the same checks with the same words.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from . import checks
from . import conv_relu_checks as conv
from .epilogue import ACTIVATIONS
from .packing import MAX_K

DTYPES = (*conv.DTYPES, torch.int8)


def weight_dtype(op: str, name: str, given: torch.dtype) -> None:
    if given not in DTYPES:
        names = "torch.float32, torch.bfloat16 or torch.int8"
        raise TypeError(f"{op}: {name} must be {names}, but is {given}")


def pack(weight: Tensor, groups: int) -> None:
    op = "sparse_pack"
    weight_dtype(op, "weight", weight.dtype)
    conv.weight_of(op, weight, groups)
    depth = weight.shape[1:].numel()
    if weight.dtype == torch.int8 and depth > MAX_K:
        raise ValueError(
            f"{op}: KH * KW * C / groups is {depth}, but at most {MAX_K} is exact in int32"
        )


def unpack(packed: Tensor, shape: Sequence[int], dtype_code: int) -> None:
    op = "sparse_unpack"
    conv.weight_shape(op, shape)
    checks.code(op, "weight_dtype", dtype_code, len(DTYPES))
    checks.packed(op, packed, "sparse_pack")


def refresh(packed: Tensor, weight: Tensor, transposed: bool) -> None:
    op = "sparse_refresh"
    checks.packed(op, packed, "sparse_pack")
    conv.dtype(op, "weight", weight.dtype)
    if weight.dim() != (2 if transposed else 4):
        expected = "2-D [K, N]" if transposed else "4-D [OC, C / groups, KH, KW]"
        raise ValueError(f"{op}: weight must be {expected}, but is {weight.dim()}-D")
    checks.same_device(op, packed, weight=weight)


def linear(
    x: Tensor,
    packed: Tensor,
    n: int,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: int,
) -> None:
    op = "sparse_linear"
    conv.dtype(op, "x", x.dtype)
    checks.at_least_1d(op, "x", x)
    checks.residual_shape(op, residual, x.shape[:-1], n)
    if residual is not None and residual.dtype != x.dtype:
        raise TypeError(
            f"{op}: residual must have the dtype of x, {x.dtype}, but is {residual.dtype}"
        )
    checks.code(op, "activation", activation, len(ACTIVATIONS))
    checks.packed(op, packed, "sparse_pack")
    checks.channels(op, "bias", bias, n)
    checks.same_device(op, x, packed=packed, bias=bias, residual=residual)
