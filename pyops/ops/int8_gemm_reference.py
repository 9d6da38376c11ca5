"""References of the int8 ops in plain torch, and their fakes: the definition that kernels obey."""

import torch
from torch import Tensor

from . import checks, packing
from .epilogue import ACTIVATIONS, OUT_DTYPES, finish
from .int8_sparse_packing import is_sparse, linear_weight

_FLOAT32_MIN = torch.finfo(torch.float32).tiny


def divide(v: Tensor, by: float) -> Tensor:
    """``v / by``, rounded once. By a number, torch multiplies with its reciprocal on CUDA."""
    return v / v.new_full((), by)


def quantize_rows_reference(
    x: Tensor, symmetric: bool, signed: bool
) -> tuple[Tensor, Tensor, Tensor]:
    checks.float_rows("quantize_rows", "x", x)
    v = x.to(torch.float32).contiguous()
    if v.shape[-1] == 0:
        low = high = v.new_zeros(v.shape[:-1])
    else:
        low, high = v.amin(-1).clamp(max=0.0), v.amax(-1).clamp(min=0.0)
    finite = torch.isfinite(v).all(-1)
    if symmetric:
        scale = divide(torch.maximum(-low, high), 127.0)
    else:
        scale = divide(high, 255.0) - divide(low, 255.0)
    scale = torch.where((low == 0) & (high == 0), 1.0, scale.clamp(min=_FLOAT32_MIN))
    inverse = torch.where(finite, 1.0 / scale, 0.0)
    if symmetric:
        zero, bounds = torch.full_like(scale, 128.0), (1.0, 255.0)
    else:
        zero, bounds = torch.round(-low * inverse).nan_to_num(0.0).clamp(0.0, 255.0), (0.0, 255.0)
    rounded = torch.round(v * inverse[..., None]).nan_to_num(0.0, 0.0, 0.0)
    code = (rounded + zero[..., None]).clamp(*bounds).to(torch.int32)
    zero_point = zero.to(torch.int32)
    scale = torch.where(finite, scale, torch.nan)
    if signed:
        return (code - 128).to(torch.int8), scale, zero_point - 128
    return code.to(torch.uint8), scale, zero_point


def quantize_rows_fake(x: Tensor, symmetric: bool, signed: bool) -> tuple[Tensor, Tensor, Tensor]:
    checks.float_rows("quantize_rows", "x", x)
    q = x.new_empty(x.shape, dtype=torch.int8 if signed else torch.uint8)
    rows = x.shape[:-1]
    return q, x.new_empty(rows, dtype=torch.float32), x.new_empty(rows, dtype=torch.int32)


def int8_pack_reference(weight: Tensor) -> Tensor:
    checks.int8_pack(weight)
    return packing.pack_plain(weight)


def int8_pack_fake(weight: Tensor) -> Tensor:
    checks.int8_pack(weight)
    return packed_of_unknown_size(weight)


def packed_of_unknown_size(like: Tensor) -> Tensor:
    """For fakes: the length depends on the layout, so on the kernel that runs."""
    size = torch.library.get_ctx().new_dynamic_size(min=packing.HEADER_BYTES)
    return like.new_empty((size,), dtype=torch.uint8)


def int8_unpack_reference(packed: Tensor, n: int, k: int) -> Tensor:
    checks.packed("int8_unpack", packed)
    weight = packing.unpack_plain(packed)
    if weight.shape != (n, k):
        raise ValueError(
            f"int8_unpack: the packed weight is {tuple(weight.shape)}, but n, k = {n}, {k} given"
        )
    return weight


def int8_unpack_fake(packed: Tensor, n: int, k: int) -> Tensor:
    checks.packed("int8_unpack", packed)
    return packed.new_empty((n, k), dtype=torch.int8)


