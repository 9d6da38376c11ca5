"""References of the weight-only ops in plain torch, and their fakes.

Unlike integer sums, these depend on the order of addition: a kernel, and the reference, is within
``(K + 8) * 2**-24 * (|x| @ (|w| + |z|))`` of the exact sum; ``csrc/cpu/weight_only/weight_only.h``
says what z is.
"""

import torch
from torch import Tensor

from . import checks
from . import weight_only_checks as own
from . import weight_only_packing as packing
from .epilogue import ACTIVATIONS, OUT_DTYPES, finish_float
from .int8_gemm_reference import packed_of_unknown_size


def int8_weight_pack_reference(weight: Tensor) -> Tensor:
    checks.int8_weight("int8_weight_pack", weight)
    return packing.pack_plain_int8(weight)


def int8_weight_pack_fake(weight: Tensor) -> Tensor:
    checks.int8_weight("int8_weight_pack", weight)
    return packed_of_unknown_size(weight)


def int8_weight_unpack_reference(packed: Tensor, n: int, k: int) -> Tensor:
    checks.packed("int8_weight_unpack", packed, "int8_weight_pack")
    weight = packing.unpack_plain_int8(packed)
    checks.weight_shape("int8_weight_unpack", weight.shape, n, k)
    return weight


def int8_weight_unpack_fake(packed: Tensor, n: int, k: int) -> Tensor:
    checks.packed("int8_weight_unpack", packed, "int8_weight_pack")
    return packed.new_empty((n, k), dtype=torch.int8)


def int4_pack_reference(
    codes: Tensor, scale: Tensor, zero: Tensor | None, group_size: int
) -> Tensor:
    own.int4_pack(codes, scale, zero, group_size)
    own.int4_values(codes, zero)
    return packing.pack_plain_int4(codes, scale, zero, group_size)


def int4_pack_fake(codes: Tensor, scale: Tensor, zero: Tensor | None, group_size: int) -> Tensor:
    own.int4_pack(codes, scale, zero, group_size)
    return packed_of_unknown_size(codes)


def int4_unpack_reference(
    packed: Tensor, n: int, k: int, group_size: int, zeros: bool
) -> tuple[Tensor, Tensor, Tensor]:
    own.group_size("int4_unpack", group_size)
    checks.packed("int4_unpack", packed, "int4_pack")
    header, codes, scale, zero = packing.unpack_plain_int4(packed)
    checks.weight_shape("int4_unpack", codes.shape, n, k)
    if (header.group, header.zeros) != (group_size, zeros):
        points = ("without zero points", "with zero points")
        raise ValueError(
            f"int4_unpack: the packed weight has groups of {header.group} {points[header.zeros]}, "
            f"but {group_size} {points[zeros]} given"
        )
    return codes, scale, scale.new_empty((n, 0), dtype=torch.uint8) if zero is None else zero


def int4_unpack_fake(
    packed: Tensor, n: int, k: int, group_size: int, zeros: bool
) -> tuple[Tensor, Tensor, Tensor]:
    own.group_size("int4_unpack", group_size)
    checks.packed("int4_unpack", packed, "int4_pack")
    groups = packing.group_count(k, group_size)
    return (
        packed.new_empty((n, k), dtype=torch.uint8 if zeros else torch.int8),
        packed.new_empty((n, groups), dtype=torch.float32),
        packed.new_empty((n, groups if zeros else 0), dtype=torch.uint8),
    )


def dequantize_int4(codes: Tensor, scale: Tensor, zero: Tensor | None, group_size: int) -> Tensor:
    """``(codes - zero) * scale`` as float32 ``[N, K]``; the difference is exact."""
    k = codes.shape[1]
    value = codes.to(torch.float32)
    if zero is not None:
        value = value - zero.to(torch.float32).repeat_interleave(group_size, 1)[:, :k]
    return value * scale.repeat_interleave(group_size, 1)[:, :k]


def int8_weight_linear_reference(
    x: Tensor,
    packed: Tensor,
    scale_w: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: int,
    out_dtype: int,
) -> Tensor:
    int8_weight_linear_fake(x, packed, scale_w, bias, residual, activation, out_dtype)
    weight = packing.unpack_plain_int8(packed)
    op, n = "int8_weight_linear", scale_w.shape[0]
    checks.weight_shape(op, weight.shape, n, x.shape[-1])
    sums = _product(x, weight.to(torch.float32)) * scale_w
    return finish_float(sums, bias, residual, ACTIVATIONS[activation]).to(OUT_DTYPES[out_dtype])


def int8_weight_linear_fake(
    x: Tensor,
    packed: Tensor,
    scale_w: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: int,
    out_dtype: int,
) -> Tensor:
    op = "int8_weight_linear"
    checks.codes(op, activation, out_dtype, 3)
    dtype = OUT_DTYPES[out_dtype]
    n = checks.linear(op, x, packed, scale_w, bias, residual, dtype, pack="int8_weight_pack")
    return x.new_empty((*x.shape[:-1], n), dtype=dtype)


def int4_linear_reference(
    x: Tensor,
    packed: Tensor,
    n: int,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: int,
    out_dtype: int,
) -> Tensor:
    int4_linear_fake(x, packed, n, bias, residual, activation, out_dtype)
    header, codes, scale, zero = packing.unpack_plain_int4(packed)
    checks.weight_shape("int4_linear", codes.shape, n, x.shape[-1])
    weight = dequantize_int4(codes, scale, zero, header.group)
    out = finish_float(_product(x, weight), bias, residual, ACTIVATIONS[activation])
    return out.to(OUT_DTYPES[out_dtype])


def int4_linear_fake(
    x: Tensor,
    packed: Tensor,
    n: int,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: int,
    out_dtype: int,
) -> Tensor:
    op = "int4_linear"
    checks.codes(op, activation, out_dtype, 3)
    dtype = OUT_DTYPES[out_dtype]
    checks.linear(op, x, packed, None, bias, residual, dtype, pack="int4_pack", n=n)
    return x.new_empty((*x.shape[:-1], n), dtype=dtype)


def _product(x: Tensor, weight: Tensor) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):  # it would round the product to bfloat16
        return x.to(torch.float32) @ weight.t()
