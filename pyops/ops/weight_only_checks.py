"""Argument checks of the weight-only ops, shared by public functions, references and fakes.

``csrc/checks/weight_only.h`` makes the same checks with the same words.
"""

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import is_fake

from . import checks
from .weight_only_packing import GROUP_SIZES, group_count


def int8_weight_pack(weight: Tensor) -> None:
    if weight.dtype != torch.int8:
        raise TypeError(f"int8_weight_pack: weight must be torch.int8, but is {weight.dtype}")
    if weight.dim() != 2:
        raise ValueError(f"int8_weight_pack: weight must be 2-D [N, K], but is {weight.dim()}-D")


def group_size(op: str, size: int) -> None:
    if size not in GROUP_SIZES:
        raise ValueError(f"{op}: group_size must be 32, 64 or 128, but is {size}")


def int4_pack(codes: Tensor, scale: Tensor, zero: Tensor | None, size: int) -> None:
    op = "int4_pack"
    expected = torch.int8 if zero is None else torch.uint8
    if codes.dtype != expected:
        points = "without" if zero is None else "with"
        raise TypeError(
            f"{op}: codes must be {expected} {points} zero points, but is {codes.dtype}"
        )
    if codes.dim() != 2:
        raise ValueError(f"{op}: codes must be 2-D [N, K], but is {codes.dim()}-D")
    group_size(op, size)
    shape = [codes.shape[0], group_count(codes.shape[1], size)]
    for name, tensor, dtype in (("scale", scale, torch.float32), ("zero", zero, torch.uint8)):
        if tensor is None:
            continue
        if tensor.dtype != dtype:
            raise TypeError(f"{op}: {name} must be {dtype}, but is {tensor.dtype}")
        if list(tensor.shape) != shape:
            raise ValueError(f"{op}: {name} must be {shape}, but is {list(tensor.shape)}")


def int4_values(codes: Tensor, zero: Tensor | None) -> None:
    """Only four bits are stored; needs the values, so not while tracing."""
    if torch.compiler.is_compiling() or codes.is_meta or is_fake(codes):
        return
    low, high = (-8, 7) if zero is None else (0, 15)
    for name, tensor in (("codes", codes), ("zero", zero)):
        if tensor is None or tensor.numel() == 0:
            continue
        least, most = int(tensor.min()), int(tensor.max())
        if least < low or most > high:
            raise ValueError(
                f"int4_pack: {name} must be in [{low}, {high}], but {least} to {most} occur"
            )


def packed(op: str, pack: str, tensor: Tensor) -> None:
    if tensor.dtype != torch.uint8 or tensor.dim() != 1:
        raise TypeError(
            f"{op}: packed must be the 1-D torch.uint8 tensor that {pack} returns, "
            f"but is {tensor.dim()}-D {tensor.dtype}"
        )


def linear(
    op: str,
    pack: str,
    x: Tensor,
    packed_weight: Tensor,
    n: int,
    scale_w: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    out_dtype: torch.dtype,
) -> None:
    if x.dtype not in checks.FLOATS:
        raise TypeError(f"{op}: x must be {checks.FLOAT_NAMES}, but is {x.dtype}")
    if x.dim() == 0:
        raise ValueError(f"{op}: x must have at least 1 dimension, but has 0")
    if out_dtype not in checks.FLOATS:
        raise TypeError(f"{op}: out_dtype must be {checks.FLOAT_NAMES}, but is {out_dtype}")
    packed(op, pack, packed_weight)
    if n < 0:
        raise ValueError(f"{op}: n must be at least 0, but is {n}")
    checks.channels(op, "scale_w", scale_w, n)
    checks.channels(op, "bias", bias, n)
    checks.residual_shape(op, residual, x.shape[:-1], n)


def scales(op: str, scale_w: Tensor) -> int:
    """The number of output channels."""
    if scale_w.dim() != 1:
        raise ValueError(f"{op}: scale_w must be 1-D [N], but is {scale_w.dim()}-D")
    return scale_w.shape[0]
