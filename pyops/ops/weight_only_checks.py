"""Argument checks of the int4 ops alone, shared by public functions, references and fakes.

``csrc/checks/weight_only.h`` makes the same checks with the same words.
"""

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import is_fake

from . import checks
from .weight_only_packing import GROUP_SIZES, group_count


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
    checks.same_device(op, codes, scale=scale, zero=zero)


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
