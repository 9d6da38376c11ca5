"""Argument checks of the masked ops, shared by public functions, references and fakes.

``csrc/checks/masked_matmul.h`` makes the same checks of its ops with the same words.
"""

import torch
from torch import Tensor

from . import checks


def mask_of(op: str, mask: Tensor) -> None:
    if mask.dtype != torch.bool:
        raise TypeError(f"{op}: mask must be torch.bool, but is {mask.dtype}")
    if mask.dim() != 2:
        raise ValueError(f"{op}: mask must be 2-D [N, K], but is {mask.dim()}-D")


def float32(op: str, name: str, tensor: Tensor) -> None:
    if tensor.dtype != torch.float32:
        raise TypeError(f"{op}: {name} must be torch.float32, but is {tensor.dtype}")


def weight_grad(grad: Tensor, x: Tensor, packed: Tensor) -> None:
    op = "masked_weight_grad"
    for name, rows in (("grad", grad), ("x", x)):
        float32(op, name, rows)
        checks.at_least_1d(op, name, rows)
    if grad.shape[:-1] != x.shape[:-1]:
        raise ValueError(
            f"{op}: grad and x must have the same dimensions but the last, but are "
            f"{list(grad.shape)} and {list(x.shape)}"
        )
    checks.packed(op, packed, "masked_pack")
    checks.same_device(op, grad, x=x, packed=packed)


def packed_shape(op: str, shape: torch.Size, n: int, k: int) -> None:
    if shape != (n, k):
        raise ValueError(f"{op}: the packed mask is {list(shape)}, but [{n}, {k}] is needed")


def mask_shape(op: str, weight: Tensor, mask: Tensor) -> None:
    if mask.shape != weight.shape:
        raise ValueError(
            f"{op}: mask must have the shape of weight, {list(weight.shape)}, but is "
            f"{list(mask.shape)}"
        )


def operands(op: str, x: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None) -> None:
    """float32, or float64 for checks of gradients, which the reference computes."""
    if weight.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"{op}: weight must be torch.float32 or torch.float64, but is {weight.dtype}"
        )
    if weight.dim() != 2:
        raise ValueError(f"{op}: weight must be 2-D [N, K], but is {weight.dim()}-D")
    mask_of(op, mask)
    mask_shape(op, weight, mask)
    n, k = weight.shape
    if x.dtype != weight.dtype:
        raise TypeError(f"{op}: x must have the dtype of weight, {weight.dtype}, but is {x.dtype}")
    checks.at_least_1d(op, "x", x)
    if x.shape[-1] != k:
        raise ValueError(f"{op}: the last dimension of x must be {k}, but is {x.shape[-1]}")
    if bias is not None and bias.dtype != weight.dtype:
        raise TypeError(
            f"{op}: bias must have the dtype of weight, {weight.dtype}, but is {bias.dtype}"
        )
    if bias is not None and bias.shape != (n,):
        raise ValueError(f"{op}: bias must be [{n}], but is {list(bias.shape)}")
    checks.same_device(op, x, weight=weight, mask=mask, bias=bias)


def grad_operands(
    grad: Tensor, x: Tensor | None, weight: Tensor | None, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """x and weight; what is None in the other's shape and type, without memory of its own."""
    op = "masked_matmul_grad"
    if x is None and weight is None:
        raise ValueError(f"{op}: x and weight are both None, expected one of them at least")
    mask_of(op, mask)
    checks.at_least_1d(op, "grad", grad)
    one = grad.new_empty(())
    x = one.expand(*grad.shape[:-1], mask.shape[1]) if x is None else x
    weight = one.expand(mask.shape) if weight is None else weight
    operands(op, x, weight, mask, None)
    if grad.dtype != weight.dtype:
        raise TypeError(
            f"{op}: grad must have the dtype of weight, {weight.dtype}, but is {grad.dtype}"
        )
    expected = [*x.shape[:-1], weight.shape[0]]
    if list(grad.shape) != expected:
        raise ValueError(f"{op}: grad must be {expected}, but is {list(grad.shape)}")
    checks.same_device(op, x, grad=grad)
    return x, weight
