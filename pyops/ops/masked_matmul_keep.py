"""``torch.where(mask, weight, 0)``, with its gradient, in the time of reading both.

On a CPU ``torch.where`` and ``masked_fill`` take 3 ns a value, more than the product with a small
weight does, and ``weight * mask`` makes NaN of what is infinite and masked.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _get_current_dispatch_mode

_PLAIN = (Tensor, torch.nn.Parameter)
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def kept(values: Tensor, mask: Tensor) -> Tensor:
    """``values`` where ``mask``, and 0 elsewhere; without a gradient."""
    bits = _BITS.get(values.element_size())
    # Complex tensors may be conjugated by a flag alone, others negated: those have no view as bits.
    if bits is None or values.is_complex() or values.is_neg():
        return values.detach().masked_fill(~mask, 0)
    # -1 has all bits.
    return (values.detach().view(bits) & mask.to(bits).neg_()).view(values.dtype)


def is_plain(*tensors: Tensor | None) -> bool:
    """Whether these are values, of which nothing but autograd wants to know what becomes of them.

    Not where something compiles, traces or transforms, in forward-mode differentiation, and with
    tensors of other classes: those have to see operators of torch.
    """
    if torch.compiler.is_compiling() or transforming() or torch._C._get_tracing_state() is not None:
        return False
    given = [tensor for tensor in tensors if tensor is not None]
    return (
        all(type(tensor) in _PLAIN for tensor in given)
        and not has_tangents(*given)
        and _get_current_dispatch_mode() is None
    )


def autocasts(tensor: Tensor) -> bool:
    """Whether autocast is on for the device of ``tensor``; it is unknown to some, as to meta."""
    device = tensor.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def transforming() -> bool:
    """Whether this is called within a transform of ``torch.func``."""
    return bool(torch._C._are_functorch_transforms_active())


def has_tangents(*tensors: Tensor | None) -> bool:
    """Whether one is a dual tensor of forward-mode differentiation."""
    if forward_ad._current_level < 0:
        return False
    unpack: Any = forward_ad.unpack_dual
    return any(t is not None and unpack(t).tangent is not None for t in tensors)


class _Kept(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(mask)
        return kept(values, mask)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return kept_with_grad(grad, mask), None


def kept_with_grad(values: Tensor, mask: Tensor) -> Tensor:
    """``kept``, and the gradient of ``values`` alike; derivatives of any order."""
    out: Tensor = _Kept.apply(values, mask)  # type: ignore[no-untyped-call]
    return out
