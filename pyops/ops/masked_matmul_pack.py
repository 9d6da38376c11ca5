"""Masks as the kernels walk them, and the gradient of a masked weight.

The gradient at the places that a mask keeps is a sampled dense-dense product (SDDMM); that of a
dense parameter is dense, with exact zeros elsewhere.
"""

import torch
from torch import Tensor

from . import checks
from . import masked_matmul_checks as own
from . import masked_matmul_reference as plain
from .define import define

define("masked_pack(Tensor mask) -> Tensor", plain)
define("masked_unpack(Tensor packed, int n, int k) -> Tensor", plain)
define("masked_weight_grad(Tensor grad, Tensor x, Tensor packed) -> Tensor", plain)


def masked_pack(mask: Tensor) -> Tensor:
    """Pack a bool ``mask [N, K]`` for ``masked_weight_grad``; 1-D uint8.

    All kernels take the same bytes. ``masked_unpack`` inverts it.

    Raises:
        TypeError: ``mask`` is not bool.
        ValueError: not 2-D.
    """
    own.mask_of("masked_pack", mask)
    out: Tensor = torch.ops.pyops.masked_pack.default(mask)
    return out


def masked_unpack(packed: Tensor, n: int, k: int) -> Tensor:
    """The bool mask ``[n, k]`` that ``masked_pack`` packed.

    Raises:
        TypeError: ``packed`` is not a 1-D uint8 tensor.
        RuntimeError, ValueError: not such a packed mask, or of another shape.
    """
    checks.packed("masked_unpack", packed, "masked_pack")
    out: Tensor = torch.ops.pyops.masked_unpack.default(packed, n, k)
    return out


def masked_weight_grad(grad: Tensor, x: Tensor, packed: Tensor) -> Tensor:
    """``grad.T @ x`` where the mask keeps a place, and 0 elsewhere, whatever stands there.

    Sums over the M rows are within ``(M + 8) * 2**-24 * (|grad|.T @ |x|)`` of the exact ones and do
    not depend on the number of threads.

    Args:
        grad: float32 ``[..., N]``, the gradient of ``x @ weight.T``.
        x: float32 ``[..., K]``.
        packed: ``masked_pack`` of the mask ``[N, K]``.

    Returns:
        float32 ``[N, K]``.

    Raises:
        TypeError, ValueError: an argument has another dtype or shape than stated.
        RuntimeError: ``packed`` is not such a mask, or of another shape.
    """
    checks.no_grad("masked_weight_grad", grad, x)
    own.weight_grad(grad, x, packed)
    out: Tensor = torch.ops.pyops.masked_weight_grad.default(grad, x, packed)
    return out
