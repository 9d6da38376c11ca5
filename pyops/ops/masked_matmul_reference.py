"""References of the masked product, of its gradients and of the packed mask, and their fakes.

The gradient depends on the order of addition: a kernel, and the reference, is within
``(M + 8) * 2**-24 * (|dy|.T @ |x|)`` of the exact sum over M rows.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from . import checks
from . import masked_matmul_checks as own
from . import masked_matmul_packing as packing
from .int8_gemm_reference import packed_of_unknown_size


def masked_pack_reference(mask: Tensor) -> Tensor:
    own.mask_of("masked_pack", mask)
    return packing.pack_plain(mask)


def masked_pack_fake(mask: Tensor) -> Tensor:
    own.mask_of("masked_pack", mask)
    return packed_of_unknown_size(mask)


def masked_unpack_reference(packed: Tensor, n: int, k: int) -> Tensor:
    checks.packed("masked_unpack", packed, "masked_pack")
    mask = packing.unpack_plain(packed)
    own.packed_shape("masked_unpack", mask.shape, n, k)
    return mask


def masked_unpack_fake(packed: Tensor, n: int, k: int) -> Tensor:
    checks.packed("masked_unpack", packed, "masked_pack")
    return packed.new_empty((n, k), dtype=torch.bool)


def masked_weight_grad_reference(grad: Tensor, x: Tensor, packed: Tensor) -> Tensor:
    own.weight_grad(grad, x, packed)
    mask = packing.unpack_plain(packed)
    own.packed_shape("masked_weight_grad", mask.shape, grad.shape[-1], x.shape[-1])
    dense = _rows(grad).t() @ _rows(x)
    return torch.where(mask, dense, 0.0)


def masked_weight_grad_fake(grad: Tensor, x: Tensor, packed: Tensor) -> Tensor:
    own.weight_grad(grad, x, packed)
    return grad.new_empty((grad.shape[-1], x.shape[-1]))


def masked_matmul_reference(
    x: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None, pattern: int
) -> Tensor:
    own.operands("masked_matmul", x, weight, mask, bias)
    with torch.autocast(x.device.type, enabled=False):
        return F.linear(x, torch.where(mask, weight, 0.0), bias)


def masked_matmul_fake(
    x: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None, pattern: int
) -> Tensor:
    own.operands("masked_matmul", x, weight, mask, bias)
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


def masked_matmul_grad_reference(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    mask: Tensor,
    pattern: int,
    of_x: bool,
    of_weight: bool,
) -> tuple[Tensor, Tensor]:
    _check_grad(grad, x, weight, mask)
    with torch.autocast(x.device.type, enabled=False):
        dx = grad @ torch.where(mask, weight, 0.0) if of_x else x.new_empty(0)
        if not of_weight:
            return dx, x.new_empty(0)
        return dx, torch.where(mask, _rows(grad).t() @ _rows(x), 0.0)


def masked_matmul_grad_fake(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    mask: Tensor,
    pattern: int,
    of_x: bool,
    of_weight: bool,
) -> tuple[Tensor, Tensor]:
    _check_grad(grad, x, weight, mask)
    return (
        x.new_empty(x.shape if of_x else (0,)),
        x.new_empty(weight.shape if of_weight else (0,)),
    )


def _check_grad(grad: Tensor, x: Tensor, weight: Tensor, mask: Tensor) -> None:
    own.operands("masked_matmul_grad", x, weight, mask, None)
    own.output_grad(grad, x, weight)


def _rows(t: Tensor) -> Tensor:
    return t.reshape(t.shape[:-1].numel(), t.shape[-1])
