"""The product with a masked weight, and its gradients, in time that follows the mask.

Training a pruned model (Zhu & Gupta 2017) multiplies three times with a weight that is mostly zero:
the layer's output, its input's gradient, and its weight's. The first two are products with a sparse
weight (``sparse_gemm.py``), the last one is sampled at the places that the mask keeps
(``masked_matmul_pack.py``), as in Gale et al., "Sparse GPU Kernels for Deep Learning", 2020.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import backends
from . import masked_matmul_checks as own
from . import masked_matmul_reference as plain
from . import sparse_gemm as _sparse_gemm  # noqa: F401  (its ops are called below)
from .define import define
from .masked_matmul_keep import autocasts, has_tangents, kept_with_grad, transforming
from .masked_matmul_pack import masked_pack, masked_unpack, masked_weight_grad
from .masked_matmul_pattern import SparsePattern, masked_matmul_plan, pattern_of, patterns

__all__ = [
    "SparsePattern",
    "masked_matmul",
    "masked_matmul_plan",
    "masked_pack",
    "masked_unpack",
    "masked_weight_grad",
]

define(
    "masked_matmul(Tensor x, Tensor weight, Tensor mask, Tensor? bias, int pattern) -> Tensor",
    plain,
)
define(
    "masked_matmul_grad(Tensor grad, Tensor? x, Tensor? weight, Tensor mask, int pattern) "
    "-> (Tensor, Tensor)",
    plain,
)


def masked_matmul(
    x: Tensor,
    weight: Tensor,
    mask: Tensor,
    bias: Tensor | None = None,
    *,
    state: SparsePattern | None = None,
) -> Tensor:
    """``x @ where(mask, weight, 0).T + bias``, with gradients for x, weight and bias.

    The gradient of ``weight`` is dense, with exact zeros where the mask is False, whatever x and
    the output's gradient hold. Any mask is taken as it is. Sums are float32: the output and x's
    gradient are within ``(K + 2) * 2**-24`` and ``(N + 2) * 2**-24`` of the sum of absolute
    products (bias: one more rounding), the weight's within ``(M + 8) * 2**-24`` over M rows. No
    result depends on the number of threads.

    Where sparse kernels do not pay (``masked_matmul_plan``), for float64, on other devices and
    under autocast, it is the dense product with ``where(mask, weight, 0)``; ``state.reason`` says
    so. It is that too within ``torch.compile``, ``torch.func`` and forward-mode differentiation
    (dual tensors), which say nothing. Gradients have gradients of any order; those are dense
    products.

    Values are packed anew where a weight or mask has other memory or another version. What is
    changed through ``tensor.data``, NumPy or another process has no new version: give a ``state``
    and call its ``forget()`` then.

    Args:
        x: float32 or float64 ``[..., K]``.
        weight: ``[N, K]`` of x's dtype.
        mask: bool ``[N, K]``.
        bias: ``[N]`` of x's dtype.
        state: what is kept from call to call. None: it is kept as long as ``mask``, and shared by
            all products with that tensor.

    Returns:
        ``[..., N]`` of x's dtype, or of autocast's.

    Raises:
        TypeError, ValueError: an argument has another dtype or shape than stated.
    """
    tangents = not torch.compiler.is_compiling() and has_tangents(x, weight, bias)
    if autocasts(x):
        own.mask_of("masked_matmul", mask)
        own.mask_shape("masked_matmul", weight, mask)
        if state is not None:
            state.reason = "autocast computes in another type"
        return F.linear(x, _dense(weight, mask, tangents), bias)
    own.operands("masked_matmul", x, weight, mask, bias)
    # What is kept is told by memory and version, which tensors of a compiled graph share, and those
    # of torch.func have not.
    if tangents or torch.compiler.is_compiling() or transforming():
        return F.linear(x, torch.where(mask, weight, 0.0), bias)
    number = 0 if state is None else state.number
    # What runs dense anyway need not be an op of ours, which takes autograd longer.
    if type(mask) is Tensor:
        pattern = pattern_of(number, mask)
        pattern.reason = pattern.why_dense(x, weight, mask)
        if pattern.reason is not None:
            return F.linear(x, kept_with_grad(weight, mask), bias)
    out: Tensor = torch.ops.pyops.masked_matmul.default(x, weight, mask, bias, number)
    return out


def _dense(weight: Tensor, mask: Tensor, tangents: bool) -> Tensor:
    return torch.where(mask, weight, 0.0) if tangents else kept_with_grad(weight, mask)


def _masked_matmul_cpu(
    x: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None, pattern: int
) -> Tensor:
    own.operands("masked_matmul", x, weight, mask, bias)
    state = pattern_of(pattern, mask)
    state.reason = state.why_dense(x, weight, mask)
    if state.reason is not None:
        return plain.masked_matmul_reference(x, weight, mask, bias, pattern)
    with state.weight(weight, mask, False) as packed:
        out: Tensor = torch.ops.pyops.sparse_linear.default(x, packed, len(weight), bias, None, 0)
    return out


def _masked_matmul_grad_cpu(
    grad: Tensor, x: Tensor | None, weight: Tensor | None, mask: Tensor, pattern: int
) -> tuple[Tensor, Tensor]:
    shapes = own.grad_operands(grad, x, weight, mask)
    state = pattern_of(pattern, mask)
    if state.why_dense(*shapes, mask) is not None:
        return plain.masked_matmul_grad_reference(grad, x, weight, mask, pattern)
    dx, dw = grad.new_empty(0), grad.new_empty(0)
    if weight is not None:
        with state.weight(weight, mask, True) as packed:
            dx = torch.ops.pyops.sparse_linear.default(grad, packed, mask.shape[1], None, None, 0)
    if x is not None:
        dw = torch.ops.pyops.masked_weight_grad.default(grad, x, state.places(mask))
    return dx, dw


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """What the asked gradients are made of: what is not saved may change, and go."""
    x, weight, mask, _, ctx.pattern = inputs
    of_x, of_weight = ctx.needs_input_grad[:2]
    ctx.save_for_backward(
        x if of_weight else None, weight if of_x else None, mask if of_x or of_weight else None
    )
    ctx.state = patterns.get(ctx.pattern)  # it has to live until then


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, mask = ctx.saved_tensors
    of_x, of_weight, _, of_bias, _ = ctx.needs_input_grad
    dx = dw = None
    if of_x or of_weight:
        dx, dw = torch.ops.pyops.masked_matmul_grad.default(
            grad, x if of_weight else None, weight if of_x else None, mask, ctx.pattern
        )
    db = _rows(grad).sum(0) if of_bias else None
    return dx if of_x else None, dw if of_weight else None, None, db, None


def _rows(t: Tensor) -> Tensor:
    return t.reshape(t.shape[:-1].numel(), t.shape[-1])


def _save_grad(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    grad, x, weight, mask, _ = inputs
    of_grad, of_x, of_weight = ctx.needs_input_grad[:3]
    ctx.of_dx, ctx.of_dw = weight is not None, x is not None
    ctx.save_for_backward(
        grad if of_x or of_weight else None,
        x if of_grad else None,
        weight if of_grad else None,
        mask,
    )


def _backward_of_grad(ctx: Any, of_dx: Tensor, of_dw: Tensor) -> tuple[Tensor | None, ...]:
    """Of ``dx = grad @ kept(weight)`` and ``dw = kept(grad.T @ x)``, by operators of torch."""
    grad, x, weight, mask = ctx.saved_tensors
    of_grad, of_x, of_weight = ctx.needs_input_grad[:3]
    to_grad = to_x = to_weight = None
    if of_grad and ctx.of_dx:
        to_grad = F.linear(of_dx, kept_with_grad(weight, mask))
    if of_grad and ctx.of_dw:
        more = F.linear(x, kept_with_grad(of_dw, mask))
        to_grad = more if to_grad is None else to_grad + more
    if of_weight:
        to_weight = kept_with_grad(_rows(grad).t() @ _rows(of_dx), mask)
    if of_x:
        to_x = grad @ kept_with_grad(of_dw, mask)
    return to_grad, to_x, to_weight, None, None


torch.library.register_autograd("pyops::masked_matmul", _backward, setup_context=_save)
torch.library.register_autograd(
    "pyops::masked_matmul_grad", _backward_of_grad, setup_context=_save_grad
)
if backends.compiled():
    torch.library.impl("pyops::masked_matmul", "cpu", _masked_matmul_cpu)
    torch.library.impl("pyops::masked_matmul_grad", "cpu", _masked_matmul_grad_cpu)
