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
from .masked_matmul_keep import kept


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
    return kept(dense, mask)


def masked_weight_grad_fake(grad: Tensor, x: Tensor, packed: Tensor) -> Tensor:
    own.weight_grad(grad, x, packed)
    return grad.new_empty((grad.shape[-1], x.shape[-1]))


def masked_matmul_reference(
    x: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None, pattern: int
) -> Tensor:
    own.operands("masked_matmul", x, weight, mask, bias)
    with torch.autocast(x.device.type, enabled=False):
        return F.linear(x, kept(weight, mask), bias)


def masked_matmul_fake(
    x: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None, pattern: int
) -> Tensor:
    own.operands("masked_matmul", x, weight, mask, bias)
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


def masked_matmul_grad_reference(
    grad: Tensor, x: Tensor | None, weight: Tensor | None, mask: Tensor, pattern: int
) -> tuple[Tensor, Tensor]:
    """Of x, for which it takes the weight; of the weight, for which x. Empty where that is None."""
    own.grad_operands(grad, x, weight, mask)
    dx, dw = grad.new_empty(0), grad.new_empty(0)
    with torch.autocast(grad.device.type, enabled=False):
        if weight is not None:
            dx = grad @ kept(weight, mask)
        if x is not None:
            dw = kept(_rows(grad).t() @ _rows(x), mask)
    return dx, dw


def masked_matmul_grad_fake(
    grad: Tensor, x: Tensor | None, weight: Tensor | None, mask: Tensor, pattern: int
) -> tuple[Tensor, Tensor]:
    of_x, of_weight = own.grad_operands(grad, x, weight, mask)
    return (
        grad.new_empty((0,) if weight is None else of_x.shape),
        grad.new_empty((0,) if x is None else of_weight.shape),
    )


def _rows(t: Tensor) -> Tensor:
    return t.reshape(t.shape[:-1].numel(), t.shape[-1])