def int8_product(a: Tensor, weight: Tensor) -> Tensor:
    """Exact ``a @ weight.T`` in int32, for int8 or uint8 ``a [M, K]`` and int8 ``weight [N, K]``.

    512 products of at most 255 * 128 stay below 2^24, so float32 holds each partial sum exactly.
    """
    total = torch.zeros(a.shape[0], weight.shape[0], dtype=torch.int32, device=a.device)
    with torch.autocast(a.device.type, enabled=False):  # it would round the product to bfloat16
        for k in range(0, a.shape[1], 512):
            part = a[:, k : k + 512].float() @ weight[:, k : k + 512].float().T
            total += part.to(torch.int32)
    return total


def int8_gemm_reference(
    a: Tensor,
    packed: Tensor,
    n: int,
    scale_a: Tensor | None,
    zero_point_a: Tensor | None,
    scale_w: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: int,
    out_dtype: int,
    out_scale: float,
    out_zero_point: int,
) -> Tensor:
    checks.codes("int8_gemm", activation, out_dtype, 6)
    dtype = OUT_DTYPES[out_dtype]
    checks.int8_gemm(a, packed, n, scale_a, zero_point_a, scale_w, bias, residual, dtype)
    checks.int8_gemm_output(ACTIVATIONS[activation], dtype, out_scale, out_zero_point)
    checks.finite_scale(scale_a, dtype)
    weight = (
        linear_weight("int8_gemm", packed) if is_sparse(packed) else packing.unpack_plain(packed)
    )
    checks.weight_shape("int8_gemm", weight.shape, n, a.shape[-1])
    rows = a.reshape(-1, a.shape[-1]) if a.shape[-1] else a.reshape(a.shape[:-1].numel(), 0)
    acc = int8_product(rows, weight)
    out = finish(
        acc,
        weight.sum(1, dtype=torch.int32),
        scale_a=scale_a,
        zero_point_a=zero_point_a,
        scale_w=scale_w,
        bias=bias,
        residual=None if residual is None else residual.reshape(acc.shape),
        activation=ACTIVATIONS[activation],
        out_dtype=dtype,
        out_scale=out_scale,
        out_zero_point=out_zero_point,
    )
    return out.reshape(*a.shape[:-1], n)


def int8_gemm_fake(
    a: Tensor,
    packed: Tensor,
    n: int,
    scale_a: Tensor | None,
    zero_point_a: Tensor | None,
    scale_w: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: int,
    out_dtype: int,
    out_scale: float,
    out_zero_point: int,
) -> Tensor:
    checks.codes("int8_gemm", activation, out_dtype, 6)
    dtype = OUT_DTYPES[out_dtype]
    checks.int8_gemm(a, packed, n, scale_a, zero_point_a, scale_w, bias, residual, dtype)
    checks.int8_gemm_output(ACTIVATIONS[activation], dtype, out_scale, out_zero_point)
    return a.new_empty((*a.shape[:-1], n), dtype=dtype)


def int8_linear_reference(
    x: Tensor,
    packed: Tensor,
    scale_w: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: int,
    out_dtype: int,
) -> Tensor:
    checks.codes("int8_linear", activation, out_dtype, 3)
    checks.linear("int8_linear", x, packed, scale_w, bias, residual, OUT_DTYPES[out_dtype])
    q, scale, _ = quantize_rows_reference(x, True, True)
    n = scale_w.shape[0]
    return int8_gemm_reference(
        q, packed, n, scale, None, scale_w, bias, residual, activation, out_dtype, 1.0, 0
    )


def int8_linear_fake(
    x: Tensor,
    packed: Tensor,
    scale_w: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: int,
    out_dtype: int,
) -> Tensor:
    checks.codes("int8_linear", activation, out_dtype, 3)
    dtype = OUT_DTYPES[out_dtype]
    checks.linear("int8_linear", x, packed, scale_w, bias, residual, dtype)
    return x.new_empty((*x.shape[:-1], scale_w.shape[0]), dtype=dtype)
